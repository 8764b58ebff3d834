//! A peer that was let in and then says nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What an HTTP/2 client says first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose peer must say at once which protocol it speaks. Until that is known no timeout of hyper's runs: those
/// for heads come with HTTP/1.1, pings with HTTP/2.
pub(super) struct FirstWords<S> {
    stream: S,
    /// How much of the preface has come, and when all of it, or something else, must have. None: it has.
    waiting: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> FirstWords<S> {
    pub(super) fn expected(stream: S, within: Duration) -> Self {
        Self { stream, waiting: Some((0, Box::pin(sleep(within)))) }
    }

    fn heard(&mut self, bytes: &[u8]) {
        let Some((before, _)) = &mut self.waiting else { return };
        let rest = &PREFACE[*before..];
        if bytes.len() < rest.len() && rest.starts_with(bytes) {
            *before += bytes.len();
        } else {
            self.waiting = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstWords<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            self.heard(&buffer.filled()[before..]);
            return Poll::Ready(result);
        }
        let Some((_, deadline)) = &mut self.waiting else { return Poll::Pending };
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer said nothing in time")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstWords<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// What reading gives after the peer has said `words` and then nothing.
    async fn after(words: &[u8]) -> Option<io::ErrorKind> {
        let (mut peer, stream) = tokio::io::duplex(64);
        let mut stream = FirstWords::expected(stream, PATIENCE);
        peer.write_all(words).await.unwrap();
        let mut said = vec![0; words.len()];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!(said, words);
        let ended = timeout(PATIENCE * 100, stream.read_u8()).await;
        ended.ok().map(|read| read.unwrap_err().kind())
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_until_the_protocol_is_known() {
        for words in [&b""[..], b"P", b"PRI * HT", &PREFACE[..PREFACE.len() - 1]] {
            assert_eq!(after(words).await, Some(io::ErrorKind::TimedOut), "{words:?}");
        }
        for words in [b"G".as_slice(), b"PUT", PREFACE, b"\0"] {
            assert_eq!(after(words).await, None, "{words:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn however_the_preface_is_cut() {
        for cut in 1..PREFACE.len() {
            let mut words = FirstWords::expected((), PATIENCE);
            words.heard(&PREFACE[..cut]);
            assert!(words.waiting.is_some(), "{cut}");
            words.heard(&PREFACE[cut..]);
            assert!(words.waiting.is_none(), "{cut}");
        }
    }
}
