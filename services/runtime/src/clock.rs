//! The one clock of a process: wall time that moves with `tokio::time::Instant`, so that a test
//! which pauses and advances tokio's time moves both. It never sleeps; timers are tokio's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Tells the wall time. Cheap to clone; clones share one anchor.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Anchor>);

#[derive(Debug)]
struct Anchor {
    instant: Instant,
    /// Wall time at `instant`, in nanoseconds since the Unix epoch.
    wall_nanos: AtomicU64,
}

impl Clock {
    /// Anchored to the machine's wall time now.
    pub fn system() -> Self {
        Self::starting_at(machine_time())
    }

    /// Shows `wall` now and moves on from there: for tests and simulations.
    pub fn starting_at(wall: SystemTime) -> Self {
        Self(Arc::new(Anchor {
            instant: Instant::now(),
            wall_nanos: AtomicU64::new(nanos_since_epoch(wall)),
        }))
    }

    /// The wall time.
    pub fn now(&self) -> SystemTime {
        self.started() + self.uptime()
    }

    /// The wall time at which the clock was made.
    pub fn started(&self) -> SystemTime {
        let anchor = Duration::from_nanos(self.0.wall_nanos.load(Ordering::Relaxed));
        SystemTime::UNIX_EPOCH + anchor
    }

    /// Time passed since the clock was made; never goes backwards.
    pub fn uptime(&self) -> Duration {
        self.0.instant.elapsed()
    }

    /// The wall time at `instant`.
    pub fn wall_at(&self, instant: Instant) -> SystemTime {
        let now = Instant::now();
        match instant.checked_duration_since(now) {
            Some(ahead) => self.now() + ahead,
            None => self.now() - now.saturating_duration_since(instant),
        }
    }

    /// Follows the machine's wall clock again, after it was set or the machine slept. The process
    /// wrapper calls this now and then; tests that pause time never do.
    pub fn resync(&self) {
        let wall = nanos_since_epoch(machine_time());
        let passed = u64::try_from(self.0.instant.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0
            .wall_nanos
            .store(wall.saturating_sub(passed), Ordering::Relaxed);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the machine's wall clock"
)]
fn machine_time() -> SystemTime {
    SystemTime::now()
}

fn nanos_since_epoch(wall: SystemTime) -> u64 {
    wall.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn wall_time_moves_with_paused_timers() {
        let clock = Clock::starting_at(SystemTime::UNIX_EPOCH + HOUR);
        let before = clock.now();
        tokio::time::sleep(HOUR).await;
        assert_eq!(clock.now().duration_since(before).unwrap(), HOUR);
        assert_eq!(clock.uptime(), HOUR);
    }

    #[tokio::test(start_paused = true)]
    async fn instants_have_a_wall_time_before_and_after_now() {
        let clock = Clock::starting_at(SystemTime::UNIX_EPOCH + HOUR);
        tokio::time::advance(HOUR).await;
        let now = Instant::now();
        assert_eq!(clock.wall_at(now), clock.now());
        assert_eq!(clock.wall_at(now + HOUR), clock.now() + HOUR);
        assert_eq!(clock.wall_at(now - HOUR), clock.now() - HOUR);
    }

    #[tokio::test]
    async fn resync_returns_to_the_machine_time() {
        let clock = Clock::starting_at(SystemTime::UNIX_EPOCH);
        clock.resync();
        let (shown, wall) = (clock.now(), machine_time());
        let gap = shown
            .duration_since(wall)
            .or_else(|_| wall.duration_since(shown))
            .unwrap();
        assert!(gap < Duration::from_secs(1), "{gap:?}");
    }
}
