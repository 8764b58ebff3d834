//! The data of server-sent events, one event at a time, within a bound.

use std::mem;

/// Longer events are passed over. OpenAI's last one has the whole answer in it.
const MAX_EVENT_BYTES: usize = 4 << 20;

/// Push bytes, get each event's data. Reads what vendors send: lines that end with LF or CRLF (not with CR alone), of
/// which all but `data` are passed over.
#[derive(Debug, Default)]
pub(super) struct EventData {
    /// The start of a line whose end has not come yet.
    line: Vec<u8>,
    data: Vec<u8>,
    /// This event is passed over.
    too_long: bool,
}

impl EventData {
    pub(super) fn push(&mut self, mut bytes: &[u8], mut on_event: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.line.is_empty() {
                self.end_line(line, &mut on_event);
            } else {
                self.hold(line);
                let line = mem::take(&mut self.line);
                self.end_line(&line, &mut on_event);
            }
            bytes = rest;
        }
        self.hold(bytes);
    }

    /// What is kept of an event whose end has not come yet.
    pub(super) fn held_bytes(&self) -> usize {
        self.line.len() + self.data.len()
    }

    /// The stream has ended: a last event may lack its blank line.
    pub(super) fn end(mut self, mut on_event: impl FnMut(&[u8])) {
        let line = mem::take(&mut self.line);
        self.end_line(&line, &mut on_event);
        self.end_line(b"", &mut on_event);
    }

    fn hold(&mut self, bytes: &[u8]) {
        if self.line.len() + bytes.len() > MAX_EVENT_BYTES {
            self.too_long = true;
        }
        if self.too_long {
            // Something must stay, or what follows would be taken for the beginning of a line.
            self.line = if bytes.is_empty() { mem::take(&mut self.line) } else { vec![b':'] };
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self, line: &[u8], on_event: &mut impl FnMut(&[u8])) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            let data = mem::take(&mut self.data);
            if !mem::take(&mut self.too_long) && !data.is_empty() {
                on_event(&data);
            }
            return;
        }
        let Some(value) = line.strip_prefix(b"data:") else { return };
        if self.data.len() + value.len() > MAX_EVENT_BYTES {
            self.too_long = true;
        }
        if self.too_long {
            self.data = Vec::new();
            return;
        }
        if !self.data.is_empty() {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut events = Vec::new();
        let mut on_event = |data: &[u8]| events.push(String::from_utf8(data.to_vec()).unwrap());
        let mut reader = EventData::default();
        for piece in pieces {
            reader.push(piece, &mut on_event);
        }
        reader.end(&mut on_event);
        events
    }

    #[test]
    fn each_event_comes_once_however_the_stream_is_cut() {
        let stream = "event: a\ndata: one\n\n: ping\n\ndata:two\r\ndata: and more\r\n\r\nid: 3\n\ndata: bare";
        for cut in 0..=stream.len() {
            let (a, b) = stream.as_bytes().split_at(cut);
            assert_eq!(events([a, b]), ["one", "two\nand more", "bare"], "{cut}");
        }
        assert_eq!(events(stream.as_bytes().chunks(1)), ["one", "two\nand more", "bare"]);
    }

    #[test]
    fn an_event_without_end_takes_no_more_than_the_bound() {
        let piece = vec![b'x'; 1 << 20];
        let mut reader = EventData::default();
        reader.push(b"data: ", |_| panic!("nothing yet"));
        for _ in 0..10 {
            reader.push(&piece, |_| panic!("nothing yet"));
            assert!(reader.line.len() <= MAX_EVENT_BYTES, "{}", reader.line.len());
        }
        let mut events = Vec::new();
        reader.push(b"\n\ndata: small\n\n", |data| events.push(data.to_vec()));
        assert_eq!(events, [b"small"], "it goes on with the next");
    }

    #[test]
    fn nor_does_an_event_of_many_lines() {
        let line = [b"data: ", vec![b'x'; 1 << 20].as_slice(), b"\n"].concat();
        let mut reader = EventData::default();
        for _ in 0..10 {
            reader.push(&line, |_| panic!("nothing yet"));
            assert!(reader.data.len() <= MAX_EVENT_BYTES, "{}", reader.data.len());
        }
        let mut events = Vec::new();
        reader.push(b"\ndata: small\n\n", |data| events.push(data.to_vec()));
        assert_eq!(events, [b"small"]);
    }
}
