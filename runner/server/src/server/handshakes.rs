//! Peers that have not been let in yet.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The handshakes under way, of which there is a limit. When it is reached, a new one takes the place of the oldest of
/// the address that has the most: whoever opens many connections and says nothing crowds out nobody but themselves.
#[derive(Debug)]
pub(super) struct Handshakes {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    /// In the order in which they began.
    under_way: BTreeMap<u64, (IpAddr, CancellationToken)>,
}

/// Held until the peer is let in, or is not.
#[derive(Debug)]
pub(super) struct Place {
    handshakes: Arc<Handshakes>,
    id: u64,
    crowded_out: CancellationToken,
}

impl Handshakes {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default() })
    }

    pub(super) fn begin(self: &Arc<Self>, peer: IpAddr) -> Place {
        let mut state = self.lock();
        if state.under_way.len() >= self.limit {
            state.crowd_out();
        }
        state.last_id += 1;
        let (id, crowded_out) = (state.last_id, CancellationToken::new());
        state.under_way.insert(id, (peer, crowded_out.clone()));
        Place { handshakes: Arc::clone(self), id, crowded_out }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn crowd_out(&mut self) {
        let mut counts = HashMap::new();
        for (peer, _) in self.under_way.values() {
            *counts.entry(*peer).or_insert(0_usize) += 1;
        }
        let most = counts.values().copied().max();
        let oldest = self.under_way.iter().find(|(_, (peer, _))| counts.get(peer).copied() == most);
        let Some((&id, _)) = oldest else { return };
        if let Some((_, crowded_out)) = self.under_way.remove(&id) {
            crowded_out.cancel();
        }
    }
}

impl Place {
    /// Resolves when another has taken it.
    pub(super) async fn crowded_out(&self) {
        self.crowded_out.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handshakes.lock().under_way.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn is_out(place: &Place) -> bool {
        place.crowded_out.is_cancelled()
    }

    #[test]
    fn the_oldest_of_the_address_with_the_most_makes_room() {
        let handshakes = Handshakes::new(4);
        let quiet = handshakes.begin(peer(1));
        let many: Vec<_> = (0..3).map(|_| handshakes.begin(peer(2))).collect();
        let new = handshakes.begin(peer(3));
        assert_eq!(many.iter().map(is_out).collect::<Vec<_>>(), [true, false, false]);
        let newer = handshakes.begin(peer(2));
        assert_eq!(many.iter().map(is_out).collect::<Vec<_>>(), [true, true, false]);
        assert!(!is_out(&quiet) && !is_out(&new) && !is_out(&newer));
        assert_eq!(handshakes.lock().under_way.len(), 4);
    }

    #[test]
    fn places_that_are_left_are_free() {
        let handshakes = Handshakes::new(2);
        let kept = handshakes.begin(peer(1));
        drop(handshakes.begin(peer(1)));
        let next = handshakes.begin(peer(1));
        assert!(!is_out(&kept) && !is_out(&next));
        drop((kept, next));
        assert!(handshakes.lock().under_way.is_empty());
    }
}
