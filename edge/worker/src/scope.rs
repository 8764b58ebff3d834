//! Which request is being served at this moment.

use std::cell::RefCell;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use gateway::{Body, BoxError};
use http_body::{Body as _, Frame};

thread_local! {
    static CURRENT: RefCell<Option<Rc<Scope>>> = const { RefCell::new(None) };
}

/// One request, as the platform counts them: what is started while it is current belongs to it.
pub(crate) struct Scope {
    context: worker::Context,
}

impl Scope {
    pub(crate) fn new(context: worker::Context) -> Self {
        Self { context }
    }

    /// The request that is being polled, or whose parts are being dropped.
    pub(crate) fn current() -> Option<Rc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Keeps the request's context alive until the future has ended, though the response may be out before. The
    /// platform ends it 30 s after the response, or after the client has gone.
    pub(crate) fn wait_until(self: &Rc<Self>, future: impl Future<Output = ()> + 'static) {
        self.context.wait_until(InScope::new(self.clone(), Box::pin(future)));
    }

    fn enter(self: &Rc<Self>) -> Entered {
        Entered { former: CURRENT.replace(Some(self.clone())) }
    }
}

/// Restores what was current before; scopes nest where one request's future wakes or drops another's.
struct Entered {
    former: Option<Rc<Scope>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(mem::take(&mut self.former));
    }
}

/// A part of a request that is polled, and in the end dropped, in its scope.
pub(crate) struct InScope<T> {
    scope: Rc<Scope>,
    /// Taken when it is dropped.
    part: Option<T>,
}

impl<T> InScope<T> {
    pub(crate) fn new(scope: Rc<Scope>, part: T) -> Self {
        Self { scope, part: Some(part) }
    }

    fn with<R>(&mut self, use_part: impl FnOnce(&mut T) -> R) -> R {
        let _entered = self.scope.enter();
        use_part(self.part.as_mut().expect("only drop takes it"))
    }
}

impl<T> Drop for InScope<T> {
    fn drop(&mut self) {
        let _entered = self.scope.enter();
        drop(self.part.take());
    }
}

impl<F: Future + Unpin> Future for InScope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.get_mut().with(|future| Pin::new(future).poll(cx))
    }
}

impl InScope<Body> {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.with(|body| Pin::new(body).poll_frame(cx))
    }
}
