//! Runs futures and reads bodies by hand. What is pending is polled again only when its waker was called, so a lost
//! wake-up shows as a test that waits for ever, which panics here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::FutureExt as _;
use gateway::Body;
use http_body::Body as _;

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The result of a future that has nothing to wait for.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("it waits for nothing")
}

pub(crate) struct Task<T> {
    future: Pin<Box<dyn Future<Output = T> + Send>>,
    woken: Arc<Woken>,
}

impl<T> Task<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self { future: Box::pin(future), woken: Arc::new(Woken(AtomicBool::new(true))) }
    }

    /// Polls as long as somebody asks for it; `None` if it waits.
    pub(crate) fn step(&mut self) -> Option<T> {
        while self.woken.0.swap(false, Ordering::SeqCst) {
            let waker = Waker::from(self.woken.clone());
            if let Poll::Ready(value) = self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn finish(mut self) -> T {
        self.step().expect("it should be done by now, but waits")
    }

    /// Panics if it is done.
    pub(crate) fn must_wait(&mut self) {
        assert!(self.step().is_none(), "it should wait, but is done");
    }
}

/// What reading a body once gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Bytes(String),
    Waits,
    Ended,
}

/// A body as its receiver reads it. Dropping it is the receiver's hanging up.
pub(crate) struct Reading {
    body: Body,
    woken: Arc<Woken>,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reading")
    }
}

impl Reading {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, woken: Arc::new(Woken(AtomicBool::new(true))) }
    }

    pub(crate) fn next(&mut self) -> Read {
        while self.woken.0.swap(false, Ordering::SeqCst) {
            let waker = Waker::from(self.woken.clone());
            match Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(&waker)) {
                Poll::Ready(frame) => {
                    self.woken.0.store(true, Ordering::SeqCst);
                    return match frame {
                        Some(frame) => {
                            let data = frame.unwrap().into_data().unwrap();
                            Read::Bytes(String::from_utf8(data.to_vec()).unwrap())
                        }
                        None => Read::Ended,
                    };
                }
                Poll::Pending => {}
            }
        }
        Read::Waits
    }

    /// What there is now.
    pub(crate) fn available(&mut self) -> String {
        let mut text = String::new();
        while let Read::Bytes(more) = self.next() {
            text += &more;
        }
        text
    }

    /// Everything up to the end; panics if that has not come.
    pub(crate) fn rest(&mut self) -> String {
        let mut text = String::new();
        loop {
            match self.next() {
                Read::Bytes(more) => text += &more,
                Read::Ended => return text,
                Read::Waits => panic!("the body should have ended, but waits after {text:?}"),
            }
        }
    }
}
