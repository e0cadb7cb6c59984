//! Looking at the store on behalf of all who want to be in step with it at one time.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// Has one look at a time, which answers everybody who came before it began.
#[derive(Debug, Default)]
pub struct Barrier {
    begun: AtomicU64,
    /// The last look that succeeded.
    done: Mutex<u64>,
}

impl Barrier {
    /// Waits for a look that begins after this was called, and makes it if nobody else does.
    ///
    /// # Errors
    /// Those of `look`, to whoever made it; the others look anew.
    pub async fn pass<E>(&self, look: impl Future<Output = Result<(), E>>) -> Result<(), E> {
        // One that has begun before may have been before what the caller has to see.
        let needed = self.begun.load(Ordering::SeqCst) + 1;
        let mut done = self.done.lock().await;
        if *done >= needed {
            return Ok(());
        }
        let round = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        look.await?;
        *done = round;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn those_who_come_during_a_look_share_the_next_one() {
        let barrier = Arc::new(Barrier::default());
        let looks = Arc::new(AtomicU64::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let pass = || {
            let (barrier, looks, gate) =
                (Arc::clone(&barrier), Arc::clone(&looks), Arc::clone(&gate));
            async move {
                let look = async {
                    looks.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    Ok::<(), Infallible>(())
                };
                barrier.pass(look).await
            }
        };
        let all = async { tokio::join!(pass(), pass(), pass(), pass()) };
        let open = async {
            tokio::task::yield_now().await;
            gate.add_permits(10);
        };
        tokio::join!(all, open);
        assert_eq!(looks.load(Ordering::SeqCst), 2);
        pass().await.unwrap();
        assert_eq!(
            looks.load(Ordering::SeqCst),
            3,
            "none that was before counts"
        );
    }

    #[tokio::test]
    async fn a_look_that_failed_counts_for_nobody() {
        let barrier = Barrier::default();
        assert_eq!(barrier.pass(async { Err("away") }).await, Err("away"));
        let (one, other) = tokio::join!(
            barrier.pass(async { Err("away") }),
            barrier.pass(async { Ok::<(), &str>(()) }),
        );
        assert_eq!((one, other), (Err("away"), Ok(())));
    }
}
