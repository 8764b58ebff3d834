//! Where requests begin and end in the bytes of an HTTP/1.1 connection, and which head has both `Content-Length` and
//! `Transfer-Encoding` (RFC 9112, section 6.3). Sans-IO; the same however the bytes are cut.
//!
//! It judges nothing else: what it cannot follow makes it stop looking ([`State::Opaque`]), since hyper, which parses
//! the same bytes after it, refuses that or reads it in its own, safe way.

use memchr::memchr;

const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";
/// As much of a line as is looked at: a length with its name, and generous white space. What is longer is not read as
/// a number.
const LINE_BYTES: usize = 64;
/// HTTP/2's preface looks like a request; this is what follows its first line.
const HTTP2_FIRST_LINE: &[u8] = b"PRI * HTTP/2.0\r";
const HTTP2_PREFACE_REST: u64 = b"\r\nSM\r\n\r\n".len() as u64;

/// Follows one connection.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    line: Line,
    head: Head,
    /// The head of some request has ended, or HTTP/2 has begun.
    greeted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// That many bytes of a body.
    Body(u64),
    ChunkSize,
    /// That many bytes of a chunk; its line end is skipped as an empty line before the next size.
    Chunk(u64),
    Trailer,
    /// That many bytes of HTTP/2's preface.
    Http2Preface(u64),
    /// Not looked at any more, and not HTTP/1.1.
    Http2,
    /// Not looked at any more.
    Opaque,
}

/// What is known of the head so far.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    /// Its first line is complete.
    begun: bool,
    has_length: bool,
    has_encoding: bool,
    /// `None` if there is none, or none that can be read.
    length: Option<u64>,
}

/// The line that is being read: its first bytes, so that a line that was cut is seen whole.
#[derive(Debug)]
struct Line {
    bytes: [u8; LINE_BYTES],
    held: usize,
}

impl Line {
    fn append(&mut self, piece: &[u8]) {
        let room = LINE_BYTES - self.held;
        let taken = piece.len().min(room);
        self.bytes[self.held..self.held + taken].copy_from_slice(&piece[..taken]);
        self.held += taken;
    }
}

impl Framing {
    pub(super) fn new() -> Self {
        Self {
            state: State::Head,
            line: Line { bytes: [0; LINE_BYTES], held: 0 },
            head: Head::default(),
            greeted: false,
        }
    }

    /// Whether a whole head, or HTTP/2's preface, has come.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Whether an HTTP/1.1 request has begun and may go on.
    pub(super) fn is_amid_request(&self) -> bool {
        match self.state {
            State::Head => self.head.begun || self.line.held > 0,
            State::Body(_) | State::Chunk(_) | State::ChunkSize | State::Trailer | State::Opaque => true,
            State::Http2Preface(_) | State::Http2 => false,
        }
    }

    /// Takes the next bytes. `Some` is the index in `bytes` of the colon that completes the second of the two names
    /// in one head; nothing is looked at from then on.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.state {
                State::Opaque | State::Http2 => return None,
                State::Body(left) | State::Chunk(left) | State::Http2Preface(left) => {
                    let skipped = left.min(rest.len() as u64);
                    self.skip(left - skipped);
                    at += usize::try_from(skipped).expect("no longer than a slice");
                }
                State::Head | State::ChunkSize | State::Trailer => {
                    let end = memchr(b'\n', rest);
                    let piece = &rest[..end.unwrap_or(rest.len())];
                    let held = self.line.held;
                    // Most lines are whole and need no copy.
                    let is_whole = held == 0 && end.is_some();
                    if !is_whole {
                        self.line.append(piece);
                    }
                    let line = if is_whole { piece } else { &self.line.bytes[..self.line.held] };
                    let line = &line[..line.len().min(LINE_BYTES)];
                    if self.state == State::Head
                        && self.head.begun
                        && let Some(colon) = self.head.note_name(line, held)
                    {
                        self.state = State::Opaque;
                        return Some(at + colon - held);
                    }
                    if end.is_some() {
                        match self.state {
                            State::Head => {
                                (self.state, self.greeted) = self.head.end_line(line, self.greeted);
                            }
                            State::ChunkSize => self.state = after_chunk_size(line),
                            _ if is_blank(line) => self.state = State::Head,
                            _ => {}
                        }
                        self.line.held = 0;
                    }
                    at += piece.len() + usize::from(end.is_some());
                }
            }
        }
        None
    }

    fn skip(&mut self, left: u64) {
        self.state = match (self.state, left) {
            (State::Body(_), 0) => State::Head,
            (State::Body(_), left) => State::Body(left),
            (State::Http2Preface(_), 0) => {
                self.greeted = true;
                State::Http2
            }
            (State::Http2Preface(_), left) => State::Http2Preface(left),
            (_, 0) => State::ChunkSize,
            (_, left) => State::Chunk(left),
        };
    }
}

impl Head {
    /// Notes which of the two headers a line (perhaps not whole yet, `seen` bytes of it seen before) names. `Some` is
    /// the index of the colon, once both are there.
    fn note_name(&mut self, line: &[u8], seen: usize) -> Option<usize> {
        let names = |name: &[u8]| {
            seen < name.len() && line.len() >= name.len() && line[..name.len()].eq_ignore_ascii_case(name)
        };
        let colon = match line.first() {
            Some(b'c' | b'C') if names(CONTENT_LENGTH) => {
                self.has_length = true;
                CONTENT_LENGTH.len() - 1
            }
            Some(b't' | b'T') if names(TRANSFER_ENCODING) => {
                self.has_encoding = true;
                TRANSFER_ENCODING.len() - 1
            }
            _ => return None,
        };
        (self.has_length && self.has_encoding).then_some(colon)
    }

    /// At the end of a line (given without its line feed): what comes next, and whether a head is complete by now.
    fn end_line(&mut self, line: &[u8], greeted: bool) -> (State, bool) {
        if !self.begun {
            if !greeted && line == HTTP2_FIRST_LINE {
                return (State::Http2Preface(HTTP2_PREFACE_REST), greeted);
            }
            // Blank lines before a request are skipped (RFC 9112, section 2.2).
            self.begun = !is_blank(line);
            return (State::Head, greeted);
        }
        if !is_blank(line) {
            if line.len() > CONTENT_LENGTH.len()
                && line[..CONTENT_LENGTH.len()].eq_ignore_ascii_case(CONTENT_LENGTH)
            {
                let is_whole = line.len() < LINE_BYTES;
                self.length = if is_whole { number(&line[CONTENT_LENGTH.len()..], 10) } else { None };
            }
            return (State::Head, greeted);
        }
        let next = match *self {
            Self { has_encoding: true, .. } => State::ChunkSize,
            Self { has_length: true, length: None, .. } => State::Opaque,
            Self { length: Some(length), .. } if length > 0 => State::Body(length),
            _ => State::Head,
        };
        *self = Self::default();
        (next, true)
    }
}

fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"" | b"\r")
}

/// `1f;extension`, or the end of the chunk before.
fn after_chunk_size(line: &[u8]) -> State {
    if is_blank(line) {
        return State::ChunkSize;
    }
    let (digits, is_whole) = match memchr(b';', line) {
        Some(end) => (&line[..end], true),
        None => (line, line.len() < LINE_BYTES),
    };
    match number(digits, 16).filter(|_| is_whole) {
        Some(0) => State::Trailer,
        Some(size) => State::Chunk(size),
        None => State::Opaque,
    }
}

fn number(text: &[u8], radix: u32) -> Option<u64> {
    let text = text.trim_ascii();
    // `from_str_radix` would take a sign.
    let is_number = text.iter().all(u8::is_ascii_alphanumeric);
    is_number.then(|| u64::from_str_radix(std::str::from_utf8(text).ok()?, radix).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n";
    const LENGTH: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-LENGTH:  55 \r\n\r\nA: b\r\nTransfer-Encoding: chunked\r\ncontent-length: 3\r\n\r\n";
    const CHUNKED: &str = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n17;x=y\r\n\r\ncontent-length: 3\r\n\r\n\r\n2\r\nab\r\n0\r\nTrailer: x\r\n\r\n";
    const BOTH: &str = "POST / HTTP/1.1\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
    const BOTH_TURNED: &str =
        "\r\nPOST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nHost: a\r\ncontent-LENGTH: 4\r\n\r\n";

    /// Where in the whole the colon was found, if it was, with the bytes given in these pieces.
    fn found<'a>(framing: &mut Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<usize> {
        let mut before = 0;
        for piece in pieces {
            if let Some(index) = framing.push(piece) {
                return Some(before + index);
            }
            before += piece.len();
        }
        None
    }

    fn in_every_cut(text: &str, mut check: impl FnMut(Option<usize>, &Framing)) {
        let bytes = text.as_bytes();
        for cut in 0..=bytes.len() {
            let mut framing = Framing::new();
            let (a, b) = bytes.split_at(cut);
            check(found(&mut framing, [a, b]), &framing);
        }
        let mut framing = Framing::new();
        check(found(&mut framing, bytes.chunks(1)), &framing);
    }

    #[test]
    fn the_second_name_is_found_however_the_head_is_cut() {
        for before in ["", PLAIN, LENGTH, CHUNKED] {
            for both in [BOTH, BOTH_TURNED] {
                let text = format!("{before}{both}{PLAIN}");
                let second = if both == BOTH { "Transfer-Encoding:" } else { "content-LENGTH:" };
                let colon = before.len() + both.find(second).unwrap() + second.len() - 1;
                in_every_cut(&text, |found, _| assert_eq!(found, Some(colon), "{text:?}"));
            }
        }
    }

    #[test]
    fn bodies_and_trailers_may_say_what_they_like() {
        let text = format!("{LENGTH}{CHUNKED}{PLAIN}{LENGTH}");
        in_every_cut(&text, |found, framing| {
            assert_eq!(found, None);
            assert!(!framing.is_amid_request() && framing.is_greeted(), "{framing:?}");
        });
    }

    #[test]
    fn names_that_only_look_alike_are_others() {
        let text = "POST /content-length:transfer-encoding: HTTP/1.1\r\nContent-Length: 0\r\nX-Transfer-Encoding: a\r\nTransfer-Encodings: b\r\nTransfer-Encoding : c\r\nA: Transfer-Encoding: d\r\n\r\n";
        in_every_cut(text, |found, framing| {
            assert_eq!(found, None);
            assert!(!framing.is_amid_request());
        });
    }

    #[test]
    fn http2_passes_and_counts_as_a_greeting_once_its_preface_is_whole() {
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let mut framing = Framing::new();
        assert_eq!(framing.push(&preface.as_bytes()[..preface.len() - 1]), None);
        assert!(!framing.is_greeted());
        in_every_cut(&format!("{preface}{BOTH}"), |found, framing| {
            assert_eq!(found, None);
            assert!(framing.is_greeted() && !framing.is_amid_request());
        });
    }

    #[test]
    fn what_cannot_be_followed_is_left_to_the_parser() {
        for text in [
            "POST / HTTP/1.1\r\nContent-Length: +4\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 4, 4\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            &format!("POST / HTTP/1.1\r\nContent-Length: {:0>60}\r\n\r\n", 4),
            &format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:0>70}\r\n", 4),
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nmany\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        ] {
            in_every_cut(&format!("{text}{BOTH}"), |found, framing| {
                assert_eq!(found, None, "{text:?}");
                assert_eq!(framing.state, State::Opaque, "{text:?}");
            });
        }
    }

    #[test]
    fn a_head_is_a_greeting_once_it_is_whole() {
        let mut framing = Framing::new();
        framing.push(&PLAIN.as_bytes()[..PLAIN.len() - 1]);
        assert!(!framing.is_greeted() && framing.is_amid_request());
        framing.push(b"\n");
        assert!(framing.is_greeted() && !framing.is_amid_request());
    }
}
