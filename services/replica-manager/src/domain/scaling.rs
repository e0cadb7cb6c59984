//! How many replicas the load asks for. It never writes the spec, and knows nothing of failures.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::spec::{Count, Scaling};
use super::time::Time;

/// What was measured of a service.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// The metric, summed over what was measured.
    pub total: f64,
    /// When it was complete; an earlier one, or the same, is no news.
    pub at: Time,
}

/// What the autoscaler remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Autoscaler {
    /// The number that it asks for; `None` before the first measure.
    pub desired: Option<u32>,
    /// The change that waits for its delay.
    pub pending: Option<Pending>,
    /// What was judged last.
    pub measure: Option<Measure>,
}

/// A change that waits for its delay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// The number that it would come to.
    pub number: u32,
    /// When the need arose.
    pub since: Time,
    /// Measures in a row that spoke against it.
    pub against: u32,
}

/// Measures in a row that call a pending change off: one alone may be odd.
const CALLED_OFF_BY: u32 = 2;

impl Autoscaler {
    /// The autoscaler after a measure; the same one if it was judged before. A change comes into effect by a
    /// measure that still asks for it after its delay: time alone changes nothing.
    #[must_use]
    pub fn judge(&self, scaling: &Scaling, bounds: Count, measure: Measure, now: Time) -> Self {
        let mut next = self.clone();
        if self.measure.is_some_and(|judged| measure.at <= judged.at) {
            return next;
        }
        let current = self
            .desired
            .unwrap_or(bounds.min)
            .clamp(bounds.min, bounds.max);
        next.measure = Some(measure);
        let asked = asked(measure.total, scaling.target, bounds);
        if current == 0 && asked > 0 {
            // Nothing serves: there is no reason to wait.
            next.desired = Some(asked);
            next.pending = None;
            return next;
        }
        next.pending = weigh(self.pending, current, asked, now);
        if let Some(pending) = next.pending
            && now.since(pending.since) >= delay(scaling, current, pending.number)
            && pending.against == 0
        {
            next.desired = Some(pending.number.clamp(bounds.min, bounds.max));
            next.pending = None;
        }
        next.desired = next.desired.or(Some(current));
        next
    }

    /// When a pending change comes into effect, at the earliest, if nothing speaks against it.
    #[must_use]
    pub fn due(&self, scaling: &Scaling, bounds: Count) -> Option<Time> {
        let pending = self.pending.filter(|pending| pending.against == 0)?;
        let current = self.desired.unwrap_or(bounds.min);
        Some(pending.since + delay(scaling, current, pending.number))
    }
}

fn delay(scaling: &Scaling, current: u32, number: u32) -> Duration {
    if number > current {
        scaling.up_delay
    } else {
        scaling.down_delay
    }
}

/// The number of replicas that have `target` each of the total.
fn asked(total: f64, target: f64, bounds: Count) -> u32 {
    let mut number = bounds.min;
    while number < bounds.max && f64::from(number) * target < total {
        number += 1;
    }
    number
}

/// What waits after one more measure. The delay counts from when the need arose; the number is the
/// latest asked for on the way up, and the most asked for on the way down.
fn weigh(pending: Option<Pending>, current: u32, asked: u32, now: Time) -> Option<Pending> {
    let fresh = (asked != current).then_some(Pending {
        number: asked,
        since: now,
        against: 0,
    });
    let Some(before) = pending.filter(|pending| pending.number != current) else {
        return fresh;
    };
    let up = before.number > current;
    if (up && asked > current) || (!up && asked < current) {
        let number = if up { asked } else { asked.max(before.number) };
        return Some(Pending {
            number,
            since: before.since,
            against: 0,
        });
    }
    if before.against + 1 >= CALLED_OFF_BY {
        return fresh;
    }
    Some(Pending {
        against: before.against + 1,
        ..before
    })
}

#[cfg(test)]
mod tests;
