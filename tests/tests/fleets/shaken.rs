//! A whole fleet, every part a process of its own, that is shaken at random: parts are killed, stand still and
//! are cut off, several at once, while operators ask for this and that. In the end all is brought back, and
//! everything has to be as it was asked for, with nothing lost, doubled, or left behind.
//!
//! All that is left to chance comes from a seed, which is told: `MUSTER_SHAKEN_SEED` plays one again. What is
//! drawn is the same then, what comes of it only as far as the machine is as busy.

mod calls;
mod checks;
mod draw;
mod expected;
mod faults;
mod mirror;
mod processes;

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    path::PathBuf,
    time::Duration,
};

use muster_proto::{
    replicas::v1::{Replica, Service},
    workers::v1::{Allocation, Worker, WorkerState},
};
use muster_tests::fleet::{Fleet, Layout};
use tokio::time::Instant;

use calls::Asked;
use draw::Draw;
use expected::Wish;
use faults::Faults;
use mirror::Mirror;

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Names a seed to play again.
const SEED: &str = "MUSTER_SHAKEN_SEED";

/// What has been done, in order.
#[derive(Debug, Clone)]
struct Story {
    begun: Instant,
    folder: PathBuf,
}

impl Story {
    #[expect(
        clippy::print_stdout,
        reason = "whoever looks into a failure is to see it"
    )]
    fn tell(&self, words: &str) {
        println!("{:>8.3} {words}", self.begun.elapsed().as_secs_f64());
    }
}

/// What clients follow over the whole time.
#[derive(Debug)]
struct Watched {
    services: Mirror<Service>,
    replicas: Mirror<Replica>,
    workers: Mirror<Worker>,
    allocations: Mirror<Allocation>,
}

impl Watched {
    fn of(fleet: &Fleet) -> Self {
        Self {
            services: Mirror::of(fleet.manager.address),
            replicas: Mirror::of(fleet.manager.address),
            workers: Mirror::of(fleet.registry.address),
            allocations: Mirror::of(fleet.registry.address),
        }
    }
}

/// Three machines that are lost after two seconds of silence, and fenced after five.
async fn fleet() -> Fleet {
    let flags = [
        "--heartbeat-interval=250ms",
        "--lost-after=2s",
        "--fence-after=5s",
        "--fence-margin=500ms",
    ];
    let layout = Layout {
        agents: 3,
        registry: flags.map(str::to_owned).to_vec(),
        wired: true,
        ..Layout::default()
    };
    Fleet::laid_out(env!("CARGO_BIN_EXE_component"), layout).await
}

/// Shakes a fleet for a time, and sees what it comes to.
#[expect(
    clippy::print_stdout,
    reason = "whoever looks into a failure is to see it"
)]
async fn shake(seed: u64, time: Duration) {
    println!("shaking for {time:?}: {SEED}={seed} plays it again");
    let mut fleet = fleet().await;
    let story = Story {
        begun: Instant::now(),
        folder: fleet.path().to_owned(),
    };
    let watched = Watched::of(&fleet);
    let (manager, registry) = (fleet.manager.address, fleet.registry.address);
    let mut asked = ["a", "b", "c", "d"].map(|name| Asked::drawn(name, seed, manager, &story));
    let mut faults = Faults::none(&fleet, seed, &story);
    let end = Instant::now() + time;
    let [a, b, c, d] = &mut asked;
    tokio::join!(
        a.ask_until(end),
        b.ask_until(end),
        c.ask_until(end),
        d.ask_until(end),
        calls::order_until(end, registry, seed, &story),
        checks::nothing_is_given_twice_until(end, registry),
        faults.happen_until(end, &mut fleet),
    );
    checks::until_as_expected(&mut fleet, &faults, &mut asked, &watched).await;
    story.tell("all is as expected");
    one_is_drained(&fleet, seed).await;
    checks::until_as_expected(&mut fleet, &faults, &mut asked, &watched).await;
    story.tell("a drain goes through");
    for one in asked.iter_mut().filter(|one| one.expected.wanted.is_some()) {
        one.ask(&Wish::Delete).await;
    }
    checks::until_as_expected(&mut fleet, &faults, &mut asked, &watched).await;
    story.tell("nothing is left behind");
    checks::no_two_ran(&asked, &watched);
    checks::all_was_given_on_active_ones(&fleet, &watched).await;
    faults.watch_over(&mut fleet);
    story.tell(&format!("services: {}", watched.services.tally()));
    story.tell(&format!("replicas: {}", watched.replicas.tally()));
    story.tell(&format!("workers: {}", watched.workers.tally()));
    story.tell(&format!("allocations: {}", watched.allocations.tally()));
}

/// A drain without an end ends by itself once nothing else is wrong.
async fn one_is_drained(fleet: &Fleet, seed: u64) {
    let names: Vec<_> = fleet.agents.keys().collect();
    let name = *Draw::new(seed, "drained").one(&names);
    fleet.drain(name).await;
    let disabled = WorkerState::Disabled;
    fleet.until_worker(name, disabled, PATIENCE).await;
}

/// A seed that was asked for, or these.
fn seeds(otherwise: impl FnOnce() -> Vec<u64>) -> Vec<u64> {
    match std::env::var(SEED) {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => otherwise(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_is_shaken_comes_to_what_was_asked_for() {
    for seed in seeds(|| vec![1]) {
        Box::pin(shake(seed, Duration::from_secs(5))).await;
    }
}

/// `MUSTER_SHAKEN_ROUNDS` says how often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: `just soak` runs it"]
async fn a_fleet_that_is_shaken_for_long_comes_to_what_was_asked_for() {
    if std::env::var_os("MUSTER_SOAK").is_none() {
        println!("SKIPPED: it takes minutes: MUSTER_SOAK has to be set");
        return;
    }
    let rounds = std::env::var("MUSTER_SHAKEN_ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let any = || RandomState::new().build_hasher().finish() % 1_000_000;
    for seed in seeds(|| (0..rounds).map(|_| any()).collect()) {
        Box::pin(shake(seed, Duration::from_secs(20))).await;
    }
}
