//! Tells whether an event loop makes progress: a pulse beats on it, and someone elsewhere listens.
//! A process whose loop is stuck cannot say so itself, which is why the listener belongs on a
//! thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Health;

/// How often the pulse beats.
const BEAT: Duration = Duration::from_millis(250);

/// How often the listener listens.
const LISTEN: Duration = Duration::from_secs(1);

/// Silent for this long, the loop counts as stalled.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// The pulse of one event loop.
#[derive(Debug, Clone)]
pub struct Pulse {
    since: Instant,
    /// The last beat, in milliseconds after `since`.
    last: Arc<AtomicU64>,
}

impl Pulse {
    /// A pulse that has beaten just now.
    pub fn new() -> Self {
        Self {
            since: Instant::now(),
            last: Arc::default(),
        }
    }

    /// Beats for ever, on the event loop that this is polled on.
    pub async fn beat(self) {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last.store(now, Ordering::Relaxed);
        }
    }

    /// Listens for ever and tells `health`, from another thread than the pulse's if it can.
    pub async fn listen(self, health: Health) {
        let mut turns = interval(LISTEN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stalled = false;
        loop {
            turns.tick().await;
            let silent = self.silence();
            if silent > STALLED_AFTER {
                stalled = true;
                health.stalled(Some(&format!("no progress for {} s", silent.as_secs())));
            } else if std::mem::take(&mut stalled) {
                health.stalled(None);
            }
            health.review();
        }
    }

    fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(last)
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}
