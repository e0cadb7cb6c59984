//! Why workers were refused, grouped so that a person can act on it.

use std::collections::BTreeMap;

use muster_model::constraints;
use muster_model::requirements;
use muster_model::shortfall::Shortfall;

use super::Ask;
use crate::domain::fleet::Entry;
use crate::domain::liveness::Liveness;
use crate::domain::state::State;
use crate::domain::text::Text;
use crate::domain::worker::Worker;

/// How many workers of a group are named.
const NAMED: usize = 5;

/// Workers that were refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A word for programs.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
    /// How many workers.
    pub count: u32,
    /// The first of them, by name.
    pub workers: Vec<Text>,
    /// What the closest of them lacks.
    pub shortfall: Option<Shortfall>,
}

/// Why workers do not do, in the making: they are looked at one after another.
#[derive(Debug)]
pub struct Survey<'a> {
    ask: &'a Ask,
    epoch: &'a str,
    groups: BTreeMap<&'static str, Refusal>,
}

impl<'a> Survey<'a> {
    /// Nobody has been looked at.
    pub fn new(ask: &'a Ask, epoch: &'a str) -> Self {
        Self {
            ask,
            epoch,
            groups: BTreeMap::new(),
        }
    }

    /// Looks at the next worker, in order of name.
    pub fn look_at(&mut self, entry: &Entry, liveness: impl FnOnce(&Worker) -> Liveness) {
        let Some((reason, shortfall)) = refuse(entry, self.ask, self.epoch, liveness) else {
            return;
        };
        let group = self.groups.entry(reason).or_insert_with(|| Refusal {
            reason,
            message: String::new(),
            count: 0,
            workers: Vec::new(),
            shortfall: None,
        });
        group.add(&entry.worker.name, shortfall);
    }

    /// Why those who were looked at and do not do were refused, the largest group first.
    pub fn refusals(self) -> Vec<Refusal> {
        let mut refusals: Vec<_> = self.groups.into_values().collect();
        refusals.sort_by_key(|group| std::cmp::Reverse(group.count));
        for group in &mut refusals {
            group.message = group.words();
        }
        refusals
    }
}

/// All of them in one sentence.
pub fn summary(refusals: &[Refusal]) -> String {
    if refusals.is_empty() {
        return "there is no worker".to_owned();
    }
    let words: Vec<_> = refusals
        .iter()
        .map(|group| group.message.as_str())
        .collect();
    words.join("; ")
}

/// Why this worker does not do: the first thing that stands against it.
fn refuse(
    entry: &Entry,
    ask: &Ask,
    epoch: &str,
    liveness: impl FnOnce(&Worker) -> Liveness,
) -> Option<(&'static str, Option<Shortfall>)> {
    let worker = &entry.worker;
    if worker.state != State::Active || *worker.epoch != *epoch {
        return Some(("WRONG_STATE", None));
    }
    match liveness(worker) {
        Liveness::Unknown | Liveness::Alive => {}
        Liveness::Suspect => return Some(("SUSPECT", None)),
        Liveness::Lost | Liveness::Left => return Some(("LOST", None)),
    }
    if ask.avoids(entry) {
        return Some(("AVOIDED", None));
    }
    let against = constraints::check(&ask.constraints, &worker.place()).err();
    let room = ask.room(entry, &[]);
    let short = against.or_else(|| requirements::matches(&ask.requirements, &room.capacity).err());
    if let Some(first) = short.and_then(|short| short.into_iter().next()) {
        return Some((first.reason(), Some(first)));
    }
    let taken = ask
        .host_ports
        .iter()
        .any(|port| room.busy_ports.binary_search(port).is_ok());
    taken.then_some(("HOST_PORT", None))
}

impl Refusal {
    fn add(&mut self, worker: &Text, shortfall: Option<Shortfall>) {
        self.count += 1;
        if self.workers.len() < NAMED {
            self.workers.push(worker.clone());
        }
        let closer = match (&self.shortfall, &shortfall) {
            (Some(known), Some(new)) => closeness(new) > closeness(known),
            (None, _) => true,
            (Some(_), None) => false,
        };
        if closer {
            self.shortfall = shortfall;
        }
    }

    fn words(&self) -> String {
        let plural = if self.count == 1 { "worker" } else { "workers" };
        let why = match (self.reason, &self.shortfall) {
            (_, Some(closest)) => closest.to_string(),
            ("WRONG_STATE", None) => "not ACTIVE".to_owned(),
            ("SUSPECT", None) => "not heard for a while".to_owned(),
            ("LOST", None) => "lost or left".to_owned(),
            ("AVOIDED", None) => "to be avoided".to_owned(),
            ("HOST_PORT", None) => "a host port is in use".to_owned(),
            (reason, None) => reason.to_owned(),
        };
        format!("{} {plural}: {why}", self.count)
    }
}

/// How near a worker came: more is nearer.
fn closeness(shortfall: &Shortfall) -> (u32, u32) {
    match shortfall {
        Shortfall::Gpu(gpu) => {
            let step = gpu.lack.map_or(0, |lack| lack as u32 + 1);
            (
                step,
                gpu.has.iter().map(|group| group.count).max().unwrap_or(0),
            )
        }
        Shortfall::Cpu { has, .. }
        | Shortfall::Memory { has, .. }
        | Shortfall::Disk { has, .. } => (0, has.unwrap_or(0)),
        Shortfall::Arch { .. }
        | Shortfall::Backend { .. }
        | Shortfall::Region { .. }
        | Shortfall::Zone { .. }
        | Shortfall::Label { .. }
        | Shortfall::CapacityType { .. }
        | Shortfall::Price { .. } => (0, 0),
    }
}
