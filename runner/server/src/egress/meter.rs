//! Counts what passes an endpoint's socket, heads and all, and ends what goes beyond the limit.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What one endpoint's connections may move together.
#[derive(Debug)]
pub(super) struct Budget {
    max_bytes: u64,
    used_bytes: AtomicU64,
}

impl Budget {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, used_bytes: AtomicU64::new(0) }
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.used_bytes.load(Ordering::Relaxed) > self.max_bytes
    }

    fn check(&self) -> io::Result<()> {
        if self.is_used_up() {
            Err(io::Error::other("the sandbox's egress limit is used up"))
        } else {
            Ok(())
        }
    }

    fn spend(&self, bytes: usize) {
        self.used_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A connection that spends of a budget. Once that is used up, reading and writing fail.
pub(super) struct Metered<S> {
    stream: S,
    budget: Arc<Budget>,
    /// Bytes of this connection.
    moved: Arc<AtomicU64>,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, budget: Arc<Budget>) -> Self {
        Self { stream, budget, moved: Arc::default() }
    }

    /// Counts on while the connection lives, whoever has it.
    pub(super) fn moved(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.moved)
    }

    fn spend(&self, bytes: usize) {
        self.budget.spend(bytes);
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.budget.check()?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.spend(buf.filled().len() - before);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.budget.check()?;
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            self.spend(written);
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.budget.check()?;
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(written)) = polled {
            self.spend(written);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
