//! When a failed call may be made again. Pure: it neither waits nor calls.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The first words of methods that only read, or that say again what is already so.
const PREFIXES: [&str; 8] = [
    "Check",
    "Describe",
    "Explain",
    "Fetch",
    "Get",
    "Heartbeat",
    "List",
    "Watch",
];

/// The methods that may be called twice with the effect of once.
#[derive(Debug, Clone, Default)]
pub struct Idempotent {
    also: BTreeSet<String>,
}

impl Idempotent {
    /// Besides those whose first word says so (Check, Describe, Explain, Fetch, Get, Heartbeat,
    /// List, Watch): `method`, by its bare name, such as `ReportDrain`.
    pub fn and(mut self, method: impl Into<String>) -> Self {
        self.also.insert(method.into());
        self
    }

    pub(super) fn includes(&self, method: &str) -> bool {
        PREFIXES
            .iter()
            .any(|prefix| begins_with_word(method, prefix))
            || self.also.contains(method)
    }
}

/// Whether the CamelCase `name` begins with the whole word `word`.
pub(super) fn begins_with_word(name: &str, word: &str) -> bool {
    name.strip_prefix(word)
        .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_lowercase()))
}

/// Bounds the repetitions of all calls of a channel together, so that a peer in trouble gets
/// hardly more calls than without them: one for every ten calls that went well, one a second, and
/// a few in store.
#[derive(Debug)]
pub(super) struct Budget {
    left: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    tenths: u32,
    counted_to: Instant,
}

/// Repetitions in store at most, in tenths.
const STORE: u32 = 100;

/// What a repetition costs, and what a second gives, in tenths.
const COST: u32 = 10;

impl Budget {
    pub(super) fn full(now: Instant) -> Self {
        Self {
            left: Mutex::new(Left {
                tenths: STORE,
                counted_to: now,
            }),
        }
    }

    /// A call went well.
    pub(super) fn deposit(&self) {
        let mut left = self.lock();
        left.tenths = STORE.min(left.tenths + 1);
    }

    /// Takes one repetition, if there is one.
    pub(super) fn withdraw(&self, now: Instant) -> bool {
        let mut left = self.lock();
        let seconds = now.saturating_duration_since(left.counted_to).as_secs();
        left.counted_to += Duration::from_secs(seconds);
        let gained = u32::try_from(seconds).unwrap_or(STORE).saturating_mul(COST);
        left.tenths = STORE.min(left.tenths.saturating_add(gained));
        match left.tenths.checked_sub(COST) {
            Some(rest) => {
                left.tenths = rest;
                true
            }
            None => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The delay before the next try: ours, or the peer's wish if that is longer; `None` if the peer
/// wants more than `longest`.
pub(super) fn delay(ours: Duration, wish: Option<Duration>, longest: Duration) -> Option<Duration> {
    let delay = ours.max(wish.unwrap_or_default());
    (wish.is_none() || delay <= longest).then_some(delay)
}
