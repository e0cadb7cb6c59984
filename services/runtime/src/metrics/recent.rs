//! How long calls took of late, for a quantile that people can read without Prometheus. Counts go
//! into buckets that grow by a quarter, in two halves of a minute; a reader sees the last half
//! minute to minute.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// From under 1 us to over an hour in steps of a quarter of an octave.
const BUCKETS: usize = 4 * 32;

const HALF: Duration = Duration::from_secs(30);

/// Times of late. Shared by many writers; counts may be off by a few at the turn of a half.
#[derive(Debug)]
pub(crate) struct Recent {
    since: Instant,
    halves: [Half; 2],
}

#[derive(Debug)]
struct Half {
    /// The number of the half minute that the counts are of.
    turn: AtomicU64,
    counts: [AtomicU32; BUCKETS],
}

impl Default for Recent {
    fn default() -> Self {
        let half = || Half {
            turn: AtomicU64::new(0),
            counts: [const { AtomicU32::new(0) }; BUCKETS],
        };
        Self {
            since: Instant::now(),
            halves: [half(), half()],
        }
    }
}

impl Recent {
    /// A call took `took`.
    pub(crate) fn observe(&self, took: Duration) {
        let turn = self.turn();
        let half = &self.halves[usize::from(turn % 2 == 1)];
        // Read first: most calls need not take the line away from other processors.
        if half.turn.load(Ordering::Relaxed) != turn
            && half.turn.swap(turn, Ordering::Relaxed) != turn
        {
            for count in &half.counts {
                count.store(0, Ordering::Relaxed);
            }
        }
        half.counts[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// The time that a share of `quantile` (0 to 1) of the calls did not exceed; `None` without
    /// calls. At most a quarter too high.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<Duration> {
        let turn = self.turn();
        let fresh = self
            .halves
            .iter()
            .filter(|half| half.turn.load(Ordering::Relaxed) + 1 >= turn);
        let mut counts = [0_u64; BUCKETS];
        for half in fresh {
            for (sum, count) in counts.iter_mut().zip(&half.counts) {
                *sum += u64::from(count.load(Ordering::Relaxed));
            }
        }
        let total: u64 = counts.iter().sum();
        let mut seen = 0;
        counts
            .iter()
            .position(|count| {
                seen += count;
                // Exact far beyond any number of calls in a minute.
                #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
                let reached = seen as f64 >= quantile * total as f64;
                reached && seen > 0
            })
            .map(upper_bound)
    }

    fn turn(&self) -> u64 {
        self.since.elapsed().as_secs() / HALF.as_secs()
    }
}

/// The bucket of a time: its octave in microseconds, and the quarter of that.
fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = micros.ilog2();
    let quarter = ((micros << 2) >> octave) & 3;
    let index = u64::from(octave) * 4 + quarter;
    usize::try_from(index)
        .unwrap_or(usize::MAX)
        .min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> Duration {
    let (octave, quarter) = (bucket / 4, u64::try_from(bucket % 4).unwrap_or(0));
    let micros = ((5 + quarter) << octave) >> 2;
    Duration::from_micros(micros.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn quantiles_are_near_and_forget() {
        let recent = Recent::default();
        assert_eq!(recent.quantile(0.99), None);
        for micros in 1..=1_000 {
            recent.observe(Duration::from_micros(micros));
        }
        for (quantile, micros) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = recent.quantile(quantile).unwrap().as_secs_f64() * 1e6;
            assert!(
                (micros..=micros * 1.26).contains(&found),
                "{quantile}: {found} us"
            );
        }
        tokio::time::advance(HALF).await;
        assert!(recent.quantile(0.5).is_some());
        tokio::time::advance(2 * HALF).await;
        assert_eq!(recent.quantile(0.5), None);
    }

    #[test]
    fn any_time_has_a_bucket_that_holds_it() {
        for micros in [
            0,
            1,
            2,
            3,
            7,
            8,
            1_023,
            1_024,
            1_025,
            999_999,
            86_400_000_000,
        ] {
            let took = Duration::from_micros(micros);
            let bucket = bucket(took);
            let held = bucket == BUCKETS - 1 || upper_bound(bucket) >= took;
            assert!(held, "{micros}: {:?}", upper_bound(bucket));
        }
    }
}
