//! Talks to the worker-registry: registers, beats, and leaves. One loop, so that one call is in
//! flight at a time and the lease is counted from when the answered beat was sent. It decides when
//! to speak; what an answer means for what runs is the domain's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_proto::types::v1::{ErrorReason, MachineCapacity};
use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_proto::workers::v1::{
    HeartbeatRequest, HeartbeatResponse, HeartbeatTerms, RegisterWorkerRequest,
    RegisterWorkerResponse,
};
use muster_runtime::args::Reached;
use muster_runtime::backoff::{self, Backoff};
use muster_runtime::connect::{Channel, Credential};
use muster_runtime::health::Check;
use muster_runtime::shutdown::{Cause, Phase};
use muster_runtime::status::Details;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Request, Status};

use crate::domain::holdings::Input;
use crate::domain::ids::AllocationId;
use crate::domain::lease::Lease;
use crate::grpc::convert;
use crate::shared::Shared;
use crate::standing::Registered;
use crate::view::View;
use crate::{inventory, machine};

pub(crate) mod lease_file;
mod registration;

use lease_file::LeaseFile;

/// Before the registry has said how to behave.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// A registration that lasts this long was no mistake: another one is made at once.
const CALM: Duration = Duration::from_secs(5);
const REGISTER_DEADLINE: Duration = Duration::from_secs(10);
/// A beat waits for its answer at least and at most this long, and a quarter of lost_after between.
const BEAT_DEADLINES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// Asks the loop to leave; answered once the registry has been told, or will not be.
pub(crate) type Leave = mpsc::Receiver<oneshot::Sender<()>>;

/// What the loop lives by.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) shared: Shared,
    pub(crate) client: WorkersServiceClient<Channel>,
    pub(crate) credential: Credential,
    /// Whether the credential is presented, if there is one.
    pub(crate) presented: bool,
    pub(crate) check: Check,
    pub(crate) reached: Reached,
    pub(crate) lease: LeaseFile,
}

/// Why a generation is over.
enum Over {
    /// The registry does not know it, or is another one than before, or has other accelerators of this machine.
    Unknown,
    /// A later one has registered.
    Fenced,
    /// The agent has left.
    Left,
}

/// Why the loop speaks.
enum Woken {
    /// A beat is due.
    Beat,
    /// The agent leaves.
    Leave(oneshot::Sender<()>),
    /// The machine has other accelerators than the registry knows.
    Capacity,
}

/// A registration that was taken.
struct Taken {
    terms: Terms,
    epoch: String,
    /// What the registry has of the machine's accelerators, by uuid.
    gpus: BTreeSet<String>,
}

/// How the registry wants the agent to behave.
#[derive(Debug, Clone, Copy)]
struct Terms {
    interval: Duration,
    lost_after: Duration,
    fence_after: Duration,
}

impl Terms {
    fn parse(from: Option<&HeartbeatTerms>) -> Self {
        let read = |time: Option<&prost_types::Duration>, default| {
            time.map(convert::parse_duration)
                .filter(|time| !time.is_zero())
                .unwrap_or(default)
        };
        let interval = read(
            from.and_then(|terms| terms.interval.as_ref()),
            FIRST_INTERVAL,
        );
        Self {
            interval,
            lost_after: read(
                from.and_then(|terms| terms.lost_after.as_ref()),
                4 * interval,
            ),
            // Nothing said is nothing promised.
            fence_after: from
                .and_then(|terms| terms.fence_after.as_ref())
                .map_or(Duration::ZERO, convert::parse_duration),
        }
    }
}

impl Registry {
    /// Registers and beats until the loops end, or it was asked to leave.
    pub(crate) async fn run(mut self, mut leave: Leave) -> Result<(), String> {
        let stop = self.shared.context.shutdown.reached(Phase::Loops);
        tokio::select! {
            () = stop => Ok(()),
            outcome = self.live(&mut leave) => outcome,
        }
    }

    async fn live(&mut self, leave: &mut Leave) -> Result<(), String> {
        let boot_id = self.boot_id();
        let mut trouble = Backoff::new(self.shared.config.retry, backoff::seed(&boot_id));
        loop {
            let Some(taken) = self.register(&boot_id, leave).await else {
                return Ok(());
            };
            let begun = Instant::now();
            match self.beat_on(taken, leave).await? {
                Over::Unknown if begun.elapsed() > CALM => trouble.reset(),
                Over::Unknown => sleep(trouble.next_delay()).await,
                Over::Left => return Ok(()),
                Over::Fenced => return self.end_fenced().await,
            }
        }
    }

    /// Beats while this generation lasts.
    async fn beat_on(&mut self, taken: Taken, leave: &mut Leave) -> Result<Over, String> {
        let Taken {
            mut terms,
            mut epoch,
            gpus,
        } = taken;
        let mut trouble = Backoff::new(
            self.shared.config.retry,
            backoff::seed(&self.shared.config.name),
        );
        let mut next = Instant::now();
        let mut told = Some(0);
        loop {
            let leaving = match self.wait(next, told, &gpus, leave).await {
                Woken::Beat => None,
                Woken::Leave(done) => Some(done),
                Woken::Capacity => {
                    tracing::info!("the machine has other accelerators: registering again");
                    return Ok(Over::Unknown);
                }
            };
            let view = Arc::clone(&self.shared.view.borrow_and_update());
            let sent = (Instant::now(), machine::since_boot());
            let answer = self.beat(&view, terms, leaving.is_some()).await;
            self.shared.measures.note_heartbeat(answer.is_ok());
            if let Some(done) = leaving {
                if let Err(status) = &answer {
                    tracing::warn!(
                        error = status.message(),
                        "the registry was not told that the agent leaves"
                    );
                }
                let _ = done.send(());
                return Ok(Over::Left);
            }
            match answer {
                Ok(answer) => {
                    trouble.reset();
                    self.check.ok("");
                    told = Some(view.held_revision);
                    terms = Terms::parse(answer.terms.as_ref());
                    next = sent.0 + terms.interval;
                    self.renew(sent, terms).await;
                    if self.take(&answer, &mut epoch).await {
                        return Ok(Over::Unknown);
                    }
                }
                Err(status) => {
                    told = None;
                    if let Some(over) = self.refused(&status, trouble.failures() == 0) {
                        return Ok(over);
                    }
                    next = Instant::now() + trouble.next_delay().min(terms.interval);
                }
            }
        }
    }

    /// A beat has failed: whether the generation is over by it.
    fn refused(&self, status: &Status, is_first: bool) -> Option<Over> {
        self.check.failed(status.message());
        match Details::of(status) {
            said if said.is(ErrorReason::Fenced) => return Some(Over::Fenced),
            said if said.is(ErrorReason::Reregister) || said.is(ErrorReason::CredentialInvalid) => {
                return Some(Over::Unknown);
            }
            _ => {}
        }
        if is_first {
            tracing::warn!(code = ?status.code(), error = status.message(), "the registry does not answer");
        }
        None
    }

    /// Until a beat is due: by time, by a change of what is held since `told`, or to leave; or until the
    /// machine has other accelerators than `gpus`. With nothing told, because the last beat failed, a change
    /// is told in its time.
    async fn wait(
        &mut self,
        next: Instant,
        told: Option<u64>,
        gpus: &BTreeSet<String>,
        leave: &mut Leave,
    ) -> Woken {
        let mut capacity = self.shared.standing.watch_capacity();
        // An agent that ends is leaving what it has: it would begin anew by registering.
        let shutdown = self.shared.context.shutdown.clone();
        let is_other = |now: &Arc<MachineCapacity>| uuids(now) != *gpus && !shutdown.is_begun();
        let other = async move { capacity.wait_for(is_other).await.is_ok() };
        let mut view = self.shared.view.clone();
        let changed = async move {
            let different = match told {
                Some(told) => view
                    .wait_for(|view| view.held_revision != told)
                    .await
                    .is_ok(),
                None => false,
            };
            if !different {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            Some(done) = leave.recv() => Woken::Leave(done),
            true = other => Woken::Capacity,
            () = sleep_until(next) => Woken::Beat,
            () = changed => Woken::Beat,
        }
    }

    async fn beat(
        &mut self,
        view: &View,
        terms: Terms,
        leaving: bool,
    ) -> Result<HeartbeatResponse, Status> {
        let (least, most) = BEAT_DEADLINES;
        let mut request = Request::new(HeartbeatRequest {
            name: self.shared.config.name.clone(),
            generation: self.shared.standing.generation(),
            held: view.held.clone(),
            leaving,
            cpu_used_milli: self.shared.standing.cpu_used_milli(),
            memory_used_mib: inventory::memory_used_mib(),
        });
        request.set_timeout((terms.lost_after / 4).clamp(least, most));
        self.client
            .heartbeat(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Counts the lease from when the answered beat was sent.
    async fn renew(&mut self, sent: (Instant, Duration), terms: Terms) {
        let lease = Lease::renewed(self.shared.standing.boot_id(), sent.1, terms.fence_after);
        self.lease
            .keep(lease.clone(), sent.0, terms.interval / 2)
            .await;
        self.shared.standing.note_registry(Some(lease));
    }

    /// Passes on what an answer says; true if it takes a new registration.
    async fn take(&mut self, answer: &HeartbeatResponse, epoch: &mut String) -> bool {
        self.shared.standing.note_beaten(answer.state());
        for notice in &answer.notices {
            let grace = notice.stop_grace.as_ref().map(convert::parse_duration);
            if let Some(id) = allocation(&notice.allocation_id) {
                self.shared.tell(Input::Ending(id, grace)).await;
            }
        }
        for id in &answer.forgotten_allocations {
            if let Some(id) = allocation(id) {
                self.shared.tell(Input::Forgotten(id)).await;
            }
        }
        self.shared.tell(Input::Forced(answer.forced)).await;
        let changed = *epoch != answer.epoch;
        if changed {
            tracing::warn!(before = %epoch, now = %answer.epoch, "the registry has another history: registering again");
        } else if !answer.unknown_allocations.is_empty() {
            tracing::warn!(allocations = ?answer.unknown_allocations, "the registry does not know what is held: registering again");
        }
        epoch.clone_from(&answer.epoch);
        changed || !answer.unknown_allocations.is_empty()
    }

    /// This worker has a later generation. If our folder is still ours, it is on another machine, or was taken
    /// from us by force, and what runs here has to end; if not, our successor has adopted it.
    async fn end_fenced(&mut self) -> Result<(), String> {
        self.shared.standing.set_registered(None);
        let why = "this worker has a later generation: it has registered elsewhere, or was disabled by force while lost";
        if self.shared.data.is_ours() {
            tracing::error!("{why}: stopping what runs here");
            self.shared.tell(Input::Superseded).await;
            let mut view = self.shared.view.clone();
            let _ = view.wait_for(|view| view.closed && !view.running).await;
        }
        self.shared.context.shutdown.begin(Cause::failed(why));
        Ok(())
    }
}

fn uuids(capacity: &MachineCapacity) -> BTreeSet<String> {
    capacity.gpus.iter().map(|gpu| gpu.uuid.clone()).collect()
}

/// An id that may stand here; one that may not cannot be of anything that we hold.
fn allocation(id: &str) -> Option<AllocationId> {
    AllocationId::parse(id).ok()
}
