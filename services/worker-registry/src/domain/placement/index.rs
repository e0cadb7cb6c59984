//! The workers that take work, ordered by what is free on them: so that the best fit among thousands is
//! found by looking at a few.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use muster_model::gpu::{GpuGroup, GpuName};
use muster_model::requirements::{GpuRequest, take};

use crate::domain::fleet::Entry;
use crate::domain::room;
use crate::domain::text::Text;

/// Free accelerators, free processors, and the worker. The order is the order of best fit.
type Place = (u32, u32, Text);

/// What tells kinds of accelerators apart for requirements.
type Kind = (GpuName, Option<u32>);

#[derive(Clone, Debug)]
struct Shelf {
    /// The kind, as a request is matched with.
    group: GpuGroup,
    places: BTreeSet<Place>,
}

/// Workers by what is free on them.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// By kind of accelerator, with how many of the kind are free.
    shelves: BTreeMap<Arc<Kind>, Shelf>,
    /// All, with how many accelerators of any kind are free.
    machines: BTreeSet<Place>,
    /// Where each worker stands.
    standing: HashMap<Text, Standing>,
}

#[derive(Clone, Debug)]
struct Standing {
    machine: (u32, u32),
    shelves: Box<[(Arc<Kind>, u32)]>,
}

impl Index {
    /// Puts a worker where it belongs now, or takes it out.
    pub fn refresh(&mut self, name: &Text, entry: Option<&Entry>) {
        self.take_out(name);
        let Some(entry) = entry else { return };
        let worker = &entry.worker;
        let room = room::free(
            &worker.machine,
            worker.revoked_through,
            entry.allocations(),
            None,
        );
        let cpu = room.capacity.cpu_milli.unwrap_or(0);
        let groups = room.capacity.gpus.into_iter();
        let shelves = groups.map(|group| {
            let count = group.count;
            (self.put_on_shelf(group, cpu, name), count)
        });
        let standing = Standing {
            shelves: shelves.collect(),
            machine: (room.gpus, cpu),
        };
        self.machines.insert((room.gpus, cpu, name.clone()));
        self.standing.insert(name.clone(), standing);
    }

    /// Puts a worker among those with accelerators of the kind; answers the kind as all of them hold it.
    fn put_on_shelf(&mut self, group: GpuGroup, cpu: u32, name: &Text) -> Arc<Kind> {
        let kind = (group.name.clone(), group.memory_mib);
        let place = (group.count, cpu, name.clone());
        if let Some((kind, _)) = self.shelves.get_key_value(&kind) {
            let kind = Arc::clone(kind);
            if let Some(shelf) = self.shelves.get_mut(&kind) {
                shelf.places.insert(place);
            }
            return kind;
        }
        let kind = Arc::new(kind);
        let group = GpuGroup {
            count: u32::MAX,
            ..group
        };
        let shelf = Shelf {
            group,
            places: BTreeSet::from([place]),
        };
        self.shelves.insert(Arc::clone(&kind), shelf);
        kind
    }

    /// How many workers take work.
    pub fn len(&self) -> usize {
        self.standing.len()
    }

    /// Whether no worker takes work.
    pub fn is_empty(&self) -> bool {
        self.standing.is_empty()
    }

    /// Whether the worker takes work.
    pub fn contains(&self, name: &str) -> bool {
        self.standing.contains_key(name)
    }

    /// Visits the workers with enough free processors and enough free accelerators for `request`,
    /// kind by kind, the best fit of each kind first, until told to break with that kind.
    pub fn for_gpu(
        &self,
        request: &GpuRequest,
        cpu_milli: u32,
        mut visit: impl FnMut(&Text) -> ControlFlow<()>,
    ) {
        for shelf in self.shelves.values() {
            // Asked of a boundless group, the answer is how many of the kind are needed.
            if let Ok(count) = take(request, &shelf.group, true) {
                walk(&shelf.places, count, cpu_milli, &mut visit);
            }
        }
    }

    /// Visits the workers with enough free processors, those with the fewest free accelerators first,
    /// until told to break.
    pub fn for_cpu(&self, cpu_milli: u32, mut visit: impl FnMut(&Text) -> ControlFlow<()>) {
        walk(&self.machines, 0, cpu_milli, &mut visit);
    }

    fn take_out(&mut self, name: &Text) {
        let Some(standing) = self.standing.remove(name) else {
            return;
        };
        let (gpus, cpu) = standing.machine;
        self.machines.remove(&(gpus, cpu, name.clone()));
        for (kind, count) in standing.shelves {
            let Some(shelf) = self.shelves.get_mut(&kind) else {
                continue;
            };
            shelf.places.remove(&(count, cpu, name.clone()));
            if shelf.places.is_empty() {
                self.shelves.remove(&kind);
            }
        }
    }
}

/// Visits the places from `count` accelerators on, level by level, in each those with enough processors.
fn walk(
    places: &BTreeSet<Place>,
    count: u32,
    cpu_milli: u32,
    visit: &mut impl FnMut(&Text) -> ControlFlow<()>,
) {
    let first = Text::default();
    let mut level = count;
    loop {
        let Some((found, _, _)) = places.range((level, 0, first.clone())..).next() else {
            return;
        };
        let level_now = *found;
        let enough = places.range((level_now, cpu_milli, first.clone())..);
        for (_, _, name) in enough.take_while(|(gpus, _, _)| *gpus == level_now) {
            if visit(name).is_break() {
                return;
            }
        }
        let Some(next) = level_now.checked_add(1) else {
            return;
        };
        level = next;
    }
}
