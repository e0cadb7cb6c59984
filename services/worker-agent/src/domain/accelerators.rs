//! Which accelerators of the machine may be given to replicas, and which are certainly gone, by what the
//! driver says each time it is asked. One answer that differs decides nothing: a second one has to agree.

use std::collections::BTreeSet;

#[cfg(test)]
mod tests;

/// What the driver said when it was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// The accelerators that it can work with, by uuid.
    pub read: BTreeSet<String>,
    /// Whether every other one is certainly not there: none was left out for a reason that may pass.
    pub whole: bool,
}

impl Sight {
    /// One of `gpus` that is certainly not there.
    pub fn gone<'a>(&self, gpus: &'a [String]) -> Option<&'a String> {
        let is_gone = |gpu: &&String| self.whole && !self.read.contains(*gpu);
        gpus.iter().find(is_gone)
    }
}

/// The accelerators of the machine.
#[derive(Debug, Clone, Default)]
pub struct Accelerators {
    offered: BTreeSet<String>,
    there: Option<BTreeSet<String>>,
    last: Option<Sight>,
}

impl Accelerators {
    /// What is offered by the first answer alone, as nothing has been offered before it; none if there was
    /// no answer.
    pub fn first(sight: Option<Sight>) -> Self {
        Self {
            offered: sight
                .as_ref()
                .map_or_else(BTreeSet::new, |sight| sight.read.clone()),
            there: None,
            last: sight,
        }
    }

    /// Takes the next answer; whether it differs from the one before, so that it is worth asking again soon.
    pub fn take(&mut self, sight: &Sight) -> bool {
        let Some(last) = self.last.replace(sight.clone()) else {
            return true;
        };
        let either: BTreeSet<String> = last.read.union(&sight.read).cloned().collect();
        let both = last.read.intersection(&sight.read);
        let kept = self.offered.intersection(&either);
        self.offered = kept.chain(both).cloned().collect();
        if last.whole && sight.whole {
            self.there = Some(either);
        } else if let Some(there) = &mut self.there {
            there.extend(sight.read.iter().cloned());
        }
        last != *sight
    }

    /// Those that may be given to replicas.
    pub fn offered(&self) -> &BTreeSet<String> {
        &self.offered
    }

    /// All that there are: any other is gone. None while nothing is certain.
    pub fn there(&self) -> Option<&BTreeSet<String>> {
        self.there.as_ref()
    }
}
