//! Keeps what is in memory in step with the cluster. It ends with the store, or fails it where the cluster
//! has forgotten what was missed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::{Core, EPOCH_KEY, SILENT, within};
use crate::cluster::{Fault, Stream, Told};
use crate::record::{Batch, Change, Record, Revision};
use crate::shared::End;

/// How often the watch is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How long nothing need change before the watch is moved on: where it goes on from after it broke must not
/// have been forgotten.
const QUIET: Duration = Duration::from_mins(1);

/// The wait before a broken watch is begun anew.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn follow(core: Arc<Core>) {
    tokio::select! {
        () = core.ended() => {}
        () = run(&core) => {}
    }
}

async fn run(core: &Core) {
    // Whether the outage that goes on has been told.
    let mut told = false;
    loop {
        let mut heard = false;
        let fault = match watch(core, &mut heard).await {
            Err(fault) => fault,
            Ok(never) => match never {},
        };
        told &= !heard;
        match fault {
            Fault::Compacted => {
                let reason = "the cluster has forgotten changes that were missed here; a new start reads everything anew";
                tracing::error!(reason, "the store failed");
                core.shared.end(End::Failed(reason.to_owned()));
                return;
            }
            Fault::Unavailable(_) | Fault::NoLease if told => {
                tracing::debug!(%fault, "the watch of the cluster is not begun yet");
            }
            Fault::Unavailable(_) | Fault::NoLease => {
                tracing::warn!(%fault, "the watch of the cluster broke; it is begun anew");
                told = true;
            }
        }
        sleep(PAUSE).await;
    }
}

/// Follows from where it is, until the watch breaks. Notes whether anything was heard.
async fn watch(core: &Core, was_heard: &mut bool) -> Result<Infallible, Fault> {
    let after = *core.reached.borrow();
    let mut stuck = core.stuck.subscribe();
    let mut stream = within(core.cluster.watch(after)).await?;
    let mut asks = interval(ASK_EVERY);
    asks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let mut moved = heard;
    let mut marked = false;
    loop {
        tokio::select! {
            biased;
            told = stream.next() => {
                let told = told?;
                heard = Instant::now();
                *was_heard = true;
                core.hear();
                if told.revision().is_some() {
                    moved = heard;
                    marked = false;
                }
                core.take(told);
            }
            () = sleep_until(heard + SILENT) => {
                stream.silent();
                return Err(Fault::Unavailable("the watch does not say how far it is".to_owned()));
            }
            // The sender lives in `core`.
            _ = stuck.changed() => return Err(untold(&stream)),
            () = core.hurry.notified() => stream.ask().await?,
            _ = asks.tick() => stream.ask().await?,
            () = sleep_until(moved + QUIET) => {
                if marked {
                    return Err(untold(&stream));
                }
                // What comes of it is told by the watch, or tried again.
                marked = within(core.cluster.mark()).await.is_ok();
                moved = Instant::now();
            }
        }
    }
}

/// The watch gives signs of life, and does not tell what is there.
fn untold(stream: &Stream) -> Fault {
    stream.silent();
    Fault::Unavailable("the watch does not tell what is there".to_owned())
}

impl Core {
    fn take(&self, told: Told) {
        let Some(revision) = told.revision() else {
            return;
        };
        if let Told::Changes { changes, .. } = told {
            // It is put once, before anybody follows.
            if changes.iter().any(|(key, _)| &**key == EPOCH_KEY) {
                let reason =
                    "another store was put in the place of this one; a new start opens that";
                tracing::error!(reason, "the store failed");
                self.shared.end(End::Failed(reason.to_owned()));
                return;
            }
            self.publish(revision, changes);
        }
        self.reached.send_if_modified(|reached| {
            let further = revision > *reached;
            *reached = revision.max(*reached);
            further
        });
    }

    fn publish(&self, revision: u64, changes: Vec<(Arc<str>, Option<Record>)>) {
        let now = self.shared.now();
        let mut published = self.shared.write();
        // What a watch that was begun anew tells twice.
        if revision <= published.revision.0 {
            return;
        }
        let changes = changes.into_iter().map(|(key, after)| {
            let before = published.records.get(&key).cloned();
            // The stored key is shared on, so that a record never keeps two copies of it alive.
            let key = before
                .as_ref()
                .map_or(key, |record| Arc::clone(&record.key));
            let after = after.map(|after| {
                Arc::new(Record {
                    key: Arc::clone(&key),
                    ..after
                })
            });
            Change { key, before, after }
        });
        let batch = Batch {
            revision: Revision(revision),
            changes: changes.collect(),
        };
        published.follow(batch, now);
        drop(published);
        self.shared.ring();
    }
}
