//! Server-sent events, sans-IO: push bytes in, pull events out; the result does not depend on how the input is cut.
//!
//! Rules: WHATWG HTML, "Server-sent events", section "Interpreting an event stream". One deliberate leniency: at the
//! end of the stream an event that lacks its final blank line is delivered ([`SseDecoder::finish`]).

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memchr2;

/// The data of the event that ends OpenAI's streams.
pub const DONE: &[u8] = b"[DONE]";

/// One event. `id` and `retry` fields are not kept: nothing here reconnects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent {
    /// Value of the last non-empty `event` field, as sent.
    pub event: Option<Bytes>,
    /// Values of the `data` fields joined with `\n`. May be empty, when a `data` field was sent without a value.
    pub data: Bytes,
}

impl SseEvent {
    /// Whether this is OpenAI's end of stream. Tolerates white space around the marker.
    pub fn is_done(&self) -> bool {
        self.data.trim_ascii() == DONE
    }
}

/// Why a stream cannot be decoded further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    #[error("an event of the stream exceeds {max_frame_bytes} bytes")]
    FrameTooLarge { max_frame_bytes: usize },
}

/// Incremental decoder. Call [`push`](Self::push), then [`next_event`](Self::next_event) until it gives `None`; at the
/// end of the stream [`finish`](Self::finish) until it gives `None`.
///
/// An event that lies whole in one pushed `Bytes` and has one data line is a slice of it. Only what is cut by the end
/// of a push is copied, at most `max_frame_bytes` of it, and nothing is held between events.
#[derive(Debug)]
pub struct SseDecoder {
    max_frame_bytes: usize,
    /// What was pushed; everything before `read` is done with.
    input: Bytes,
    read: usize,
    /// Start of a line whose end has not been pushed yet.
    line: BytesMut,
    data: Field,
    event: Field,
    /// The first line of the stream, which may start with a byte order mark, is still to come.
    at_start: bool,
    /// The last line ended with CR at the end of a push: an LF that follows belongs to it.
    skip_lf: bool,
    /// Failed or finished: no more events.
    fused: bool,
}

/// A field of the event so far.
#[derive(Debug)]
enum Field {
    None,
    /// Part of something pushed.
    Slice(Bytes),
    /// Its own copy.
    Buffer(BytesMut),
}

/// One line without its end. Offsets tell where the value begins.
enum Line {
    Blank,
    Data(usize),
    Event(usize),
    /// A comment or a field without meaning here.
    Ignored,
}

const BOM: &[u8] = b"\xEF\xBB\xBF";

impl SseDecoder {
    /// `max_frame_bytes` bounds each line, and the data and name of each event together.
    pub fn new(max_frame_bytes: usize) -> Self {
        Self {
            max_frame_bytes,
            input: Bytes::new(),
            read: 0,
            line: BytesMut::new(),
            data: Field::None,
            event: Field::None,
            at_start: true,
            skip_lf: false,
            fused: false,
        }
    }

    /// Adds input. Meant to be called when [`next_event`](Self::next_event) gave `None`; what was not read by then is
    /// copied.
    pub fn push(&mut self, bytes: Bytes) {
        if self.fused {
            return;
        }
        if self.read < self.input.len() {
            let mut joined = BytesMut::from(&self.input[self.read..]);
            joined.extend_from_slice(&bytes);
            self.input = joined.freeze();
        } else {
            self.input = bytes;
        }
        self.read = 0;
    }

    /// The next event of what was pushed; `None` when more input is needed, and always after an error.
    #[inline]
    pub fn next_event(&mut self) -> Option<Result<SseEvent, SseError>> {
        loop {
            let rest = &self.input[self.read..];
            let Some(&first) = rest.first() else {
                self.detach();
                return None;
            };
            if self.skip_lf {
                self.skip_lf = false;
                if first == b'\n' {
                    self.read += 1;
                    continue;
                }
            }
            let end = if first == b'\n' { Some(0) } else { memchr2(b'\n', b'\r', rest) };
            let length = end.unwrap_or(rest.len());
            if self.held() + self.line.len() + length > self.max_frame_bytes {
                return Some(Err(self.fail()));
            }
            let Some(end) = end else {
                self.line.extend_from_slice(rest);
                self.read = self.input.len();
                self.detach();
                return None;
            };
            let start = self.read;
            self.read += end + 1;
            if rest[end] == b'\r' {
                match rest.get(end + 1) {
                    Some(b'\n') => self.read += 1,
                    Some(_) => {}
                    None => self.skip_lf = true,
                }
            }
            let blank = if self.line.is_empty() {
                let line = parse_line(&rest[..end], &mut self.at_start);
                let end = start + end;
                match line {
                    Line::Blank => true,
                    Line::Data(value) => {
                        let value = start + value..end;
                        self.data.add(&self.input, value);
                        false
                    }
                    Line::Event(value) => {
                        self.event = Field::Slice(self.input.slice(start + value..end));
                        false
                    }
                    Line::Ignored => false,
                }
            } else {
                self.line.extend_from_slice(&rest[..end]);
                self.end_buffered_line()
            };
            if blank && let Some(event) = self.dispatch() {
                return Some(Ok(event));
            }
        }
    }

    /// Call at the end of the stream until it gives `None`: the events not pulled yet, then the one that the end cut
    /// off, if it has data. The decoder gives nothing afterwards.
    pub fn finish(&mut self) -> Option<Result<SseEvent, SseError>> {
        if let Some(event) = self.next_event() {
            return Some(event);
        }
        if self.fused {
            return None;
        }
        if !self.line.is_empty() {
            self.end_buffered_line();
        }
        self.fused = true;
        self.dispatch().map(Ok)
    }

    /// The buffered line is complete; tells whether it is blank, which only a byte order mark on its own can be.
    fn end_buffered_line(&mut self) -> bool {
        let line = std::mem::take(&mut self.line).freeze();
        match parse_line(&line, &mut self.at_start) {
            Line::Blank => return true,
            Line::Data(value) => self.data.add(&line, value..line.len()),
            Line::Event(value) => self.event = Field::Slice(line.slice(value..)),
            Line::Ignored => {}
        }
        false
    }

    /// What a blank line does: gives the event if it has data, and starts the next.
    fn dispatch(&mut self) -> Option<SseEvent> {
        let event = self.event.take().filter(|name| !name.is_empty());
        self.data.take().map(|data| SseEvent { event, data })
    }

    /// Copies what an unfinished event has so far and lets go of the input: a few bytes must not keep a large read
    /// buffer alive while the stream idles.
    fn detach(&mut self) {
        self.data.detach();
        self.event.detach();
        self.input = Bytes::new();
        self.read = 0;
    }

    /// Bytes of the event's lines that are already complete.
    fn held(&self) -> usize {
        self.data.len() + self.event.len()
    }

    fn fail(&mut self) -> SseError {
        let max_frame_bytes = self.max_frame_bytes;
        *self = Self { fused: true, ..Self::new(max_frame_bytes) };
        SseError::FrameTooLarge { max_frame_bytes }
    }
}

impl Field {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Slice(bytes) => bytes.len(),
            Self::Buffer(bytes) => bytes.len(),
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        match std::mem::replace(self, Self::None) {
            Self::None => None,
            Self::Slice(bytes) => Some(bytes),
            Self::Buffer(bytes) => Some(bytes.freeze()),
        }
    }

    fn detach(&mut self) {
        if let Self::Slice(bytes) = self {
            *self = Self::Buffer(BytesMut::from(&bytes[..]));
        }
    }

    /// Adds a line.
    fn add(&mut self, source: &Bytes, value: Range<usize>) {
        if let Self::None = self {
            *self = Self::Slice(source.slice(value));
            return;
        }
        self.detach();
        if let Self::Buffer(joined) = self {
            joined.put_u8(b'\n');
            joined.extend_from_slice(&source[value]);
        }
    }
}

#[inline]
fn parse_line(line: &[u8], at_start: &mut bool) -> Line {
    let mut offset = 0;
    if std::mem::take(at_start) && line.starts_with(BOM) {
        offset = BOM.len();
    }
    let line = &line[offset..];
    if let Some(value) = line.strip_prefix(b"data:") {
        return Line::Data(offset + 5 + usize::from(value.first() == Some(&b' ')));
    }
    if let Some(value) = line.strip_prefix(b"event:") {
        return Line::Event(offset + 6 + usize::from(value.first() == Some(&b' ')));
    }
    match line {
        b"" => Line::Blank,
        // A field without a colon has the empty value.
        b"data" => Line::Data(offset + line.len()),
        b"event" => Line::Event(offset + line.len()),
        _ => Line::Ignored,
    }
}

/// Appends one event with `data`. A line break in it becomes another `data` line, as the format demands; decoded, each
/// CR, LF and CRLF is then one LF (in JSON, line breaks are white space).
pub fn encode_data(out: &mut BytesMut, data: &[u8]) {
    if memchr2(b'\n', b'\r', data).is_none() {
        out.reserve(data.len() + 8);
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(data);
        out.extend_from_slice(b"\n\n");
    } else {
        encode_lines(out, b"data: ", data);
    }
}

/// As [`encode_data`] of the concatenated `parts`, without concatenating them first.
pub fn encode_data_parts(out: &mut BytesMut, parts: &[&[u8]]) {
    if parts.iter().any(|part| memchr2(b'\n', b'\r', part).is_some()) {
        return encode_data(out, &parts.concat());
    }
    out.reserve(parts.iter().map(|part| part.len()).sum::<usize>() + 8);
    out.extend_from_slice(b"data: ");
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\n\n");
}

/// Appends a comment, which clients ignore. The blank line after it keeps it apart from the next event for clients that
/// cut the stream at blank lines.
pub fn encode_comment(out: &mut BytesMut, comment: &str) {
    encode_lines(out, b": ", comment.as_bytes());
}

/// Appends OpenAI's end of stream.
pub fn encode_done(out: &mut BytesMut) {
    encode_data(out, DONE);
}

fn encode_lines(out: &mut BytesMut, prefix: &[u8], mut text: &[u8]) {
    loop {
        let end = memchr2(b'\n', b'\r', text);
        out.extend_from_slice(prefix);
        out.extend_from_slice(&text[..end.unwrap_or(text.len())]);
        out.put_u8(b'\n');
        let Some(end) = end else { break };
        let crlf = text[end..].starts_with(b"\r\n");
        text = &text[end + 1 + usize::from(crlf)..];
    }
    out.put_u8(b'\n');
}

#[cfg(test)]
mod tests;
