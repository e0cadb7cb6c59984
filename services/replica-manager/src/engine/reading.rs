//! Reads that have to be as new as the store: what an instance shows may be older, and most callers are well
//! served with that. It decides nothing by what it reads.

use muster_runtime::instances;
use muster_store::Error;

use super::Engine;

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
        let look = async {
            // Those who waited for a look that failed must not each wait for one of their own.
            self.in_touch()?;
            // The view shows what the store shows, a little later.
            let revision = parts.store.in_step().await?;
            self.catch_up(Some(revision)).await
        };
        self.0.barrier.pass(look).await
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
