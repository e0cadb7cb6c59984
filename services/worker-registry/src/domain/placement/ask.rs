//! What is asked of a worker, and whether one worker can give it.

use std::borrow::Cow;
use std::sync::Arc;

use muster_model::constraints::{self, Constraints};
use muster_model::requirements::{self, GpuRequest, Requirements};

use crate::domain::allocation::{Allocation, Amounts};
use crate::domain::fleet::Entry;
use crate::domain::room::{self, Room};
use crate::domain::text::Text;

/// What to allocate, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ask {
    /// What the workload needs; it is given exactly this.
    pub requirements: Requirements,
    /// Where it may be.
    pub constraints: Constraints,
    /// Allocations of one key go to different workers as far as possible; empty does not spread.
    pub spread_key: Text,
    /// Workers that are not taken.
    pub avoid_workers: Vec<Text>,
    /// Regions that are not taken.
    pub avoid_regions: Vec<Text>,
    /// Only this worker.
    pub worker: Option<Text>,
    /// The allocation whose room is taken over.
    pub replaces: Option<Text>,
    /// Ports of the host to take.
    pub host_ports: Vec<u16>,
}

/// What is taken of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Accelerators, by uuid.
    pub gpus: Vec<Text>,
    /// Free accelerators that stay: of the kind that is taken, or of any if none is.
    pub left: u32,
}

impl Ask {
    /// The amounts that it takes, accelerators apart.
    pub fn amounts(&self) -> Amounts {
        Amounts {
            cpu_milli: self.requirements.cpu_milli,
            memory_mib: self.requirements.memory_mib,
            disk_mib: self.requirements.disk_mib,
        }
    }

    /// Whether a worker is one of those that are not taken.
    pub fn avoids(&self, entry: &Entry) -> bool {
        self.avoid_workers.contains(&entry.worker.name)
            || self.avoid_regions.contains(&entry.worker.machine.region)
    }

    /// What this worker would give beside `also`, which is decided and not in the fleet yet; none if it
    /// does not do. Whether the worker takes work at all is not asked here.
    pub fn take(&self, entry: &Entry, also: &[Arc<Allocation>]) -> Option<Taken> {
        let worker = &entry.worker;
        if self.avoids(entry) || !constraints::admits(&self.constraints, &worker.place()) {
            return None;
        }
        let room = self.room(entry, also);
        let fit = requirements::fit(&self.requirements, &room.capacity)?;
        let is_busy = |port: &u16| room.busy_ports.binary_search(port).is_ok();
        if self.host_ports.iter().any(is_busy) {
            return None;
        }
        let Some(gpu) = fit.gpu else {
            return Some(Taken {
                gpus: Vec::new(),
                left: room.gpus,
            });
        };
        let request = &self.requirements.gpu_any_of[gpu.alternative];
        let (left, group, count) = best_group(request, &room)?;
        Some(Taken {
            gpus: self.pick(entry, &room.free_gpus[group], count),
            left,
        })
    }

    /// What is free on a worker for this one, beside `also`.
    pub fn room(&self, entry: &Entry, also: &[Arc<Allocation>]) -> Room {
        let worker = &entry.worker;
        let here = also.iter().filter(|one| one.worker == worker.name);
        let mut allocations = Cow::Borrowed(entry.allocations());
        for one in here {
            allocations.to_mut().push(Arc::clone(one));
        }
        room::free(
            &worker.machine,
            worker.revoked_through,
            &allocations,
            self.replaces.as_ref(),
        )
    }

    /// The first free accelerators; of a room that is taken over, its own before others, which leaves
    /// more to those who come between the old one's end and the new one's start.
    fn pick(&self, entry: &Entry, free: &[usize], count: u32) -> Vec<Text> {
        let gpus = entry.worker.machine.gpus.iter();
        let uuids: Vec<_> = gpus.map(|gpu| gpu.uuid).collect();
        let old = self
            .replaces
            .as_ref()
            .and_then(|id| entry.allocations().iter().find(|one| one.id == *id));
        let is_old = |place: &&usize| old.is_some_and(|old| old.has_gpu(uuids[**place]));
        let own = free.iter().filter(is_old);
        let others = free.iter().filter(|place| !is_old(place));
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        own.chain(others)
            .take(count)
            .map(|place| uuids[*place].into())
            .collect()
    }
}

/// Of the groups that meet a request, the one of which the fewest stay free: how many, which, and how
/// many of it are taken.
fn best_group(request: &GpuRequest, room: &Room) -> Option<(u32, usize, u32)> {
    let groups = room.capacity.gpus.iter().enumerate();
    let fitting = groups.filter_map(|(place, group)| {
        let count = requirements::take(request, group, true).ok()?;
        Some((group.count - count, place, count))
    });
    fitting.min()
}
