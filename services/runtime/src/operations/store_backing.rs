//! The backing of a component with a store: what is kept is a record among the component's own, and the
//! backup is the store's. It knows no other key, and components pass over this one.

use bytes::Bytes;
use muster_store::{Outcome, Revision, Store, Transaction};

use super::backing::{Backing, Backup, Position, Unavailable};

/// Where maintenance is kept; no component has keys of its own under `ops/`.
const MAINTENANCE: &str = "ops/maintenance";

/// For a component with a store: a record in it.
#[derive(Debug, Clone)]
pub struct StoreBacking(Store);

impl StoreBacking {
    /// In `store`, which whoever opened it closes.
    pub fn new(store: Store) -> Self {
        Self(store)
    }
}

#[tonic::async_trait]
impl Backing for StoreBacking {
    async fn load(&self) -> Result<Option<Bytes>, Unavailable> {
        let record = self.0.get(MAINTENANCE).await?;
        Ok(record.map(|record| record.value))
    }

    async fn keep(&self, record: Bytes) -> Result<(), Unavailable> {
        let put = Transaction::new().put(MAINTENANCE, record);
        match self.0.commit(put).await? {
            Outcome::Committed(_) => Ok(()),
            // Nothing was required, so nothing can conflict.
            Outcome::Conflict { key, .. } => Err(Unavailable(format!("{key} has changed"))),
        }
    }

    async fn position(&self) -> Position {
        Position {
            store: self.0.kind(),
            epoch: self.0.epoch().to_string(),
            revision: self.0.revision().await.map_or(0, number),
            // Stores are of one process, which has no other to lead it.
            leader: true,
            lag: None,
        }
    }

    async fn backup(&self) -> Result<Option<Backup>, Unavailable> {
        let backup = self.0.backup().await?;
        Ok(Some(Backup {
            epoch: backup.epoch().to_string(),
            revision: number(backup.revision()),
            chunks: Box::new(backup),
        }))
    }
}

impl From<muster_store::Error> for Unavailable {
    fn from(error: muster_store::Error) -> Self {
        Self(error.to_string())
    }
}

fn number(Revision(revision): Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
