//! HTTP/1.1 as bytes, for both ends: heads are parsed by `httparse`, bodies are read as they are
//! framed. Libraries would repair or hide what these tests send and look for.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Enough for the 200-header requests of the suites.
const MAX_HEADERS: usize = 512;
const MAX_HEAD_BYTES: usize = 1 << 20;

/// Header fields in order, names as sent.
#[derive(Clone, Debug, Default)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of `name`, compared without case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of `name`, compared without case.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn parse(parsed: &[httparse::Header<'_>]) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self(parsed.iter().map(|header| (header.name.to_owned(), text(header.value))).collect())
    }
}

/// The request line and header of a request.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: String,
    pub target: String,
    pub headers: Headers,
}

/// The status line and header of a response.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    pub status: u16,
    pub headers: Headers,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

impl Framing {
    /// The framing that `headers` announce, `UntilClose` when they announce none.
    pub fn of(headers: &Headers) -> Self {
        if headers.get("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Self::Chunked;
        }
        match headers.get("content-length").and_then(|value| value.parse().ok()) {
            Some(length) => Self::Length(length),
            None => Self::UntilClose,
        }
    }
}

/// A buffered reader of HTTP/1.1 messages.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(input: R) -> Self {
        Self { input, buffer: BytesMut::new() }
    }

    /// Reads more bytes; `false` at the end of the input.
    pub async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.input.read_buf(&mut self.buffer).await? > 0)
    }

    /// The reading end itself.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.input
    }

    /// What was read and not consumed yet.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// The next request head; `None` when the peer closed between requests.
    pub async fn request_head(&mut self) -> io::Result<Option<RequestHead>> {
        self.head(|bytes| {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut request = httparse::Request::new(&mut headers);
            let length = complete(request.parse(bytes))?;
            Ok(length.map(|length| {
                let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
                let (method, target) = (text(request.method), text(request.path));
                (length, RequestHead { method, target, headers: Headers::parse(request.headers) })
            }))
        })
        .await
    }

    /// The next response head; `None` when the peer closed instead.
    pub async fn response_head(&mut self) -> io::Result<Option<ResponseHead>> {
        self.head(|bytes| {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let length = complete(response.parse(bytes))?;
            Ok(length.map(|length| {
                let status = response.code.unwrap_or_default();
                (length, ResponseHead { status, headers: Headers::parse(response.headers) })
            }))
        })
        .await
    }

    async fn head<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> io::Result<Option<(usize, T)>>,
    ) -> io::Result<Option<T>> {
        loop {
            if let Some((length, head)) = parse(&self.buffer)? {
                self.buffer.advance(length);
                return Ok(Some(head));
            }
            if self.buffer.len() > MAX_HEAD_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "head too long"));
            }
            if !self.fill().await? {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// The next piece of a body, as it comes; `None` at its proper end. A chunk of chunked
    /// encoding is given whole; of other framings, what one read brought.
    pub async fn body_piece(&mut self, framing: &mut Framing) -> io::Result<Option<Bytes>> {
        match framing {
            Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                self.require(1).await?;
                let piece = self.buffer.split_to(self.buffer.len().min(*left)).freeze();
                *left -= piece.len();
                Ok(Some(piece))
            }
            Framing::UntilClose => {
                if self.buffer.is_empty() && !self.fill().await? {
                    return Ok(None);
                }
                Ok(Some(self.buffer.split().freeze()))
            }
            Framing::Chunked => {
                let size_line = self.line().await?;
                let digits = size_line.as_ref().split(|byte: &u8| *byte == b';').next().unwrap_or_default();
                let size =
                    std::str::from_utf8(digits).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
                let size =
                    size.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "bad chunk size"))?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    *framing = Framing::Length(0);
                    return Ok(None);
                }
                self.require(size + 2).await?;
                let chunk = self.buffer.split_to(size).freeze();
                if &self.buffer.split_to(2)[..] != b"\r\n" {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "chunk without its CRLF"));
                }
                Ok(Some(chunk))
            }
        }
    }

    /// A whole body.
    pub async fn body(&mut self, mut framing: Framing) -> io::Result<Bytes> {
        let mut body = BytesMut::new();
        while let Some(piece) = self.body_piece(&mut framing).await? {
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    async fn line(&mut self) -> io::Result<BytesMut> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.split_to(end);
                self.buffer.advance(2);
                return Ok(line);
            }
            let length = self.buffer.len();
            self.require(length + 1).await?;
        }
    }

    async fn require(&mut self, length: usize) -> io::Result<()> {
        while self.buffer.len() < length {
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

fn complete(status: Result<httparse::Status<usize>, httparse::Error>) -> io::Result<Option<usize>> {
    match status {
        Ok(httparse::Status::Complete(length)) => Ok(Some(length)),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_a_chunked_message_and_leaves_the_next() {
        let wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nHTTP/1.1 ";
        let mut reader = Reader::new(&wire[..]);
        let head = reader.response_head().await.unwrap().unwrap();
        assert_eq!(head.status, 200);
        assert_eq!(reader.body(Framing::of(&head.headers)).await.unwrap(), "abcde");
        assert_eq!(reader.buffered(), b"HTTP/1.1 ");
    }

    #[tokio::test]
    async fn a_body_cut_short_is_an_error() {
        let mut reader = Reader::new(&b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"[..]);
        let head = reader.response_head().await.unwrap().unwrap();
        let error = reader.body(Framing::of(&head.headers)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
