//! How long to wait before the next try: exponential, bounded, with jitter hashed from a seed, so
//! that the same seed and attempt always give the same delay. It never sleeps and draws no
//! randomness.

use std::time::Duration;

#[cfg(test)]
mod tests;

/// The shape of the delays between tries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Before the first retry.
    pub initial: Duration,
    /// The longest delay, jitter included.
    pub max: Duration,
    /// Each delay is this many times the one before; 1 keeps them equal.
    pub factor: f64,
    /// The part of a delay that the seed decides, 0 to 1: with 0.5, a delay of 4 s becomes one
    /// between 2 s and 4 s.
    pub jitter: f64,
}

impl Policy {
    /// From `initial` doubling up to `max`, half of each delay jittered.
    pub const fn doubling(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            factor: 2.0,
            jitter: 0.5,
        }
    }

    /// The delay before retry number `retry`, counted from 0. Different seeds spread callers that
    /// failed together.
    pub fn delay(&self, retry: u32, seed: u64) -> Duration {
        let exponent = f64::from(retry.min(1_000));
        let whole = self.initial.as_secs_f64() * self.factor.max(1.0).powf(exponent);
        let bounded = whole.min(self.max.as_secs_f64());
        let kept = 1.0 - self.jitter.clamp(0.0, 1.0) * unit(seed, u64::from(retry));
        Duration::from_secs_f64(bounded * kept)
    }
}

/// The delays of one series of tries.
#[derive(Debug, Clone)]
pub struct Backoff {
    policy: Policy,
    seed: u64,
    retry: u32,
}

impl Backoff {
    /// A series that has not begun.
    pub fn new(policy: Policy, seed: u64) -> Self {
        Self {
            policy,
            seed,
            retry: 0,
        }
    }

    /// The delay before the next try; each call counts one failure.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.policy.delay(self.retry, self.seed);
        self.retry = self.retry.saturating_add(1);
        delay
    }

    /// Failures counted since the start or the last [`Backoff::reset`].
    pub fn failures(&self) -> u32 {
        self.retry
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        self.retry = 0;
    }
}

/// A seed from whatever names the caller: the same text gives the same seed, on every machine and
/// in every version.
pub fn seed(text: &str) -> u64 {
    crate::check::hash(text.as_bytes())
}

/// A number in [0, 1) that depends on nothing but `seed` and `index`.
pub fn unit(seed: u64, index: u64) -> f64 {
    // The finaliser of splitmix64, which turns neighbours into strangers.
    let mut mixed = seed ^ index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    // 32 bits are plenty for a delay, and convert to f64 without loss.
    let top = u32::try_from(mixed >> 32).unwrap_or(u32::MAX);
    f64::from(top) / 4_294_967_296.0
}
