//! What of a worker of our own is idle: whole accelerators that are not given away, with the
//! processors, memory and disk that are left. Of a worker with accelerators of several kinds only
//! their number that is given is known, not which: of each kind as many are offered as are idle
//! whichever they were.

use std::collections::BTreeMap;

use muster_model::constraints::CapacityType;
use muster_model::gpu::{GpuGroup, WHOLE};
use muster_model::quantity::MicroUsd;
use muster_model::requirements::Arch;

use super::builder::Builder;
use super::offer::{Availability, Draft, Machine};

/// A worker that work may be placed on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Worker {
    /// Its name.
    pub name: String,
    /// Its region; empty is none.
    pub region: String,
    /// Its zone; empty is none.
    pub zone: String,
    /// On demand or spot; none is on demand.
    pub capacity_type: Option<CapacityType>,
    /// What it costs; none is nothing.
    pub price: Option<MicroUsd>,
    /// Each accelerator: its name and memory in MiB.
    pub gpus: Vec<(String, Option<u32>)>,
    /// The instruction set.
    pub arch: Option<Arch>,
    /// Whether its accelerators are declared, and not real.
    pub simulated: bool,
    /// What it has.
    pub has: Amounts,
    /// What of it is given away.
    pub given: Amounts,
}

/// Amounts of what a worker has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Accelerators.
    pub gpus: u32,
    /// Processors, in thousandths.
    pub cpu_milli: u32,
    /// Main memory in MiB.
    pub memory_mib: u32,
    /// Disk in MiB.
    pub disk_mib: u32,
}

impl Worker {
    /// What is idle on it; none if nothing is that work could run on.
    pub fn idle(&self) -> Option<Machine> {
        let left = |of: fn(&Amounts) -> u32| of(&self.has).saturating_sub(of(&self.given));
        let gpus = self.idle_gpus();
        let machine = Machine {
            cpu_milli: Some(left(|amounts| amounts.cpu_milli)),
            memory_mib: Some(left(|amounts| amounts.memory_mib)),
            disk_mib: Some(left(|amounts| amounts.disk_mib)),
            arch: self.arch,
            gpus,
        };
        // Without accelerators, a machine whose accelerators are all given is no offer of processors:
        // they are left for what runs on the accelerators.
        let spent = machine.gpus.is_empty() && !self.gpus.is_empty()
            || machine.cpu_milli == Some(0)
            || machine.memory_mib == Some(0);
        (!spent).then_some(machine)
    }

    fn idle_gpus(&self) -> Vec<GpuGroup> {
        let mut kinds: BTreeMap<(&str, Option<u32>), u32> = BTreeMap::new();
        for (name, memory) in &self.gpus {
            *kinds.entry((name, *memory)).or_default() += 1;
        }
        let idle = kinds.into_iter().filter_map(|((name, memory), count)| {
            let count = count.saturating_sub(self.given.gpus);
            (count > 0).then(|| GpuGroup::observed(name, count, memory, WHOLE))
        });
        idle.collect()
    }

    /// What its offer calls it. Accelerators that are not real are said to be so wherever they show.
    fn instance_type(&self) -> String {
        if self.simulated {
            format!("{} (simulated)", self.name)
        } else {
            self.name.clone()
        }
    }

    /// Adds what is idle on it to the offers.
    pub fn offer(&self, offers: &mut Builder) {
        let Some(machine) = self.idle() else {
            return;
        };
        offers.intake.rows += 1;
        let instance_type = self.instance_type();
        let draft = Draft {
            region: &self.region,
            zone: &self.zone,
            instance_type: &instance_type,
            capacity_type: self.capacity_type.unwrap_or(CapacityType::OnDemand),
            machine: &machine,
            price: Some(self.price.unwrap_or(MicroUsd::ZERO)),
            availability: Availability::Idle,
        };
        let simulated = self.simulated.then_some(("simulated", "true"));
        let raw = offers.raw(
            [("worker", self.name.as_str())]
                .into_iter()
                .chain(simulated),
        );
        let added = offers.add(&draft, raw);
        offers.tally(Some(added), || format!("worker {}", self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::super::offer::Source;
    use super::*;

    fn worker(gpus: &[(&str, usize)], given: u32) -> Worker {
        let each = gpus
            .iter()
            .flat_map(|(name, count)| std::iter::repeat_n(((*name).to_owned(), None), *count));
        let gpus: Vec<_> = each.collect();
        let amounts = |gpus, part: u32| Amounts {
            gpus,
            cpu_milli: 64_000 * part,
            memory_mib: 1024 * part,
            disk_mib: 4096 * part,
        };
        Worker {
            name: "w1".to_owned(),
            has: amounts(u32::try_from(gpus.len()).unwrap(), 4),
            given: amounts(given, 1),
            gpus,
            ..Worker::default()
        }
    }

    fn idle(worker: &Worker) -> Vec<(String, u32)> {
        let groups = worker.idle().map(|machine| machine.gpus);
        let groups = groups.unwrap_or_default().into_iter();
        groups
            .map(|group| (group.name.as_str().to_owned(), group.count))
            .collect()
    }

    #[test]
    fn what_is_given_is_not_offered() {
        let some = worker(&[("H100", 8)], 3);
        assert_eq!(idle(&some), [("H100".to_owned(), 5)]);
        let machine = some.idle().unwrap();
        assert_eq!(machine.cpu_milli, Some(192_000));
        assert_eq!(machine.memory_mib, Some(3072));
        assert_eq!(worker(&[("H100", 8)], 8).idle(), None);
        assert!(worker(&[], 0).idle().is_some(), "a machine of processors");
    }

    #[test]
    fn of_several_kinds_only_what_is_certainly_idle_is_offered() {
        let mixed = worker(&[("H100", 4), ("L4", 2)], 0);
        assert_eq!(idle(&mixed), [("H100".to_owned(), 4), ("L4".to_owned(), 2)]);
        let mixed = worker(&[("H100", 4), ("L4", 2)], 3);
        assert_eq!(idle(&mixed), [("H100".to_owned(), 1)]);
    }

    #[test]
    fn usage_beyond_what_there_is_leaves_nothing() {
        let mut odd = worker(&[("H100", 2)], 9);
        assert_eq!(odd.idle(), None);
        odd.given = Amounts::default();
        odd.given.memory_mib = u32::MAX;
        assert_eq!(odd.idle(), None);
    }

    #[test]
    fn its_offer_is_idle_free_and_says_that_it_is_simulated() {
        let mut offers = Builder::new("fleet", Source::Fleet);
        let mut simulated = worker(&[("H100", 8)], 0);
        simulated.simulated = true;
        simulated.offer(&mut offers);
        let mut priced = worker(&[("H100", 8)], 0);
        priced.name = "w2".to_owned();
        priced.price = Some(MicroUsd(5));
        priced.offer(&mut offers);
        worker(&[("H100", 8)], 8).offer(&mut offers);
        let snapshot = offers.finish();
        let shown: Vec<_> = snapshot
            .rows()
            .iter()
            .map(|row| (snapshot.id_of(row).render(), row.price, row.availability))
            .collect();
        let idle = Availability::Idle;
        assert_eq!(
            shown,
            [
                (
                    "fleet//w1%20%28simulated%29/ondemand".to_owned(),
                    Some(MicroUsd::ZERO),
                    idle
                ),
                ("fleet//w2/ondemand".to_owned(), Some(MicroUsd(5)), idle),
            ]
        );
        assert_eq!(snapshot.intake().rows, 2);
        assert_eq!(
            snapshot.raw_of(&snapshot.rows()[0]),
            [("worker", "w1"), ("simulated", "true")]
        );
    }
}
