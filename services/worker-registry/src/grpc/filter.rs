//! Which workers, allocations and events a caller asks for.

use std::collections::BTreeSet;
use std::time::SystemTime;

use muster_model::constraints::Labels;
use muster_model::gpu::{self, GpuName};
use muster_proto::workers::v1 as proto;
use muster_runtime::status::Violations;
use muster_runtime::watch;

use super::convert::{
    known, parse_allocation_state, parse_liveness, parse_named_time, parse_severity, parse_state,
};
use crate::domain::allocation::Life;
use crate::domain::event::{Event, Severity};
use crate::domain::liveness::Liveness;
use crate::domain::state::State;
use crate::domain::worker::Worker;
use crate::seen::{Seen, SeenAllocation, SeenEvent};

/// Which workers.
#[derive(Clone, Debug, Default)]
pub(super) struct Workers {
    states: Vec<State>,
    livenesses: Vec<Liveness>,
    labels: Labels,
    backends: Vec<String>,
    regions: Vec<String>,
    zones: Vec<String>,
    gpus: Vec<GpuName>,
    names: BTreeSet<String>,
}

impl Workers {
    pub(super) fn parse(filter: Option<proto::WorkerFilter>, violations: &mut Violations) -> Self {
        let filter = filter.unwrap_or_default();
        let states = filter.states.iter().filter_map(|state| {
            said("filter.states", *state, violations);
            parse_state(known("filter.states", *state, violations))
        });
        let states = states.collect();
        let livenesses = filter.livenesses.iter().filter_map(|liveness| {
            said("filter.livenesses", *liveness, violations);
            parse_liveness(known("filter.livenesses", *liveness, violations))
        });
        Self {
            states,
            livenesses: livenesses.collect(),
            labels: filter.labels,
            backends: filter.backends,
            regions: filter.regions,
            zones: filter.zones,
            gpus: filter
                .gpu_names
                .iter()
                .map(|name| gpu::canonical(name))
                .collect(),
            names: filter.names.into_iter().collect(),
        }
    }

    /// Whether everything is asked for.
    pub(super) fn is_all(&self) -> bool {
        self.livenesses.is_empty() && self.is_any_record()
    }

    fn is_any_record(&self) -> bool {
        self.states.is_empty()
            && self.labels.is_empty()
            && self.backends.is_empty()
            && self.regions.is_empty()
            && self.zones.is_empty()
            && self.gpus.is_empty()
            && self.names.is_empty()
    }

    /// Whether the record is one of those asked for, whatever is known in memory.
    pub(super) fn meets(&self, worker: &Worker) -> bool {
        let machine = &worker.machine;
        let one_of = |any: &[String], is: &str| any.is_empty() || any.iter().any(|one| one == is);
        let has_gpu = |name: &GpuName| machine.gpus.kinds().any(|kind| name.covers(&kind.name));
        (self.states.is_empty() || self.states.contains(&worker.state))
            && (self.names.is_empty() || self.names.contains(&*worker.name))
            && self
                .labels
                .iter()
                .all(|(key, value)| worker.effective_labels.get(key) == Some(value))
            && one_of(&self.backends, &machine.backend)
            && one_of(&self.regions, &machine.region)
            && one_of(&self.zones, &machine.zone)
            && (self.gpus.is_empty() || self.gpus.iter().any(has_gpu))
    }

    /// Whether what is known in memory is asked for.
    pub(super) fn is_live(&self, liveness: Liveness) -> bool {
        self.livenesses.is_empty() || self.livenesses.contains(&liveness)
    }

    /// Whether liveness is looked at.
    pub(super) fn looks_at_liveness(&self) -> bool {
        !self.livenesses.is_empty()
    }

    /// As watches filter.
    pub(super) fn into_watch(self) -> watch::Filter<Seen> {
        let (records, live) = (self.clone(), self);
        let mut filter = watch::Filter::all();
        if !records.is_any_record() {
            filter = filter.durable(move |seen: &Seen| records.meets(&seen.worker));
        }
        if live.looks_at_liveness() {
            filter = filter.observed(move |seen: &Seen| live.is_live(seen.observed.liveness));
        }
        filter
    }
}

/// Which allocations.
#[derive(Clone, Debug, Default)]
pub(super) struct Allocations {
    workers: BTreeSet<String>,
    owners: BTreeSet<String>,
    states: Vec<proto::AllocationState>,
}

impl Allocations {
    pub(super) fn parse(
        filter: Option<proto::AllocationFilter>,
        violations: &mut Violations,
    ) -> Self {
        let filter = filter.unwrap_or_default();
        let states = filter.states.iter().filter_map(|state| {
            said("filter.states", *state, violations);
            parse_allocation_state(known("filter.states", *state, violations))
        });
        Self {
            states: states.collect(),
            workers: filter.workers.into_iter().collect(),
            owners: filter.owners.into_iter().collect(),
        }
    }

    /// Whether everything is asked for.
    pub(super) fn is_all(&self) -> bool {
        self.workers.is_empty() && self.owners.is_empty() && self.states.is_empty()
    }

    /// Whether this one is asked for.
    pub(super) fn meets(&self, seen: &SeenAllocation) -> bool {
        let allocation = &seen.allocation;
        let state = match (&allocation.life, &seen.revoked) {
            (_, Some(_)) | (Life::Revoked(_), None) => proto::AllocationState::Revoked,
            (Life::Held, None) => proto::AllocationState::Held,
            (Life::Releasing(_), None) => proto::AllocationState::Releasing,
        };
        (self.workers.is_empty() || self.workers.contains(&*allocation.worker))
            && (self.owners.is_empty() || self.owners.contains(&*allocation.owner))
            && (self.states.is_empty() || self.states.contains(&state))
    }

    /// As watches filter.
    pub(super) fn into_watch(self) -> watch::Filter<SeenAllocation> {
        match self.is_all() {
            true => watch::Filter::all(),
            false => watch::Filter::all().durable(move |seen| self.meets(seen)),
        }
    }
}

/// Which events.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    subjects: BTreeSet<String>,
    kinds: BTreeSet<String>,
    least: Option<Severity>,
    since: Option<SystemTime>,
}

impl Events {
    pub(super) fn parse(
        filter: Option<proto::WorkerEventFilter>,
        violations: &mut Violations,
    ) -> Self {
        let filter = filter.unwrap_or_default();
        Self {
            subjects: filter
                .workers
                .iter()
                .map(|name| format!("worker/{name}"))
                .collect(),
            kinds: filter.kinds.into_iter().collect(),
            least: parse_severity(known(
                "filter.min_severity",
                filter.min_severity,
                violations,
            )),
            since: parse_named_time("filter.since_time", filter.since_time.as_ref(), violations),
        }
    }

    /// Whether this one is asked for.
    pub(super) fn meets(&self, event: &Event) -> bool {
        (self.subjects.is_empty() || self.subjects.contains(&event.subject))
            && (self.kinds.is_empty() || self.kinds.contains(&*event.kind))
            && self.least.is_none_or(|least| event.severity >= least)
            && self.since.is_none_or(|since| event.at >= since)
    }

    /// As watches filter.
    pub(super) fn into_watch(self) -> watch::Filter<SeenEvent> {
        watch::Filter::all().durable(move |seen: &SeenEvent| self.meets(&seen.0))
    }
}

/// A value of a list must be said.
fn said(field: &str, value: i32, violations: &mut Violations) {
    // The value that every enum of the contract calls UNSPECIFIED.
    if value == 0 {
        violations.add(field, "must not hold UNSPECIFIED");
    }
}
