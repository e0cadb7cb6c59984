//! Compaction: a cluster that nobody compacts grows for ever. Whoever leads, or everyone where nobody does,
//! lets it forget what was an hour ago; until then, who was away can go on where it was.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Core, lock, within};
use crate::leadership::TERM_KEY;

/// How much history is kept, at least.
const KEPT: Duration = Duration::from_hours(1);

const EVERY: Duration = Duration::from_mins(5);

pub(super) async fn compact(core: Arc<Core>) {
    let mut closing = core.closing.subscribe();
    tokio::select! {
        _ = closing.wait_for(|closing| *closing) => {}
        _ = core.ended() => {}
        () = run(&core) => {}
    }
}

async fn run(core: &Core) {
    // Where the cluster was at each look; one for each within what is kept, and one.
    let mut seen = VecDeque::new();
    loop {
        seen.push_back((Instant::now(), *core.reached.borrow()));
        let old = |(at, _): &(Instant, u64)| at.elapsed() >= KEPT;
        let mut due = None;
        while let Some((_, revision)) = seen.pop_front_if(|seen| old(seen)) {
            due = Some(revision);
        }
        if let Some(revision) = due.filter(|_| core.may_compact()) {
            match within(core.cluster.compact(revision)).await {
                Ok(()) => tracing::debug!(revision, "compacted"),
                Err(fault) => tracing::debug!(revision, %fault, "not compacted"),
            }
        }
        sleep(EVERY).await;
    }
}

impl Core {
    /// Whether this instance leads, or nobody.
    fn may_compact(&self) -> bool {
        let published = self.shared.read();
        let term = published.records.get(TERM_KEY);
        let own = *lock(&self.term);
        term.is_none_or(|record| Some(record.modified) == own)
    }
}
