//! The choice among the workers that would do.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

use muster_model::requirements::GpuRequest;

use super::{Ask, Index, Taken};
use crate::domain::allocation::Allocation;
use crate::domain::fleet::Fleet;
use crate::domain::text::Text;

/// A worker that takes an allocation, with what it gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The worker.
    pub worker: Text,
    /// What is taken of it.
    pub taken: Taken,
}

/// What is better is less: first that few of the same key are there, then that few accelerators stay
/// free. Workers come in the order of best fit, so of equals the first stays.
type Rank = (u32, u32);

/// The best worker for what is asked; none if no worker that takes work does. `also` is decided and not
/// in the fleet yet.
///
/// Alternatives are tried in their order. Of one alternative's workers, one without the spread key comes
/// first, then the one on which the fewest accelerators stay free, then the one with the fewest free
/// processors, then the first by name.
pub fn find(fleet: &Fleet, index: &Index, ask: &Ask, also: &[Arc<Allocation>]) -> Option<Site> {
    if let Some(only) = fixed_worker(fleet, ask) {
        let entry = fleet.worker(&only).filter(|_| index.contains(&only))?;
        let taken = ask.take(entry, also)?;
        return Some(Site {
            worker: only,
            taken,
        });
    }
    let cpu = ask.requirements.cpu_milli;
    if ask.requirements.gpu_any_of.is_empty() {
        let mut best = Best::new(fleet, ask, also);
        index.for_cpu(cpu, |name| best.consider(name));
        return best.site();
    }
    ask.requirements.gpu_any_of.iter().find_map(|request| {
        // Each alternative is asked for alone, so that a worker is judged by the one in hand.
        let alone = only_alternative(ask, request);
        let mut best = Best::new(fleet, &alone, also);
        index.for_gpu(request, cpu, |name| best.consider(name));
        best.site()
    })
}

/// The one worker that comes into question: the one asked for, or that of the room taken over.
fn fixed_worker(fleet: &Fleet, ask: &Ask) -> Option<Text> {
    let old = ask.replaces.as_ref().and_then(|id| fleet.allocation(id));
    ask.worker
        .clone()
        .or_else(|| old.map(|old| old.worker.clone()))
}

fn only_alternative<'a>(ask: &'a Ask, request: &GpuRequest) -> Cow<'a, Ask> {
    if ask.requirements.gpu_any_of.len() == 1 {
        return Cow::Borrowed(ask);
    }
    let mut alone = ask.clone();
    alone.requirements.gpu_any_of = vec![request.clone()];
    Cow::Owned(alone)
}

struct Best<'a> {
    fleet: &'a Fleet,
    ask: &'a Ask,
    also: &'a [Arc<Allocation>],
    best: Option<(Rank, Site)>,
}

impl<'a> Best<'a> {
    fn new(fleet: &'a Fleet, ask: &'a Ask, also: &'a [Arc<Allocation>]) -> Self {
        Self {
            fleet,
            ask,
            also,
            best: None,
        }
    }

    /// How many of the same key the worker has.
    fn spread(&self, name: &Text) -> u32 {
        let key = &self.ask.spread_key;
        if key.is_empty() {
            return 0;
        }
        let also = self
            .also
            .iter()
            .filter(|one| one.spread_key == *key && one.worker == *name);
        let also = u32::try_from(also.count()).unwrap_or(u32::MAX);
        self.fleet.spread().count(key, name).saturating_add(also)
    }

    /// Looks at the next worker. Breaks off where no later one can be better.
    fn consider(&mut self, name: &Text) -> ControlFlow<()> {
        let spread = self.spread(name);
        if self
            .best
            .as_ref()
            .is_some_and(|((best, _), _)| *best < spread)
        {
            return ControlFlow::Continue(());
        }
        let Some(entry) = self.fleet.worker(name) else {
            return ControlFlow::Continue(());
        };
        let Some(taken) = self.ask.take(entry, self.also) else {
            return ControlFlow::Continue(());
        };
        let rank = (spread, taken.left);
        if self.best.as_ref().is_none_or(|(best, _)| rank < *best) {
            let site = Site {
                worker: name.clone(),
                taken,
            };
            self.best = Some((rank, site));
        }
        match spread {
            0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn site(self) -> Option<Site> {
        self.best.map(|(_, site)| site)
    }
}
