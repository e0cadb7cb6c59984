//! Tells the registry how far replicas have been moved off each draining worker, what is left, and what
//! cannot be moved now and why. It moves nothing.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use muster_proto::replicas::v1::AttemptReport;
use muster_proto::workers::v1 as wire;
use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_runtime::connect::Channel;

use super::calls::{OWNER, Owner};
use crate::domain::failure::Class;
use crate::domain::replica::{Phase, Replica, Role, State};
use crate::domain::service::Service;
use crate::domain::time::Time;
use crate::domain::world::{Drain, Liveness};
use crate::engine::Engine;

/// Blocks that are told of one worker; more help nobody.
const MOST_BLOCKS: usize = 20;

/// What was left on each draining worker when its drain was first looked at, and what had been moved
/// by then.
#[derive(Debug, Default)]
pub(crate) struct Drains(BTreeMap<(String, Time), u32>);

impl Drains {
    /// Reports each drain, for as long as this instance leads.
    pub(crate) async fn report(
        mut self,
        engine: &Engine,
        registry: &WorkersServiceClient<Channel>,
        owner: &Owner,
        every: Duration,
    ) {
        loop {
            for report in self.look(engine, owner) {
                let worker = report.worker.clone();
                if let Err(status) = registry.clone().report_drain(report).await {
                    tracing::debug!(worker, %status, "a drain could not be reported");
                }
            }
            tokio::time::sleep(every).await;
        }
    }

    fn look(&mut self, engine: &Engine, owner: &Owner) -> Vec<wire::ReportDrainRequest> {
        let draining = engine.parts().fleet.draining();
        self.0.retain(|(worker, began), _| {
            draining
                .get(worker)
                .is_some_and(|(drain, _)| drain.began == *began)
        });
        let mut reports = Vec::new();
        for (worker, (drain, liveness)) in draining {
            let here = on_worker(engine, &worker, liveness);
            let key = (worker.clone(), drain.began);
            let total = self.0.entry(key).or_insert(drain.moved + here.left);
            // Something may have been placed just before the drain was seen.
            *total = (*total).max(here.left);
            let moved = *total - here.left;
            reports.push(wire::ReportDrainRequest {
                owner: OWNER.to_owned(),
                owner_term: Some(owner.term()),
                worker,
                moved: signed(moved),
                left: signed(here.left),
                eta_time: eta(drain, moved, &here, engine.now()),
                blocked: here.blocked,
            });
        }
        reports
    }
}

/// What is left on a worker.
#[derive(Default)]
struct Here {
    left: u32,
    blocked: Vec<wire::DrainBlock>,
}

fn on_worker(engine: &Engine, worker: &str, liveness: Liveness) -> Here {
    let mut here = Here::default();
    let view = engine.parts().view.read();
    for uid in view.on_worker(worker) {
        let Some(stored) = view.of(&uid) else {
            continue;
        };
        for replica in stored.service.replicas.values() {
            if replica.worker() == Some(worker) {
                here.left += 1;
                if here.blocked.len() < MOST_BLOCKS {
                    here.blocked
                        .extend(block(&stored.service, replica, liveness));
                }
            }
        }
    }
    for (attempt, report) in view.orphans_on(worker) {
        here.left += 1;
        if here.blocked.len() < MOST_BLOCKS {
            here.blocked.push(orphan_block(attempt, report));
        }
    }
    here
}

/// Nobody moves what no service knows.
fn orphan_block(attempt: &str, report: &AttemptReport) -> wire::DrainBlock {
    wire::DrainBlock {
        allocation_id: report.allocation_id.clone(),
        subject: attempt.to_owned(),
        reason: "ORPHAN".to_owned(),
        message: "no service knows it: `muster orphans` lists it, to be adopted or removed"
            .to_owned(),
    }
}

/// Why a replica cannot be moved now; `None` if it moves, or waits for its turn.
fn block(service: &Service, replica: &Replica, liveness: Liveness) -> Option<wire::DrainBlock> {
    if replica.stop.is_some() {
        return None;
    }
    let of = replica.ordinal;
    let (reason, message) = match service.companion(Role::Move { of }) {
        _ if liveness == Liveness::Lost => ("LOST", "its worker is lost".to_owned()),
        None => return None,
        Some(instead) => match &instead.state {
            State::Backoff(backoff) if backoff.class == Class::NoCapacity => {
                ("NO_CAPACITY", backoff.message.clone())
            }
            State::Running(Phase::Ready) if service.ready() <= service.floor() => {
                ("MIN_HEALTHY", "too few others are ready".to_owned())
            }
            State::Failed { .. } => ("REPLACEMENT_FAILED", "its replacement gave up".to_owned()),
            State::Pending { .. }
            | State::Placing(_)
            | State::Refused(_)
            | State::Running(_)
            | State::Ended
            | State::Backoff(_)
            | State::Stopped => return None,
        },
    };
    let room = replica
        .attempt
        .as_ref()
        .and_then(|attempt| attempt.allocation.as_ref());
    Some(wire::DrainBlock {
        allocation_id: room.map_or_else(String::new, |room| room.id.clone()),
        subject: service.replica_id(of),
        reason: reason.to_owned(),
        message,
    })
}

/// When it will be done at the pace so far; not known before the first move, nor while any is blocked.
fn eta(drain: Drain, moved: u32, here: &Here, now: Time) -> Option<prost_types::Timestamp> {
    if moved == 0 || !here.blocked.is_empty() || drain.began == Time::default() {
        return None;
    }
    let each = now.since(drain.began) / moved;
    Some(SystemTime::from(now + each * here.left).into())
}

fn signed(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
