//! Whatever happens, in whatever order: what the harness checks after each plan holds, and when faults
//! stop, the service gets where it is meant to be.

use std::time::Duration;

use proptest::prelude::*;

use super::harness::{Birth, Life, Sim, secs};
use super::retrying::retrying;
use crate::domain::failure::Class;
use crate::domain::replica::observe::ReportedPhase;
use crate::domain::service::Intent;
use crate::domain::spec::{Count, OnDisconnect, Spec, Update};
use crate::domain::status::ServicePhase;

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Away(u64),
    SetBack(u64),
    Most(u32),
    Kill(usize, Class),
    Unready(usize),
    Ready(usize),
    Scale(u32),
    Update,
    InPlace,
    Drain(usize, u32),
    Resume(usize),
    CutOff(usize),
    Fence(usize),
    Force(usize),
    ComeBack(usize),
    Restart,
    RestartReplica(usize),
    Stop,
    Start,
    Break(u8),
}

const WORKERS: [&str; 4] = ["w1", "w2", "w3", "w4"];

fn step() -> impl Strategy<Value = Step> {
    let class = prop::sample::select(Class::ALL[1..].to_vec());
    prop_oneof![
        6 => (100..60_000_u64).prop_map(Step::Pass),
        4 => (0..8_usize, class).prop_map(|(n, class)| Step::Kill(n, class)),
        1 => (0..8_usize).prop_map(Step::Unready),
        1 => (0..8_usize).prop_map(Step::Ready),
        1 => (1..4000_u64).prop_map(Step::Away),
        1 => (1..4000_u64).prop_map(Step::SetBack),
        1 => (0..4_u32).prop_map(Step::Most),
        2 => (0..6_u32).prop_map(Step::Scale),
        2 => Just(Step::Update),
        1 => Just(Step::InPlace),
        2 => (0..4_usize, 1..3_u32).prop_map(|(n, most)| Step::Drain(n, most)),
        2 => (0..4_usize).prop_map(Step::Resume),
        1 => (0..4_usize).prop_map(Step::CutOff),
        1 => (0..4_usize).prop_map(Step::Fence),
        1 => (0..4_usize).prop_map(Step::Force),
        2 => (0..4_usize).prop_map(Step::ComeBack),
        1 => Just(Step::Restart),
        1 => (0..8_usize).prop_map(Step::RestartReplica),
        1 => Just(Step::Stop),
        2 => Just(Step::Start),
        1 => (0..4_u8).prop_map(Step::Break),
    ]
}

fn any_spec() -> impl Strategy<Value = Spec> {
    (
        1..4_u32,
        0..3_u32,
        0..2_u32,
        1..3_u32,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(min, extra, unavailable, surge, stop, fast)| {
            let spec = retrying(min, |retry| {
                retry.interval = secs(if extra > 0 { 40 } else { 2 });
            });
            Spec {
                replicas: Count {
                    min,
                    max: min + extra,
                },
                update: Update {
                    max_surge: if unavailable == 0 {
                        surge.max(1)
                    } else {
                        surge - 1
                    },
                    max_unavailable: unavailable,
                    ..spec.update
                },
                on_disconnect: if stop {
                    OnDisconnect::Stop
                } else {
                    OnDisconnect::Keep
                },
                // Without surge, something has to be missed to be replaced.
                min_healthy: u32::from(unavailable == 0),
                retry: spec.retry.filter(|_| !fast),
                ..spec
            }
        })
}

fn take(sim: &mut Sim, step: &Step) {
    let nth = |sim: &Sim, n: usize| {
        let ordinals = sim.ordinals();
        (!ordinals.is_empty()).then(|| ordinals[n % ordinals.len()])
    };
    match step {
        Step::Pass(millis) => sim.run(Duration::from_millis(*millis)),
        Step::Away(seconds) => sim.away(secs(*seconds)),
        Step::SetBack(seconds) => sim.set_back(secs(*seconds)),
        Step::Most(extra) => drop(sim.apply(|s| s.replicas.max = s.replicas.min + extra)),
        Step::Kill(n, class) => {
            if let Some(ordinal) = nth(sim, *n).filter(|o| sim.replica(*o).worker().is_some()) {
                sim.kill(ordinal, *class);
            }
        }
        Step::Unready(n) => {
            if let Some(ordinal) = nth(sim, *n).filter(|o| sim.is_ready(*o)) {
                sim.report(ordinal, ReportedPhase::Unready);
            }
        }
        Step::Ready(n) => {
            if let Some(ordinal) = nth(sim, *n).filter(|o| sim.replica(*o).worker().is_some()) {
                sim.report(ordinal, ReportedPhase::Ready);
            }
        }
        Step::Scale(n) => drop(sim.ask(|service, now| service.scale(*n, now))),
        Step::Update => drop(sim.apply(|spec| spec.run.command.push("more".to_owned()))),
        Step::InPlace => drop(sim.apply(|spec| spec.stop_grace += secs(1))),
        Step::Drain(n, most) => sim.drain(WORKERS[*n], *most),
        Step::Resume(n) => sim.resume(WORKERS[*n]),
        Step::CutOff(n) => sim.cut_off(WORKERS[*n]),
        Step::Fence(n) => {
            if sim.workers[WORKERS[*n]].liveness == crate::domain::world::Liveness::Lost {
                sim.fence(WORKERS[*n]);
            }
        }
        Step::Force(n) => {
            if sim.workers[WORKERS[*n]].liveness == crate::domain::world::Liveness::Lost {
                sim.force_off(WORKERS[*n]);
            }
        }
        Step::ComeBack(n) => sim.come_back(WORKERS[*n]),
        Step::Restart => drop(sim.ask(|service, now| service.restart(now))),
        Step::RestartReplica(n) => {
            if let Some(ordinal) = nth(sim, *n) {
                let _ = sim.ask(|service, now| service.restart_replica(ordinal, now));
            }
        }
        Step::Stop => drop(sim.ask(|service, now| service.stop("by a test", now))),
        Step::Start => drop(sim.ask(|service, now| service.start("by a test", now))),
        Step::Break(which) => {
            let which = *which;
            sim.rescript(move |birth: &Birth| match which {
                0 => Life::healthy(),
                1 if birth.version.is_multiple_of(2) => Life::crash(secs(1)),
                2 if birth.worker == "w1" => Life::dies(secs(2), Class::StartTimeout),
                3 if birth.ordinal % 2 == 1 => Life::ready_then_dies(secs(1), secs(20), Class::Oom),
                _ => Life::healthy(),
            });
        }
    }
}

/// Lets everything happen, then lets nothing more go wrong, and waits until it is as it should be.
fn converge(spec: Spec, steps: &[Step]) {
    let mut sim = Sim::new(spec, &[("w1", 4), ("w2", 4), ("w3", 4), ("w4", 4)]);
    for step in steps {
        take(&mut sim, step);
    }
    sim.run(secs(1));
    sim.rescript(|_: &Birth| Life::healthy());
    for worker in WORKERS {
        sim.come_back(worker);
        sim.resume(worker);
    }
    sim.run(secs(120));
    let unready: Vec<u32> = sim.ordinals();
    for ordinal in unready {
        if sim.replica(ordinal).worker().is_some() {
            sim.report(ordinal, ReportedPhase::Ready);
        }
    }
    if sim.service.header.intent == Intent::Stop {
        sim.run_to_phase(secs(600), ServicePhase::Stopped);
        sim.run(secs(5));
        assert_eq!(sim.rooms_held(), 0);
    }
    let _ = sim.ask(|service, now| service.start("by a test", now));
    // Those that gave up stay so until someone asks.
    for ordinal in sim.ordinals() {
        if matches!(
            sim.replica(ordinal).state,
            crate::domain::replica::State::Failed { .. }
        ) {
            let _ = sim.ask(|service, now| service.restart_replica(ordinal, now));
        }
    }
    sim.run_to(secs(4000), "at rest", |sim| {
        let rollout = sim.service.header.rollout.as_ref();
        let rolling = rollout.is_some_and(|rollout| rollout.active());
        sim.phase() == ServicePhase::Healthy
            && sim.ready() == sim.service.wanted()
            && sim.ordinals().len() == sim.ready() as usize
            && !rolling
    });
    sim.run(secs(30));
    assert_eq!(sim.rooms_held(), sim.ready() as usize);
    assert_eq!(sim.processes.len(), sim.ready() as usize);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_converges_when_faults_stop(spec in any_spec(), steps in prop::collection::vec(step(), 1..40)) {
        converge(spec, &steps);
    }
}
