//! Turns a panic of someone else's code into a value. It decides nothing about what to do then.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

/// What a panic said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {0}")]
pub struct Panicked(pub String);

pin_project! {
    /// A future whose panic is its output.
    #[derive(Debug)]
    pub struct Caught<F> {
        #[pin]
        inner: F,
    }
}

/// Runs `inner`; a panic of it becomes `Err`. What `inner` shares with others must stay sound when
/// it stops half way, which is true of everything guarded by tokio's and std's locks.
pub fn caught<F: Future>(inner: F) -> Caught<F> {
    Caught { inner }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = self.project().inner;
        match catch(|| inner.poll(context)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    }
}

/// Calls `work`; a panic of it becomes `Err`.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked(said(payload.as_ref())))
}

/// The words of a panic's payload.
pub(crate) fn said(payload: &(dyn Any + Send)) -> String {
    if let Some(words) = payload.downcast_ref::<&'static str>() {
        (*words).to_owned()
    } else if let Some(words) = payload.downcast_ref::<String>() {
        words.clone()
    } else {
        "a value that is not text".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_and_panic_are_told_apart() {
        assert_eq!(caught(async { 1 }).await, Ok(1));
        let failed = caught(async {
            tokio::task::yield_now().await;
            panic!("at {}", "noon")
        });
        let outcome: Result<(), _> = failed.await;
        assert_eq!(outcome, Err(Panicked("at noon".to_owned())));
    }
}
