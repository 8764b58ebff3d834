//! The memory that bodies take, of all requests together: where an instance has little, few long ones fit at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// Without a limit it counts nothing. Clones share the limit.
#[derive(Clone, Debug)]
pub(crate) struct BodyMemory(Option<Arc<Counter>>);

#[derive(Debug)]
struct Counter {
    held: AtomicUsize,
    max: usize,
}

/// There is no room for another body, or for more of this one.
#[derive(Debug)]
pub(crate) struct NoRoom;

/// What one body takes; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    memory: BodyMemory,
    bytes: usize,
}

impl BodyMemory {
    /// For what is short, and soon gone.
    pub(crate) const UNCOUNTED: Self = Self(None);

    pub(crate) fn new(max_bytes: Option<usize>) -> Self {
        Self(max_bytes.map(|max| Arc::new(Counter { held: AtomicUsize::new(0), max })))
    }

    /// For a body that has nothing yet.
    pub(crate) fn room(&self) -> Room {
        Room { memory: self.clone(), bytes: 0 }
    }
}

impl Room {
    /// Makes it room for that many bytes in all. It never shrinks.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let Some(counter) = &self.memory.0 else { return Ok(()) };
        let more = bytes.saturating_sub(self.bytes);
        let fits = |held: usize| held.checked_add(more).filter(|held| *held <= counter.max);
        counter.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| NoRoom)?;
        self.bytes += more;
        Ok(())
    }

    /// The body, which takes its room until the last of its clones and slices is dropped.
    pub(crate) fn holding(self, body: Bytes) -> Bytes {
        if self.memory.0.is_none() || body.is_empty() {
            return body;
        }
        Bytes::from_owner(Held { body, _room: self })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(counter) = &self.memory.0 {
            counter.held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

struct Held {
    body: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_until_the_last_slice_is_gone() {
        let memory = BodyMemory::new(Some(10));
        let mut first = memory.room();
        first.grow_to(3).unwrap();
        first.grow_to(7).unwrap();
        let mut second = memory.room();
        second.grow_to(3).unwrap();
        assert!(second.grow_to(4).is_err());
        assert!(memory.room().grow_to(usize::MAX).is_err());
        let body = first.holding(Bytes::from_static(b"seven b"));
        let slice = body.slice(2..3);
        drop(body);
        assert!(second.grow_to(4).is_err());
        assert_eq!(slice, "v");
        drop(slice);
        second.grow_to(10).unwrap();
        drop(second);
        memory.room().grow_to(10).unwrap();
    }

    #[test]
    fn an_unlimited_one_counts_nothing() {
        let mut room = BodyMemory::new(None).room();
        room.grow_to(usize::MAX).unwrap();
        assert_eq!(room.holding(Bytes::from_static(b"body")), "body");
    }
}
