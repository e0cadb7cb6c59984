//! Ends the streams whose peers take nothing of their answers. While a peer grants no room, hyper asks a body for
//! nothing more, so that nothing in the body can end it, and what its call holds would be held for as long as the
//! peer likes. What still runs then is the stream's task: it ends here, which resets the stream.
//!
//! It decides when an answer has waited for its peer for too long. One that has nothing to say is left alone.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

/// For a peer to take what it was sent: as long as a watcher may be behind.
const PATIENCE: Duration = Duration::from_secs(30);

thread_local! {
    /// What the body that was asked last has said, for the task that it is asked in: hyper stands between them,
    /// and hands nothing over.
    static SAID: Cell<Said> = const { Cell::new(Said::NotAsked) };
}

/// What a body says when its stream asks for more.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Said {
    /// It was not asked.
    NotAsked,
    /// It has nothing more to send, now or for good.
    Nothing,
    /// It has handed out a piece, of an answer that has to be over by a time, if ever.
    Piece(Option<Instant>),
}

impl Said {
    /// Tells the task of the stream that asks.
    pub(crate) fn tell(self) {
        SAID.set(self);
    }
}

pin_project! {
    /// The task of a stream, which ends when the peer does not take what was handed out.
    pub(super) struct Unstuck<F> {
        #[pin]
        stream: F,
        // While a piece waits for its peer.
        until: Option<Pin<Box<Sleep>>>,
    }
}

impl<F> Unstuck<F> {
    pub(super) fn new(stream: F) -> Self {
        Self {
            stream,
            until: None,
        }
    }
}

impl<F: Future<Output = ()>> Future for Unstuck<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        Said::NotAsked.tell();
        if this.stream.poll(context).is_ready() {
            return Poll::Ready(());
        }
        match SAID.get() {
            // Where it waited before it waits still.
            Said::NotAsked => {}
            Said::Nothing => *this.until = None,
            Said::Piece(limit) => {
                let patience = Instant::now() + PATIENCE;
                let until = limit.map_or(patience, |limit| limit.min(patience));
                *this.until = Some(Box::pin(sleep_until(until)));
            }
        }
        let Some(until) = this.until else {
            return Poll::Pending;
        };
        ready!(until.as_mut().poll(context));
        tracing::debug!("stream reset whose peer takes nothing of it");
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Polls `stream` once, of which a poll says `said`.
    async fn turn(
        said: &Cell<Said>,
        stream: Pin<&mut impl Future<Output = ()>>,
        next: Said,
    ) -> bool {
        said.set(next);
        tokio::task::yield_now().await;
        stream
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_that_waits_for_its_peer_is_ended() {
        let said = Cell::new(Said::NotAsked);
        let stream = std::future::poll_fn(|_| {
            said.get().tell();
            Poll::<()>::Pending
        });
        let mut stream = std::pin::pin!(Unstuck::new(stream));
        let hour = Duration::from_secs(3600);
        for quiet in [Said::NotAsked, Said::Nothing, Said::NotAsked] {
            assert!(!turn(&said, stream.as_mut(), quiet).await, "{quiet:?}");
            tokio::time::advance(hour).await;
        }
        // Pieces that are taken, each in time, and quiet after the last of them.
        for next in [Said::Piece(None), Said::Piece(None), Said::Nothing] {
            assert!(!turn(&said, stream.as_mut(), next).await, "{next:?}");
            tokio::time::advance(PATIENCE * 9 / 10).await;
        }
        tokio::time::advance(hour).await;
        assert!(!turn(&said, stream.as_mut(), Said::Piece(None)).await);
        tokio::time::advance(PATIENCE * 9 / 10).await;
        assert!(!turn(&said, stream.as_mut(), Said::NotAsked).await);
        tokio::time::advance(PATIENCE).await;
        assert!(turn(&said, stream.as_mut(), Said::NotAsked).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_waits_ends_with_its_deadline() {
        let limit = Instant::now() + Duration::from_secs(1);
        let stream = std::future::poll_fn(|_| {
            Said::Piece(Some(limit)).tell();
            Poll::<()>::Pending
        });
        let ended = tokio::time::timeout(PATIENCE * 2, Unstuck::new(stream)).await;
        assert_eq!((ended, Instant::now()), (Ok(()), limit));
    }
}
