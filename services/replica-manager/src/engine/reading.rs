//! Reads that have to be as new as the store: what an instance shows may be older, and most callers are well
//! served with that. It decides nothing by what it reads.

use std::sync::atomic::{AtomicU64, Ordering};

use muster_runtime::instances;
use muster_store::{Error, Outcome, Transaction};
use tokio::sync::Mutex;

use super::Engine;
use crate::state::keys;

/// Waits for the store on behalf of all who wait at one time.
#[derive(Debug, Default)]
pub(super) struct Barrier {
    begun: AtomicU64,
    /// The last round that is done: one at a time.
    done: Mutex<u64>,
}

impl Engine {
    /// Waits until what is read here is no older than the store was when this was called. On a store of
    /// one instance that is always so.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub(crate) async fn in_step(&self) -> Result<(), Error> {
        let parts = self.parts();
        if !parts.store.is_shared() {
            return Ok(());
        }
        self.in_touch()?;
        let barrier = &self.0.barrier;
        // A round that has begun before may have been before what the caller has to see.
        let needed = barrier.begun.load(Ordering::SeqCst) + 1;
        let mut done = barrier.done.lock().await;
        if *done >= needed {
            return Ok(());
        }
        // Those who waited here for a round that failed must not each wait for one of their own.
        self.in_touch()?;
        let round = barrier.begun.fetch_add(1, Ordering::SeqCst) + 1;
        // A write of our own comes after all that was there, and the view shows it after that.
        let put = Transaction::new().put(keys::IN_STEP, "");
        let revision = match parts.store.commit(put).await? {
            Outcome::Committed(revision) => Some(revision),
            Outcome::Conflict { actual, .. } => actual,
        };
        self.catch_up(revision).await?;
        *done = round;
        Ok(())
    }

    /// A store that is away is not asked on behalf of readers.
    fn in_touch(&self) -> Result<(), Error> {
        let age = self.parts().store.age();
        if age < instances::AWAY {
            return Ok(());
        }
        let words = format!("it was not reached for {} s", age.as_secs());
        Err(Error::Unavailable(words))
    }
}
