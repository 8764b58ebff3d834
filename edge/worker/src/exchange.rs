//! A request from its arrival until its answer has gone out, or its client has gone.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures_util::Stream;
use gateway::{Body, BoxError};
use http::response::Parts;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use js_sys::Uint8Array;
use wasm_bindgen::JsCast as _;
use wasm_bindgen::prelude::{Closure, JsValue};
use web_sys::AbortSignal;

use crate::body;
use crate::scope::{InScope, Scope};

/// All that a request holds is in here, so that it can be dropped as soon as the client has left. The platform would
/// drop nothing: it forgets the request's promises, and the permits and upstream calls behind them with it.
pub(crate) struct Exchange {
    scope: Rc<Scope>,
    stage: RefCell<Stage>,
    /// Wakes the task that waits for the head of the answer.
    answering: RefCell<Option<Waker>>,
    /// Wakes the [`Watch`].
    watching: RefCell<Option<Waker>>,
}

enum Stage {
    Answering(InScope<Answering>),
    Streaming(InScope<Body>),
    Over,
}

type Answering = Pin<Box<dyn Future<Output = Result<(Parts, Content), BoxError>>>>;

enum Content {
    Whole(Bytes),
    Stream(Body),
}

impl Exchange {
    /// Answers the request, or stops answering it when `signal` says that the client has left.
    pub(crate) async fn run(
        scope: Rc<Scope>,
        answer: impl Future<Output = http::Response<Body>> + 'static,
        signal: AbortSignal,
    ) -> worker::Result<web_sys::Response> {
        let answering: Answering = Box::pin(async move { split(answer.await).await });
        let exchange = Rc::new(Self {
            stage: RefCell::new(Stage::Answering(InScope::new(scope.clone(), answering))),
            scope,
            answering: RefCell::default(),
            watching: RefCell::default(),
        });
        exchange.scope.wait_until(Watch::new(exchange.clone(), signal));
        let answered = poll_fn(|cx| exchange.poll_answer(cx)).await;
        match answered {
            Some(Ok((head, Content::Whole(bytes)))) => {
                exchange.end();
                Ok(body::in_one_piece(&head, &bytes)?)
            }
            Some(Ok((head, Content::Stream(stream)))) => {
                let stream = InScope::new(exchange.scope.clone(), stream);
                *exchange.stage.borrow_mut() = Stage::Streaming(stream);
                Ok(body::streamed(&head, Chunks(exchange))?)
            }
            Some(Err(error)) => {
                exchange.end();
                Err(worker::Error::RustError(error.to_string()))
            }
            // Nobody is there to read it.
            None => Ok(web_sys::Response::new()?),
        }
    }

    /// `None` if the client has left.
    fn poll_answer(&self, cx: &mut Context<'_>) -> Poll<Option<Result<(Parts, Content), BoxError>>> {
        let Stage::Answering(answering) = &mut *self.stage.borrow_mut() else { return Poll::Ready(None) };
        *self.answering.borrow_mut() = Some(cx.waker().clone());
        Pin::new(answering).poll(cx).map(Some)
    }

    fn poll_chunk(&self, cx: &mut Context<'_>) -> Poll<Option<Result<JsValue, JsValue>>> {
        let next = match &mut *self.stage.borrow_mut() {
            Stage::Streaming(body) => loop {
                match ready!(body.poll_frame(cx)) {
                    // Trailers have no place in a stream of bytes.
                    Some(Ok(frame)) if !frame.is_data() => {}
                    next => break next,
                }
            },
            Stage::Answering(_) | Stage::Over => None,
        };
        match next {
            Some(Ok(frame)) => {
                let bytes = frame.into_data().unwrap_or_default();
                Poll::Ready(Some(Ok(Uint8Array::from(&bytes[..]).into())))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(JsValue::from_str(&error.to_string())))),
            None => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    /// Drops what the request still holds. Doing it again changes nothing.
    fn end(&self) {
        // Out of the cell first: what is dropped may wake others.
        let stage = mem::replace(&mut *self.stage.borrow_mut(), Stage::Over);
        drop(stage);
        for waker in [&self.answering, &self.watching] {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }
}

/// An answer whose length is known is in memory, and goes out with its length.
async fn split(response: http::Response<Body>) -> Result<(Parts, Content), BoxError> {
    let (head, body) = response.into_parts();
    let content = match body.size_hint().exact() {
        Some(_) => Content::Whole(body.collect().await?.to_bytes()),
        None => Content::Stream(body),
    };
    Ok((head, content))
}

/// What the platform reads, and drops when it reads no more.
struct Chunks(Rc<Exchange>);

impl Stream for Chunks {
    type Item = Result<JsValue, JsValue>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_chunk(cx)
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Keeps the request's context alive until the exchange is over, and ends it when the client leaves.
struct Watch {
    exchange: Rc<Exchange>,
    signal: AbortSignal,
    _on_abort: Closure<dyn FnMut()>,
}

impl Watch {
    fn new(exchange: Rc<Exchange>, signal: AbortSignal) -> Self {
        let watched = exchange.clone();
        let on_abort = Closure::<dyn FnMut()>::new(move || {
            if let Some(waker) = watched.watching.take() {
                waker.wake();
            }
        });
        signal.set_onabort(Some(on_abort.as_ref().unchecked_ref()));
        Self { exchange, signal, _on_abort: on_abort }
    }
}

impl Future for Watch {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.signal.aborted() {
            self.exchange.end();
        }
        if matches!(*self.exchange.stage.borrow(), Stage::Over) {
            return Poll::Ready(());
        }
        *self.exchange.watching.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.signal.set_onabort(None);
    }
}
