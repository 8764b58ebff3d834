//! Run events as lines of JSON. Push bytes, pull events; how the bytes are cut does not matter.

use crate::RunEvent;

/// The longest line that a decoder takes.
pub const MAX_FRAME_BYTES: usize = 4 << 20;

/// The event's line, its end included. A JSON text has no line feed of its own.
pub fn encode(event: &RunEvent, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, event)
        .expect("a vector takes everything, and strings and numbers are always JSON");
    out.push(b'\n');
}

/// An empty line says that the runner is still there; a decoder passes over it.
pub const KEEP_ALIVE: &[u8] = b"\n";

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a run event is longer than {MAX_FRAME_BYTES} bytes")]
    TooLong,
    #[error("not a run event")]
    Malformed(#[source] serde_json::Error),
}

/// Turns bytes into events. After an error nothing more comes.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Up to here `buffer` has been taken.
    taken: usize,
    /// Up to here `buffer` has no line feed after `taken`.
    searched: usize,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.searched -= self.taken;
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event; `Ok(None)` when more bytes are needed. Unknown events and empty lines are passed over.
    pub fn next_event(&mut self) -> Result<Option<RunEvent>, FrameError> {
        loop {
            let rest = &self.buffer[self.searched..];
            let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
                self.searched = self.buffer.len();
                return if self.buffer.len() - self.taken > MAX_FRAME_BYTES {
                    Err(FrameError::TooLong)
                } else {
                    Ok(None)
                };
            };
            let end = self.searched + length;
            let line = &self.buffer[self.taken..end];
            if line.len() > MAX_FRAME_BYTES {
                return Err(FrameError::TooLong);
            }
            let event = if line.trim_ascii().is_empty() {
                RunEvent::Unknown
            } else {
                serde_json::from_slice(line).map_err(FrameError::Malformed)?
            };
            self.taken = end + 1;
            self.searched = self.taken;
            if event != RunEvent::Unknown {
                return Ok(Some(event));
            }
        }
    }
}
