//! Restoring to a cluster: many transactions, so the epoch, which makes a store of them, comes last. What was
//! cut short before that is taken for no store, and is left for whoever finds it to delete.

use std::sync::Arc;

use bytes::Bytes;

use super::{EPOCH_KEY, RESTORING_KEY, epoch_value, listed, within};
use crate::cluster::{Answer, Cluster, Fault, Judged, Request};
use crate::epoch::Epoch;
use crate::group::Records;
use crate::record::Revision;
use crate::transaction::{Condition, MAX_BYTES, MAX_RECORDS};

/// Why nothing was restored, or not all.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is something under the prefix, or someone else came there.
    Taken,
    Fault(Fault),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Puts the records where there is nothing; returns the revision from which the new store goes on.
pub(crate) async fn restore(
    cluster: &Cluster,
    records: &Records,
    epoch: Epoch,
) -> Result<Revision, Refusal> {
    let (found, _) = listed(cluster.list()).await?;
    if !found.is_empty() {
        return Err(Refusal::Taken);
    }
    let nothing = vec![
        (RESTORING_KEY.into(), Condition::Absent),
        (EPOCH_KEY.into(), Condition::Absent),
    ];
    let mark = vec![(RESTORING_KEY.into(), Some(epoch_value(epoch)))];
    let begun = commit(cluster, nothing, mark).await?;
    let ours = || (RESTORING_KEY.into(), Condition::ModifiedAt(begun));
    for slice in slices(records) {
        commit(cluster, vec![ours()], slice).await?;
    }
    let end = vec![
        (RESTORING_KEY.into(), None),
        (EPOCH_KEY.into(), Some(epoch_value(epoch))),
    ];
    let still = vec![ours(), (EPOCH_KEY.into(), Condition::Absent)];
    commit(cluster, still, end).await
}

type Writes = Vec<(Arc<str>, Option<Bytes>)>;

/// The records in parts that each fit one transaction beside the condition.
fn slices(records: &Records) -> Vec<Writes> {
    let mut slices: Vec<Writes> = Vec::new();
    let mut bytes = 0;
    for (key, record) in records {
        let size = key.len() + record.value.len();
        let room = slices
            .last()
            .is_some_and(|slice| slice.len() < MAX_RECORDS - 1);
        if !room || bytes + size > MAX_BYTES {
            slices.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(slice) = slices.last_mut() {
            slice.push((Arc::clone(key), Some(record.value.clone())));
        }
    }
    slices
}

async fn commit(
    cluster: &Cluster,
    conditions: Vec<(Arc<str>, Condition)>,
    writes: Writes,
) -> Result<Revision, Refusal> {
    let request = Request {
        conditions,
        writes,
        lease: None,
    };
    let Answer { revision, outcome } = within(cluster.commit(request)).await?;
    match outcome {
        Judged::Done { .. } => Ok(Revision(revision)),
        Judged::Conflict { .. } => Err(Refusal::Taken),
    }
}
