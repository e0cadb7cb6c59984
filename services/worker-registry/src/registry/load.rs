//! Reading the store into a fleet.

use muster_store::{Listing, Store};

use super::StartError;
use crate::domain::fleet::{Change, Fleet};
use crate::record;

/// Every record of the store, as one fleet.
pub(super) async fn fleet(store: &Store) -> Result<Fleet, StartError> {
    read(store.list("").await?)
}

/// The same at the start, and the revision since which nothing of it has changed.
pub(super) async fn first(store: &Store) -> Result<(Fleet, u64), StartError> {
    let listing = store.list("").await?;
    let since = listing.unchanged_since();
    Ok((read(listing)?, since.0))
}

fn read(listing: Listing) -> Result<Fleet, StartError> {
    let Listing { records, revision } = listing;
    let mut workers = Vec::new();
    let mut others = Vec::new();
    for stored in records {
        let Some(change) = record::read(&stored.key, &stored.value)? else {
            continue;
        };
        let is_worker = matches!(change, Change::Worker(_));
        let kind = if is_worker { &mut workers } else { &mut others };
        kind.push((change, stored.modified.0));
    }
    let mut fleet = Fleet::default();
    // Workers first: what belongs to a worker is put with it.
    for (change, modified) in workers.into_iter().chain(others) {
        fleet.apply(std::slice::from_ref(&change), modified);
    }
    fleet.advance(revision.0);
    Ok(fleet)
}
