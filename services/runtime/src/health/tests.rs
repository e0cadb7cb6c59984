use std::sync::atomic::Ordering;

use super::poll::Pace;
use super::stall::Pulse;
use super::*;
use crate::shutdown::{Cause, Shutdown};
use crate::task::Tasks;

fn health() -> Health {
    let health = Health::new(Clock::starting_at(SystemTime::UNIX_EPOCH));
    health.serve("a.Service");
    health
}

fn found(health: &Health, name: &str) -> (Found, String) {
    let report = health.report();
    let check = report
        .checks
        .into_iter()
        .find(|check| check.name == name)
        .unwrap();
    (check.found, check.detail)
}

#[tokio::test]
async fn it_starts_live_and_not_ready() {
    let health = health();
    for name in ["", "readiness", "a.Service"] {
        assert_eq!(health.of(name), Some(false), "{name}");
    }
    assert_eq!(health.of("liveness"), Some(true));
    assert_eq!(health.of("other.Service"), None);
    health.started();
    assert_eq!(health.of("a.Service"), Some(true));
}

#[tokio::test]
async fn core_checks_gate_readiness_and_auxiliary_ones_do_not() {
    let health = health();
    health.started();
    let store = health.check("store", Tier::Core);
    assert!(!health.is_ready(), "a core check that has not reported");
    store.ok("");
    assert!(health.is_ready());
    let peer = health.check("peer", Tier::Auxiliary);
    peer.failed("away");
    assert!(health.is_ready() && health.report().degraded);
    store.failed("disk full");
    assert!(!health.is_ready() && health.is_live());
    assert_eq!(
        found(&health, "store"),
        (Found::Failed, "disk full".to_owned())
    );
    health.forget("store");
    assert!(health.is_ready());
}

#[tokio::test]
async fn maintenance_and_stopping_take_readiness_and_leave_liveness() {
    let health = health();
    health.started();
    health.maintenance(Some("disk swap"));
    assert!(!health.is_ready() && health.is_live());
    health.maintenance(None);
    assert!(health.is_ready());
    health.stopping();
    assert!(!health.is_ready() && health.is_live());
}

#[tokio::test]
async fn a_stalled_loop_takes_both_and_gives_them_back() {
    let health = health();
    health.started();
    health.stalled(Some("no progress for 6 s"));
    assert!(!health.is_ready() && !health.is_live());
    health.stalled(None);
    assert!(health.is_ready() && health.is_live());
}

#[tokio::test(start_paused = true)]
async fn since_tells_when_the_finding_changed_last() {
    let health = health();
    let check = health.check("peer", Tier::Auxiliary);
    check.ok("one");
    tokio::time::advance(Duration::from_secs(60)).await;
    check.ok("two");
    let report = health.report();
    let peer = report
        .checks
        .iter()
        .find(|check| check.name == "peer")
        .unwrap();
    assert_eq!(
        (peer.since, peer.detail.as_str()),
        (SystemTime::UNIX_EPOCH, "two")
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_check_becomes_stuck() {
    let health = health();
    health.started();
    let check = health.check("store", Tier::Core);
    check.expires(Duration::from_secs(10));
    check.ok("");
    tokio::time::advance(Duration::from_secs(11)).await;
    health.review();
    assert!(!health.is_ready());
    assert_eq!(found(&health, "store").0, Found::Stuck);
    check.ok("");
    assert!(health.is_ready());
}

#[tokio::test(start_paused = true)]
async fn polled_checks_time_out_one_at_a_time_and_recover() {
    let (health, shutdown) = (health(), Shutdown::new());
    let tasks = Tasks::new(shutdown.clone());
    let (asked, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let pace = Pace {
        every: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
    };
    let (count, now_open) = (asked.clone(), open.clone());
    poll::start(
        &health,
        &tasks,
        &shutdown,
        ("peer", Tier::Auxiliary, pace),
        move || {
            let (turn, open) = (count.fetch_add(1, Ordering::Relaxed), now_open.clone());
            async move {
                let _one = Open::new(&open);
                match turn {
                    0 => Ok("fast".to_owned()),
                    1 => std::future::pending().await,
                    2 => Err("refused".to_owned()),
                    3 => panic!("bad peer"),
                    _ => Ok("back".to_owned()),
                }
            }
        },
    );
    let seen = async |after: u64| {
        tokio::time::sleep(Duration::from_secs(after)).await;
        assert!(open.load(Ordering::Relaxed) <= 1);
        found(&health, "peer")
    };
    assert_eq!(seen(1).await, (Found::Ok, "fast".to_owned()));
    assert_eq!(seen(7).await.0, Found::Stuck);
    assert_eq!(seen(5).await, (Found::Failed, "refused".to_owned()));
    assert_eq!(seen(5).await.1, "panicked: bad peer");
    assert_eq!(seen(5).await, (Found::Ok, "back".to_owned()));
    shutdown.begin(Cause::asked("test"));
    tasks.ended().await;
    assert_eq!(asked.load(Ordering::Relaxed), 5);
}

/// Counts questions that are open.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn a_stuck_loop_is_seen_from_another_thread() {
    let paused = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let listener = paused();
    listener.block_on(async {
        let health = health();
        health.started();
        let pulse = Pulse::new();
        let (stuck, beating) = (pulse.clone(), pulse.clone());
        let listening = crate::task::spawn(pulse.listen(health.clone()));
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert!(!health.is_live(), "nothing beats");
        drop(stuck);
        let beats = crate::task::spawn(beating.beat());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(health.is_live() && health.is_ready(), "it beats");
        beats.abort();
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert!(!health.is_live(), "it has stopped");
        assert!(found(&health, "event-loop").1.contains("no progress"));
        listening.abort();
    });
}
