//! Names events so that their ids sort as they happened, across restarts and instances too: each comes
//! after every one that was known here when it happened, whatever the clocks say.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::time::Time;
use crate::state::keys;

/// Characters of an instance's id that tell it from the others.
const SHORT: usize = 8;

/// Gives each batch of events its place.
#[derive(Debug)]
pub(crate) struct Journal {
    epoch: String,
    /// What ends the ids of this instance; empty where there is one only.
    mark: String,
    last: AtomicU64,
}

impl Journal {
    /// Of the only instance.
    pub(crate) fn new(epoch: String) -> Self {
        Self {
            epoch,
            mark: String::new(),
            last: AtomicU64::new(0),
        }
    }

    /// Of one instance among several, which may come to the same place in the same microsecond.
    pub(crate) fn of_several(epoch: String, instance: &str) -> Self {
        let short: String = instance.chars().take(SHORT).collect();
        Self {
            mark: format!("-{short}"),
            ..Self::new(epoch)
        }
    }

    /// The id of the next batch: later than every one before, even if the clock went back.
    pub(crate) fn next(&self, now: Time) -> String {
        let place = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(now.micros().max(last + 1))
            });
        let place = now.micros().max(place.unwrap_or_default() + 1);
        format!("{}-{place:016x}{}", self.epoch, self.mark)
    }

    /// The batch with this key is there: what is named from now on comes after it.
    pub(crate) fn follow(&self, key: &str) {
        let id = key.strip_prefix(keys::EVENTS).unwrap_or(key);
        let rest = id.strip_prefix(&self.epoch);
        let place = rest.and_then(|rest| rest.get(1..17));
        if let Some(place) = place.and_then(|place| u64::from_str_radix(place, 16).ok()) {
            self.last.fetch_max(place, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ids_follow_what_is_known_whatever_the_clock_says() {
        let at = |second| Time::default() + Duration::from_secs(second);
        let (here, there) = ("0123456789abcdef", "fedcba9876543210");
        let ahead = Journal::of_several("e-1".to_owned(), there);
        let behind = Journal::of_several("e-1".to_owned(), here);
        let known = ahead.next(at(50));
        behind.follow(&format!("{}{known}", keys::EVENTS));
        let later = behind.next(at(20));
        assert!(later > known, "{later} after {known}");
        assert!(behind.next(at(20)) > later);
        behind.follow("event/of another epoch");
        assert_ne!(
            Journal::of_several("e-1".to_owned(), here).next(at(1)),
            Journal::of_several("e-1".to_owned(), there).next(at(1)),
        );
    }
}
