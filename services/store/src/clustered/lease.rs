//! The keepers of leases: the one of a term ends with it; the one of a seat takes a new lease where the last
//! has ended, for as long as the seat is wanted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::hold::{Hold, Lease};
use super::{AGAIN, Core, seat_key, within};
use crate::cluster::{Fault, LeaseId};
use crate::error::Error;
use crate::instance::{Instance, Seat};
use crate::leadership::TERM_KEY;
use crate::record::Revision;
use crate::transaction::{Outcome, Transaction};

/// How a lease ended.
enum Ended {
    /// Nobody wants it any more; it was given back.
    Unwanted,
    /// It ran out, or its key is gone.
    Lost,
}

/// Keeps the term that was put by `revision` under a lease that is held until `until`.
pub(super) fn keep_term(
    core: Arc<Core>,
    id: LeaseId,
    revision: Revision,
    until: Instant,
) -> (Hold, impl Future<Output = ()> + Send + 'static) {
    let lease = Lease::until(until);
    let (hold, mut unwanted) = Hold::leased(&lease);
    let keeper = async move {
        let kept = Kept {
            core: &core,
            lease: &lease,
            id,
            key: TERM_KEY.into(),
            revision,
            ttl: core.leases.leader,
        };
        kept.keep(&mut unwanted).await;
    };
    (hold, keeper)
}

/// Takes a seat, and keeps it.
pub(super) async fn take_seat(
    core: Arc<Core>,
    instance: Instance,
) -> Result<(Seat, impl Future<Output = ()> + Send + 'static), Error> {
    let (id, revision, until) = sit(&core, &instance).await?;
    let lease = Lease::until(until);
    let (hold, unwanted) = Hold::leased(&lease);
    let seat = Seat::new(instance.clone(), hold);
    let keeper = keep_seat(core, instance, lease, (id, revision), unwanted);
    Ok((seat, keeper))
}

async fn keep_seat(
    core: Arc<Core>,
    instance: Instance,
    lease: Arc<Lease>,
    mut taken: (LeaseId, Revision),
    mut unwanted: watch::Receiver<()>,
) {
    loop {
        let (id, revision) = taken;
        let kept = Kept {
            core: &core,
            lease: &lease,
            id,
            key: seat_key(&instance.id),
            revision,
            ttl: core.leases.instance,
        };
        if let Ended::Unwanted = kept.keep(&mut unwanted).await {
            return;
        }
        taken = loop {
            if unwanted.has_changed().is_err() || core.open().is_err() {
                return;
            }
            if let Ok((id, revision, until)) = sit(&core, &instance).await {
                lease.extend(until);
                break (id, revision);
            }
            sleep(AGAIN * 5).await;
        };
        tracing::info!(id = %instance.id, "a new seat in place of the one that was lost");
    }
}

/// Puts the key of a seat under a new lease: its id, the key's revision, and until when it is held.
async fn sit(core: &Core, instance: &Instance) -> Result<(LeaseId, Revision, Instant), Error> {
    let ttl = core.leases.instance;
    let sent = Instant::now();
    let lease = within(core.cluster.grant(ttl)).await?;
    let put = Transaction::new().put(seat_key(&instance.id), instance.value.clone());
    match core.commit(put, Some(lease)).await {
        Ok(Outcome::Committed(revision)) => Ok((lease, revision, sent + ttl)),
        not_taken => {
            core.give_up(lease).await;
            let refused = Error::Unavailable("a seat was refused".to_owned());
            Err(not_taken.err().unwrap_or(refused))
        }
    }
}

/// A lease with the one key that goes with it.
struct Kept<'a> {
    core: &'a Core,
    lease: &'a Lease,
    id: LeaseId,
    key: Arc<str>,
    revision: Revision,
    ttl: Duration,
}

impl Kept<'_> {
    /// Renews it until it is unwanted or lost.
    async fn keep(&self, unwanted: &mut watch::Receiver<()>) -> Ended {
        let mut closing = self.core.closing.subscribe();
        let part = self.ttl / 3;
        let mut next = Instant::now() + part;
        let end = loop {
            tokio::select! {
                biased;
                // Nothing is ever sent: it only ends.
                _ = unwanted.changed() => break Ended::Unwanted,
                _ = closing.wait_for(|closing| *closing) => break Ended::Unwanted,
                () = self.gone() => break Ended::Lost,
                () = sleep_until(next) => {}
            }
            let sent = Instant::now();
            match timeout(part, self.renew()).await {
                Ok(Ok(())) => {
                    self.lease.extend(sent + self.ttl);
                    next = sent + part;
                }
                Ok(Err(Fault::NoLease)) => break Ended::Lost,
                Ok(Err(_)) | Err(_) if !self.lease.holds() => break Ended::Lost,
                Ok(Err(_)) | Err(_) => next = Instant::now() + AGAIN.min(part / 4),
            }
        };
        self.lease.end();
        self.core.give_up(self.id).await;
        end
    }

    /// Renews the lease, of a seat only while its key is there: whoever took it waits for no more than the
    /// lease, and the watch may stand still.
    async fn renew(&self) -> Result<(), Fault> {
        if &*self.key != TERM_KEY {
            let put = self.core.cluster.modified(&self.key).await?;
            if put != Some(self.revision.0) {
                return Err(Fault::NoLease);
            }
        }
        self.core.cluster.keep_alive(self.id).await
    }

    /// Resolves when the key is known here not to be the one that was put.
    async fn gone(&self) {
        let mut progress = self.core.shared.on_progress();
        loop {
            progress.mark_unchanged();
            let there = self.core.shared.get(&self.key).ok().flatten();
            let ours = there.is_some_and(|record| record.modified == self.revision);
            if !ours || progress.changed().await.is_err() {
                return;
            }
        }
    }
}
