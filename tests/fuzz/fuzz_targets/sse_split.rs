//! A stream gives the same events however it is cut. The first byte of the input says how: the length of each piece,
//! and the next the frame limit.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use openai_wire::sse::{SseDecoder, SseError, SseEvent};

fn decode(pieces: impl Iterator<Item = Bytes>, max_frame_bytes: usize) -> Vec<Result<SseEvent, SseError>> {
    let mut decoder = SseDecoder::new(max_frame_bytes);
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        events.extend(std::iter::from_fn(|| decoder.next_event()));
    }
    events.extend(std::iter::from_fn(|| decoder.finish()));
    events
}

fuzz_target!(|input: &[u8]| {
    let [length, limit, stream @ ..] = input else { return };
    let limit = usize::from(*limit);
    let pieces = stream.chunks(usize::from(*length).max(1)).map(Bytes::copy_from_slice);
    let cut = decode(pieces, limit);
    assert_eq!(cut, decode(std::iter::once(Bytes::copy_from_slice(stream)), limit));
    for event in cut.into_iter().flatten() {
        assert!(event.data.len() + event.event.map_or(0, |name| name.len()) <= limit);
    }
});
