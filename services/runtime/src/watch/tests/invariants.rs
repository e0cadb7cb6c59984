//! All promises together: writers, readers fast and slow, reconnects, in any interleaving.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;

use super::follower::{Follower, Record, Sight, State};
use super::*;
use crate::backoff;

/// The store of the test: hands out revisions, and publishes them in order.
struct Writer {
    hub: Hub<Thing>,
    truth: Mutex<(u64, State)>,
    record: Mutex<Record>,
}

/// A number below `below` that depends on nothing but `seed` and `index`.
fn draw(seed: u64, index: u64, below: u64) -> u64 {
    backoff::seed(&format!("{seed} {index}")) % below
}

impl Writer {
    fn new(options: Options) -> Self {
        Self {
            hub: hub_with(0, 0, options),
            truth: Mutex::default(),
            record: Mutex::default(),
        }
    }

    /// One transaction of some changes that follow from `seed`.
    fn write(&self, seed: u64) {
        let mut truth = self.truth.lock().unwrap();
        let (revision, state) = &mut *truth;
        *revision += 1;
        let draw = |index, below| draw(seed, index, below);
        let mut updates = Vec::new();
        for index in 0..draw(0, 4) {
            let name = format!("t{}", draw(10 + index, 30));
            if draw(20 + index, 4) == 0 {
                state.remove(&name);
                updates.push(Update::delete(name.as_str()));
            } else {
                let group = draw(30 + index, 3);
                // A resource appears once in a transaction, as in a store.
                if updates
                    .iter()
                    .any(|update: &Update<Thing>| *update.key == name)
                {
                    continue;
                }
                let new = Thing {
                    group,
                    ..thing(&name, *revision)
                };
                state.insert(name.clone(), new.clone());
                updates.push(Update::put(name.as_str(), new));
            }
        }
        self.record.lock().unwrap().note(*revision, state.clone());
        assert!(self.hub.publish(*revision, updates));
    }

    fn observe(&self, seed: u64) {
        let name = format!("t{}", draw(seed, 1, 30));
        self.hub.observe(&name, |thing| {
            Some(Thing {
                mood: seed,
                ..thing.clone()
            })
        });
    }

    /// Until so many revisions more are written, or none is any more.
    async fn go_on(&self, revisions: u64, done: &AtomicBool) {
        let until = self.truth().0 + revisions;
        while self.truth().0 < until && !done.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// The newest revision, and the facts of each thing then.
    fn truth(&self) -> (u64, State) {
        self.truth.lock().unwrap().clone()
    }
}

/// Reads until `done`, then to the newest revision; counts how often it had to begin anew.
async fn follow(writer: Arc<Writer>, number: u64, done: Arc<AtomicBool>, cuts: Arc<AtomicUsize>) {
    let sights = [
        Sight::All,
        Sight::Group(0),
        Sight::Prefix("t1"),
        Sight::Prefix("t17"),
    ];
    let mut follower = Follower::new(sights[usize::try_from(number % 4).unwrap()]);
    let mut step = 0;
    loop {
        let mut watch = match writer.hub.watch(&follower.token, follower.filter()) {
            Ok(watch) => watch,
            Err(status) => {
                assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
                cuts.fetch_add(1, Ordering::Relaxed);
                follower.start_over();
                continue;
            }
        };
        loop {
            step += 1;
            let draw = backoff::unit(number, step);
            if draw < 0.02 && number.is_multiple_of(2) {
                break; // the connection is lost
            }
            if draw > 0.9 && number.is_multiple_of(5) {
                writer.go_on(100, &done).await; // a slow reader
            }
            match timeout(Duration::from_millis(50), watch.next()).await {
                Ok(Some(Ok(message))) => follower.take(message, &writer.record),
                Ok(Some(Err(status))) => {
                    let code = status.code();
                    assert!(
                        matches!(code, Code::OutOfRange | Code::ResourceExhausted),
                        "{status:?}"
                    );
                    cuts.fetch_add(1, Ordering::Relaxed);
                    if code == Code::OutOfRange {
                        follower.start_over();
                    }
                    break;
                }
                Ok(None) => panic!("a watch ends with a status"),
                Err(_) if done.load(Ordering::Relaxed) => {
                    return finish(&writer, &follower);
                }
                Err(_) => {}
            }
        }
        follower.disconnect();
    }
}

/// Nothing more came: the follower has everything.
fn finish(writer: &Writer, follower: &Follower) {
    let (_, truth) = writer.truth();
    let mut expected: Vec<_> = truth.into_values().collect();
    expected.retain(|thing| follower.sight.sees(thing));
    let held: Vec<_> = follower
        .state
        .values()
        .map(|thing| (&thing.name, thing.version))
        .collect();
    let there: Vec<_> = expected
        .iter()
        .map(|thing| (&thing.name, thing.version))
        .collect();
    assert_eq!(held, there);
    // In-memory facts as well: the hub's own state has the latest.
    for thing in follower.state.values() {
        writer.hub.observe(&thing.name, |latest| {
            assert_eq!(latest.mood, thing.mood, "{}", thing.name);
            None
        });
    }
}

async fn run(options: Options, pause: Duration, writes: u64) -> usize {
    let writer = Arc::new(Writer::new(options));
    let done = Arc::new(AtomicBool::new(false));
    let cuts = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..30 {
        tasks.spawn(follow(
            Arc::clone(&writer),
            number,
            Arc::clone(&done),
            Arc::clone(&cuts),
        ));
    }
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..3 {
        let writer = Arc::clone(&writer);
        writers.spawn(async move {
            for index in 0..writes {
                writer.write(number * 1_000_000 + index);
                writer.observe(number * 2_000_000 + index);
                match index % 16 {
                    0 => sleep(pause).await,
                    _ => tokio::task::yield_now().await,
                }
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    cuts.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_holds_under_concurrent_writers() {
    let cuts = run(Options::default(), Duration::from_millis(1), 3_000).await;
    assert_eq!(cuts, 0, "nobody was so slow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_holds_for_those_that_are_cut_off() {
    let options = Options {
        history_revisions: 40,
        chunk: 5,
        ..Options::default()
    };
    let cuts = run(options, Duration::from_millis(1), 2_000).await;
    assert!(cuts > 0, "the history was short enough to lose some");
}

/// What one reader and one writer do, step by step.
#[derive(Debug, Clone)]
enum Step {
    Write(u64),
    Observe(u64),
    Read,
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => any::<u64>().prop_map(Step::Write),
        2 => any::<u64>().prop_map(Step::Observe),
        4 => Just(Step::Read),
        1 => Just(Step::Reconnect),
    ];
    prop::collection::vec(step, 0..120)
}

fn sights() -> impl Strategy<Value = Sight> {
    prop_oneof![
        Just(Sight::All),
        (0_u64..3).prop_map(Sight::Group),
        Just(Sight::Prefix("t1")),
        Just(Sight::Prefix("t17")),
    ]
}

proptest! {
    #[test]
    fn every_promise_holds_in_any_order_of_steps(steps in steps(), sight in sights(), chunk in 1_usize..6) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let writer = Writer::new(Options { chunk, ..Options::default() });
            let mut follower = Follower::new(sight);
            let mut watch = writer.hub.watch("", follower.filter()).unwrap();
            for step in steps.into_iter().chain([Step::Reconnect]) {
                match step {
                    Step::Write(seed) => writer.write(seed),
                    Step::Observe(seed) => writer.observe(seed),
                    Step::Read => {
                        if let Some(message) = now(&mut watch) {
                            follower.take(message, &writer.record);
                        }
                    }
                    Step::Reconnect => {
                        follower.disconnect();
                        watch = writer.hub.watch(&follower.token, follower.filter()).unwrap();
                    }
                }
            }
            while let Ok(message) = timeout(Duration::from_secs(1), watch.next()).await {
                follower.take(message.unwrap().unwrap(), &writer.record);
            }
            finish(&writer, &follower);
        });
    }
}
