//! A timing wheel: what is due by now, at a cost that does not grow with what is not.
//!
//! One turn of slots, each as long as a tick. What is due later than a turn stays in its slot and is
//! passed over, one comparison a turn.

use std::time::Duration;

use super::Moment;

/// Slots of a turn: with ticks of a hundredth of what is waited for, few entries are passed over.
const SLOTS: usize = 1024;

/// Items by when they are due.
#[derive(Clone, Debug)]
pub struct Wheel<T> {
    tick: Duration,
    /// The tick up to which everything was taken.
    taken: u64,
    slots: Vec<Vec<(u64, T)>>,
    length: usize,
}

impl<T> Wheel<T> {
    /// An empty wheel whose items are late by at most `tick`, which is over zero.
    pub fn new(tick: Duration, now: Moment) -> Self {
        let tick = tick.max(Duration::from_micros(1));
        Self {
            tick,
            taken: whole(now, tick),
            slots: std::iter::repeat_with(Vec::new).take(SLOTS).collect(),
            length: 0,
        }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds an item that is due then: it is taken at the first tick that is not before.
    pub fn insert(&mut self, at: Moment, item: T) {
        let exact = at.as_nanos().is_multiple_of(self.tick.as_nanos());
        let due = whole(at, self.tick) + u64::from(!exact);
        let due = due.max(self.taken + 1);
        self.slots[slot(due)].push((due, item));
        self.length += 1;
    }

    /// Takes what is due by now, oldest ticks first.
    pub fn advance(&mut self, now: Moment) -> Vec<T> {
        let until = whole(now, self.tick);
        let mut due: Vec<(u64, T)> = Vec::new();
        if until <= self.taken {
            return Vec::new();
        }
        // After a long pause every slot is looked at once, not once a tick.
        let first = (self.taken + 1).max(until.saturating_sub(SLOTS as u64 - 1));
        for tick in first..=until {
            let entries = &mut self.slots[slot(tick)];
            due.extend(entries.extract_if(.., |(at, _)| *at <= until));
            if entries.is_empty() {
                // Without the room that the most who ever came together took.
                *entries = Vec::new();
            }
        }
        self.taken = until;
        self.length -= due.len();
        due.sort_by_key(|(at, _)| *at);
        due.into_iter().map(|(_, item)| item).collect()
    }
}

fn whole(at: Moment, tick: Duration) -> u64 {
    u64::try_from(at.as_nanos() / tick.as_nanos()).unwrap_or(u64::MAX)
}

fn slot(tick: u64) -> usize {
    // The remainder is below `SLOTS`, which a usize holds.
    usize::try_from(tick % SLOTS as u64).unwrap_or(0)
}
