//! The registry's own stalls, taken out of the time by which it judges others.
//!
//! A process that was stopped, swapped out or starved heard nobody meanwhile; who was silent then may have
//! called all along. Observed time moves at most one step past the last tick, so that it stands still
//! while nobody ticks.

use std::time::Duration;

use super::Moment;

/// Turns the machine's monotonic time into observed time.
#[derive(Clone, Copy, Debug)]
pub struct Observer {
    /// The longest that passes between ticks of a process that runs well.
    step: Duration,
    /// Observed time at the last tick.
    moment: Moment,
    /// Monotonic time at the last tick.
    ticked: Duration,
}

impl Observer {
    /// Observed time begins at zero, at this monotonic time.
    pub fn new(step: Duration, now: Duration) -> Self {
        Self {
            step,
            moment: Moment::ZERO,
            ticked: now,
        }
    }

    /// Observed time at a monotonic time.
    pub fn moment(&self, now: Duration) -> Moment {
        self.moment + now.saturating_sub(self.ticked).min(self.step)
    }

    /// Ticks. Answers how long the registry stood still, if it did.
    pub fn tick(&mut self, now: Duration) -> Option<Duration> {
        let passed = now.saturating_sub(self.ticked);
        self.moment = self.moment(now);
        self.ticked = self.ticked.max(now);
        passed
            .checked_sub(self.step)
            .filter(|stall| !stall.is_zero())
    }
}
