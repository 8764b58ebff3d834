//! Timers.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wasm_bindgen::JsCast as _;
use wasm_bindgen::prelude::Closure;
use web_sys::WorkerGlobalScope;

/// The longest time that `setTimeout` takes; longer ones would fire at once.
const MAX_MS: u128 = i32::MAX as u128;

/// Sleeps from its creation on. It wakes whoever polled it last: a stream's timer is made by one task and polled by
/// another.
pub(crate) struct Sleep {
    state: Rc<RefCell<State>>,
    handle: Option<i32>,
    _callback: Closure<dyn FnMut()>,
}

#[derive(Default)]
struct State {
    over: bool,
    waker: Option<Waker>,
}

impl Sleep {
    pub(crate) fn new(duration: Duration) -> Self {
        let state = Rc::<RefCell<State>>::default();
        let fired = state.clone();
        let callback = Closure::<dyn FnMut()>::new(move || {
            let waker = {
                let mut state = fired.borrow_mut();
                state.over = true;
                state.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        let ms = i32::try_from(duration.as_millis().min(MAX_MS)).unwrap_or(i32::MAX);
        // An error means that no request is being served, so that nobody is there to be woken.
        let handle = global()
            .set_timeout_with_callback_and_timeout_and_arguments_0(callback.as_ref().unchecked_ref(), ms)
            .ok();
        Self { state, handle, _callback: callback }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if state.over {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.filter(|_| !self.state.borrow().over) {
            global().clear_timeout_with_handle(handle);
        }
    }
}

pub(crate) fn global() -> WorkerGlobalScope {
    js_sys::global().unchecked_into()
}
