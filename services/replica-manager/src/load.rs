//! What is measured for scaling, in memory: samples of agents, and what users' gateways report. It
//! decides nothing, and forgets what is old.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::domain::scaling::Measure;
use crate::domain::service::Service;
use crate::domain::spec::Metric;
use crate::domain::time::Time;

/// A value older than this is forgotten.
pub(crate) const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// A replica that was not measured for so long is not waited for: several times what an agent lets pass
/// between two measurements.
const LATE_AFTER: Duration = Duration::from_secs(20);

/// Reporters counted per service: more are a mistake, or an attack on memory.
const MOST_REPORTERS: usize = 10_000;

/// What is measured. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loads(Arc<Mutex<FxHashMap<String, OfService>>>);

#[derive(Debug, Default)]
struct OfService {
    /// By reporter.
    reported: BTreeMap<String, Value>,
    /// By ordinal, of the attempt that ran then.
    sampled: BTreeMap<u32, Sampled>,
    /// What was last measured of all of them.
    round: Option<Measure>,
}

#[derive(Clone, Copy, Debug)]
struct Value {
    value: f64,
    at: Time,
}

/// A sample, and whether it was already part of a measure that was judged.
#[derive(Clone, Copy, Debug)]
struct Sampled {
    sample: Sample,
    counted: bool,
}

/// What an agent measured of one attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// When it was received, by our clock: what is forgotten is judged by it.
    pub(crate) at: Time,
    /// When it was taken, by the agent's clock, which tells it from others of the same agent only.
    pub(crate) taken: Time,
    pub(crate) metric: Option<f64>,
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) gpu_percent: Option<f64>,
}

impl Loads {
    /// Takes one reporter's gauge; answers the sum of all.
    pub(crate) fn report(&self, uid: &str, reporter: &str, value: f64, now: Time) -> Option<f64> {
        let mut all = self.lock();
        let of = all.entry(uid.to_owned()).or_default();
        of.reported
            .retain(|_, value| now.since(value.at) < FORGOTTEN_AFTER);
        if of.reported.len() >= MOST_REPORTERS && !of.reported.contains_key(reporter) {
            return None;
        }
        of.reported
            .insert(reporter.to_owned(), Value { value, at: now });
        Some(of.reported.values().map(|value| value.value).sum())
    }

    pub(crate) fn sample(&self, uid: &str, ordinal: u32, sample: Sample) {
        let mut all = self.lock();
        let sampled = &mut all.entry(uid.to_owned()).or_default().sampled;
        // One that another instance passed on may come after a newer one, and agents repeat their last. A clock
        // that was set back, or is another machine's, holds newer ones up only for as long as that can be.
        let fresh = |known: &Sample| {
            let overdue = sample.at.since(known.at) >= LATE_AFTER;
            known.taken < sample.taken || (known.taken != sample.taken && overdue)
        };
        if sampled
            .get(&ordinal)
            .is_none_or(|known| fresh(&known.sample))
        {
            let counted = false;
            sampled.insert(ordinal, Sampled { sample, counted });
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    pub(crate) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// What the service's policy asks to be measured, if any of it is fresh.
    pub(crate) fn measure(&self, service: &Service, now: Time) -> Option<Measure> {
        let metric = &service.spec().scaling.as_ref()?.metric;
        let mut all = self.lock();
        let of = all.get_mut(&service.header.uid)?;
        of.set_back(now);
        match metric {
            Metric::Load => of.reports(now),
            Metric::Prometheus(_) => of.samples(service, now, |sample| sample.metric),
            Metric::Cpu => of.samples(service, now, |sample| sample.cpu_percent),
            Metric::Gpu => of.samples(service, now, |sample| sample.gpu_percent),
        }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<String, OfService>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfService {
    /// What was measured at a time that is still to come, by a clock that was set back since, is as good as
    /// measured now.
    fn set_back(&mut self, now: Time) {
        let reported = self.reported.values_mut().map(|value| &mut value.at);
        let sampled = self.sampled.values_mut().map(|one| &mut one.sample.at);
        let round = self.round.iter_mut().map(|round| &mut round.at);
        for at in reported.chain(sampled).chain(round) {
            *at = (*at).min(now);
        }
    }

    fn reports(&self, now: Time) -> Option<Measure> {
        let fresh = self
            .reported
            .values()
            .filter(|value| now.since(value.at) < FORGOTTEN_AFTER);
        let at = fresh.clone().map(|value| value.at).max()?;
        Some(Measure {
            total: fresh.map(|value| value.value).sum(),
            at,
        })
    }

    /// The sum over ready replicas; those that cannot be measured count as the others' mean. It is another
    /// measure only once each of them was measured again: one odd sample is part of one measure, however
    /// many replicas are measured before that one is again, and one that has just become ready is not taken
    /// to have as much to do as those that it is to help.
    fn samples(
        &mut self,
        service: &Service,
        now: Time,
        read: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<Measure> {
        let (mut values, mut measured) = (Vec::new(), Vec::new());
        let (mut news, mut waits) = (false, false);
        for replica in service.replicas.values().filter(|replica| replica.ready()) {
            let sampled = self.sampled.get(&replica.ordinal);
            let fresh = sampled.filter(|one| now.since(one.sample.at) < FORGOTTEN_AFTER);
            match fresh.and_then(|one| Some((one, read(&one.sample)?))) {
                Some((one, value)) => {
                    values.push(value);
                    measured.push(replica.ordinal);
                    news |= !one.counted;
                    waits |= one.counted && now.since(one.sample.at) < LATE_AFTER;
                }
                None => waits |= now.since(replica.since) < LATE_AFTER,
            }
        }
        if values.is_empty() {
            return None;
        }
        if news && !waits {
            let known = f64::from(u32::try_from(values.len()).ok()?);
            let mean = values.iter().sum::<f64>() / known;
            self.round = Some(Measure {
                total: mean * f64::from(service.ready()),
                at: now,
            });
            for ordinal in measured {
                if let Some(one) = self.sampled.get_mut(&ordinal) {
                    one.counted = true;
                }
            }
        }
        self.round
    }
}

#[cfg(test)]
mod tests;
