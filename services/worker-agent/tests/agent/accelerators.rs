//! The agent on a machine whose accelerators go away and come, with a driver's library made by hand.

use std::time::Duration;

use muster_proto::replicas::v1::*;
use muster_proto::workers::v1::*;
use worker_agent::config::Config;

use crate::support::driver::Driver;
use crate::support::fleet::{
    Agent, Cleared, FOREVER, Fleet, assignment, exec_probe, gpus, kill_all, runs, until,
};

fn config(fleet: &Fleet, driver: &Driver) -> Config {
    Config {
        nvidia_library: driver.library(),
        gpu_interval: Duration::from_millis(200),
        ..fleet.config()
    }
}

/// A replica with an accelerator, given to it as the `token`th.
fn on_gpu(id: &str, gpu: &str, token: u32, script: &str) -> Assignment {
    Assignment {
        gpu_uuids: vec![gpu.into()],
        fencing_token: format!("epoch-{token:020}"),
        ..assignment(id, script)
    }
}

/// Waits until the worker takes work with these accelerators, and has been there so often.
async fn until_offered(fleet: &Fleet, generation: i64, wanted: &[String]) {
    until(&format!("{wanted:?} are offered"), || {
        let state = fleet.registry();
        let last = state.registrations.last();
        state.generation == generation
            && state.state == WorkerState::Active
            && last.is_some_and(|last| gpus(last) == wanted)
    })
    .await;
}

fn processes(id: &str) -> Vec<rustix::process::Pid> {
    worker_agent::machine::processes_with(&format!("MUSTER_ATTEMPT={id}"))
}

/// Whether one of these processes of an attempt runs still: others come and go.
fn is_undisturbed(id: &str, before: &[rustix::process::Pid]) -> bool {
    let now = processes(id);
    before.iter().any(|pid| now.contains(pid))
}

fn is_interrupted_for(report: &AttemptReport, gpu: &str) {
    assert_eq!(report.failure_class(), FailureClass::Interruption);
    assert!(report.message.contains(gpu), "{}", report.message);
}

#[tokio::test]
async fn a_lost_gpu_ends_what_it_ran_and_nothing_else() {
    let (fleet, driver) = (Fleet::start().await, Driver::finding("HHH"));
    let cards = driver.uuids();
    let _cleared = Cleared(&["lost.0.1", "lost.1.1", "lost.2.1", "lost.4.1"]);
    let _agent = Agent::start(config(&fleet, &driver)).await;
    until_offered(&fleet, 1, &cards).await;
    fleet.assign(on_gpu("lost.0.1", &cards[0], 1, FOREVER));
    fleet.assign(on_gpu("lost.1.1", &cards[1], 1, FOREVER));
    fleet.assign(assignment("lost.2.1", FOREVER));
    for id in ["lost.0.1", "lost.1.1", "lost.2.1"] {
        fleet.until_phase(id, AttemptPhase::Ready).await;
    }
    let before = (processes("lost.1.1"), processes("lost.2.1"));
    driver.find("LHH");
    let report = fleet.until_phase("lost.0.1", AttemptPhase::Ended).await;
    is_interrupted_for(&report, &cards[0]);
    assert!(!runs("lost.0.1"));
    until_offered(&fleet, 2, &cards[1..]).await;
    until("its room is named ended", || {
        fleet.named_ended("a-lost.0.1")
    })
    .await;

    // It was given away in the instant before the registry knew.
    fleet.assign(on_gpu("lost.3.1", &cards[0], 2, FOREVER));
    let report = fleet.until_phase("lost.3.1", AttemptPhase::Ended).await;
    is_interrupted_for(&report, &cards[0]);
    assert_eq!(report.start_time, None, "it was never started");
    until("its room is named ended", || {
        fleet.named_ended("a-lost.3.1")
    })
    .await;

    driver.find("HHH");
    until_offered(&fleet, 3, &cards).await;
    fleet.assign(on_gpu("lost.4.1", &cards[0], 3, FOREVER));
    fleet.until_phase("lost.4.1", AttemptPhase::Ready).await;
    assert!(is_undisturbed("lost.1.1", &before.0));
    assert!(is_undisturbed("lost.2.1", &before.1));
    let registry = fleet.registry();
    let [first, .., last] = &registry.registrations[..] else {
        panic!("it has registered again");
    };
    assert_eq!(first.boot_id, last.boot_id, "it is the same process");
    assert_eq!(last.last_generation, 2, "a late call is told from it");
    for id in ["lost.1.1", "lost.2.1"] {
        assert_eq!(fleet.phase(id), AttemptPhase::Ready);
    }
}

#[tokio::test]
async fn what_ends_by_itself_on_a_lost_gpu_was_interrupted() {
    let (fleet, driver) = (Fleet::start().await, Driver::finding("HH"));
    let cards = driver.uuids();
    let mut config = config(&fleet, &driver);
    // Nobody looks but for them.
    config.gpu_interval = Duration::from_secs(3600);
    let _agent = Agent::start(config).await;
    until_offered(&fleet, 1, &cards[..2]).await;
    let signal = fleet.folder.path().join("the-driver-complains");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.05; done; exit 3",
        signal.display()
    );
    fleet.assign(on_gpu("self.0.1", &cards[0], 1, &script));
    fleet.assign(on_gpu("self.1.1", &cards[1], 1, &script));
    for id in ["self.0.1", "self.1.1"] {
        fleet.until_phase(id, AttemptPhase::Ready).await;
    }
    driver.find("LH");
    std::fs::write(&signal, "").unwrap();
    let lost = fleet.until_phase("self.0.1", AttemptPhase::Ended).await;
    is_interrupted_for(&lost, &cards[0]);
    assert_eq!(lost.exit.unwrap().code, Some(3));
    assert!(
        lost.message.starts_with("exited with code 3"),
        "{}",
        lost.message
    );
    let crashed = fleet.until_phase("self.1.1", AttemptPhase::Ended).await;
    assert_eq!(crashed.failure_class(), FailureClass::Error, "{crashed:?}");
    assert_eq!(crashed.message, "exited with code 3");
}

#[tokio::test]
async fn what_no_longer_answers_on_a_lost_gpu_was_interrupted() {
    let (fleet, driver) = (Fleet::start().await, Driver::finding("HH"));
    let cards = driver.uuids();
    let _cleared = Cleared(&["mute.0.1"]);
    let mut config = config(&fleet, &driver);
    config.gpu_interval = Duration::from_secs(3600);
    let _agent = Agent::start(config).await;
    until_offered(&fleet, 1, &cards[..2]).await;
    let signal = fleet.folder.path().join("it-hangs");
    let mut mute = on_gpu("mute.0.1", &cards[0], 1, FOREVER);
    mute.probes = Some(Probes {
        ready: Some(exec_probe("exit 0")),
        alive: Some(Probe {
            failures: 1,
            ..exec_probe(&format!("[ ! -e {} ]", signal.display()))
        }),
    });
    fleet.assign(mute);
    fleet.until_phase("mute.0.1", AttemptPhase::Ready).await;
    // The handle can be had still, the card itself does not answer.
    driver.find("MH");
    std::fs::write(&signal, "").unwrap();
    let report = fleet.until_phase("mute.0.1", AttemptPhase::Ended).await;
    is_interrupted_for(&report, &cards[0]);
}

#[tokio::test]
async fn an_agent_that_comes_back_to_fewer_gpus_ends_what_held_them() {
    let (fleet, driver) = (Fleet::start().await, Driver::finding("HHH"));
    let cards = driver.uuids();
    let _cleared = Cleared(&["back.0.1", "back.1.1", "back.2.1"]);
    let first = Agent::start(config(&fleet, &driver)).await;
    until_offered(&fleet, 1, &cards).await;
    for (gpu, id) in ["back.0.1", "back.1.1", "back.2.1"].into_iter().enumerate() {
        fleet.assign(on_gpu(id, &cards[gpu], 1, FOREVER));
        fleet.until_phase(id, AttemptPhase::Ready).await;
    }
    first.stop().await;
    // One of those that lose theirs ends while no agent is there.
    kill_all("back.2.1");
    until("it has ended", || !runs("back.2.1")).await;
    fleet.manager().latest.clear();
    driver.find("LH-");
    let _agent = Agent::start(config(&fleet, &driver)).await;
    let stopped = fleet.until_phase("back.0.1", AttemptPhase::Ended).await;
    is_interrupted_for(&stopped, &cards[0]);
    let ended = fleet.until_phase("back.2.1", AttemptPhase::Ended).await;
    is_interrupted_for(&ended, &cards[2]);
    until_offered(&fleet, 2, &cards[1..2]).await;
    for id in ["a-back.0.1", "a-back.2.1"] {
        until("its room is named ended", || fleet.named_ended(id)).await;
    }
    assert_eq!(fleet.phase("back.1.1"), AttemptPhase::Ready);
    assert!(runs("back.1.1"));
}

/// Waits until the agent's check of its accelerators says something.
async fn until_said(agent: &Agent, words: &str) {
    until(&format!("the check says {words:?}"), || {
        agent.context.health.review();
        let report = agent.context.health.report();
        let check = report
            .checks
            .iter()
            .find(|check| check.name == "accelerators");
        check.is_some_and(|check| check.detail.contains(words))
    })
    .await;
}

#[tokio::test]
async fn a_driver_that_hangs_or_is_being_replaced_ends_nothing() {
    let (fleet, driver) = (Fleet::start().await, Driver::finding("HH"));
    let cards = driver.uuids();
    let _cleared = Cleared(&["drv.0.1"]);
    let mut config = config(&fleet, &driver);
    config.gpu_timeout = Duration::from_millis(500);
    let agent = Agent::start(config).await;
    until_offered(&fleet, 1, &cards[..2]).await;
    fleet.assign(on_gpu("drv.0.1", &cards[0], 1, FOREVER));
    fleet.until_phase("drv.0.1", AttemptPhase::Ready).await;
    let before = processes("drv.0.1");
    driver.find("?HH");
    until_said(&agent, "does not answer").await;
    assert_eq!(fleet.registry().registrations.len(), 1, "nothing is known");

    // Its library was upgraded, and the driver itself is the old one still.
    driver.find("!HH");
    until_offered(&fleet, 2, &[]).await;
    until_said(&agent, "version mismatch").await;

    // One of the two cannot be read, for who knows what reason.
    driver.find("UH");
    until_offered(&fleet, 3, &cards[1..2]).await;
    until_said(&agent, "internal driver error").await;
    driver.find("HH");
    until_offered(&fleet, 4, &cards[..2]).await;
    assert!(
        is_undisturbed("drv.0.1", &before),
        "it has run all the time"
    );
    assert_eq!(fleet.phase("drv.0.1"), AttemptPhase::Ready);
}

#[tokio::test]
async fn a_driver_that_hangs_holds_up_no_other_measure() {
    let (fleet, driver) = (Fleet::start().await, Driver::finding("HH"));
    let cards = driver.uuids();
    let _cleared = Cleared(&["use.0.1"]);
    let mut config = config(&fleet, &driver);
    // The driver is asked how busy its cards are after the first of these.
    config.sample_interval = Duration::from_secs(3);
    let _agent = Agent::start(config).await;
    until_offered(&fleet, 1, &cards[..2]).await;
    driver.find("?HH");
    fleet.assign(Assignment {
        scaling: Some(ScalingPolicy {
            metric: Some(scaling_policy::Metric::Prometheus("waiting".into())),
            ..Default::default()
        }),
        ..on_gpu("use.0.1", &cards[0], 1, FOREVER)
    });
    until("its memory is measured", || {
        let report = fleet.manager().latest.get("use.0.1").cloned();
        let sample = report.and_then(|report| report.sample);
        sample.is_some_and(|sample| sample.memory_used_mib.is_some())
    })
    .await;
}

#[tokio::test]
async fn what_the_registry_would_refuse_is_left_out() {
    let (fleet, driver) = (Fleet::start().await, Driver::finding("HDHN"));
    let cards = driver.uuids();
    let _agent = Agent::start(config(&fleet, &driver)).await;
    until_offered(&fleet, 1, &[cards[0].clone(), cards[2].clone()]).await;
}

#[tokio::test]
async fn an_agent_that_leaves_does_not_begin_anew_for_an_accelerator() {
    let (fleet, driver) = (Fleet::start().await, Driver::finding("HH"));
    let cards = driver.uuids();
    let _cleared = Cleared(&["leave.0.1", "leave.1.1"]);
    let mut config = config(&fleet, &driver);
    config.on_terminate = worker_agent::config::OnTerminate::Drain(Duration::from_secs(60));
    let agent = Agent::start(config).await;
    until_offered(&fleet, 1, &cards[..2]).await;
    fleet.assign(on_gpu("leave.0.1", &cards[0], 1, FOREVER));
    fleet.assign(on_gpu("leave.1.1", &cards[1], 1, FOREVER));
    for id in ["leave.0.1", "leave.1.1"] {
        fleet.until_phase(id, AttemptPhase::Ready).await;
    }
    let asked = muster_runtime::shutdown::Cause::asked("the test says so");
    agent.context.shutdown.begin(asked);
    until("it drains", || !fleet.registry().drains.is_empty()).await;
    driver.find("LH");
    let report = fleet.until_phase("leave.0.1", AttemptPhase::Ended).await;
    is_interrupted_for(&report, &cards[0]);
    fleet.stop("leave.1.1");
    agent.context.shutdown.finished().await;
    assert!(fleet.registry().left);
    assert_eq!(fleet.registry().registrations.len(), 1);
}

#[tokio::test]
async fn what_another_offers_or_uses_is_not_offered() {
    let (first, second) = (Fleet::start().await, Fleet::start().await);
    let driver = Driver::finding("H");
    let cards = driver.uuids();
    let _cleared = Cleared(&["two.0.1"]);
    let agent = Agent::start(config(&first, &driver)).await;
    until_offered(&first, 1, &cards[..1]).await;
    first.assign(on_gpu("two.0.1", &cards[0], 1, FOREVER));
    first.until_phase("two.0.1", AttemptPhase::Ready).await;

    let _other = Agent::start(config(&second, &driver)).await;
    let until_refused = async |words: &str| {
        until(&format!("it is not offered: {words}"), || {
            let registry = second.registry();
            let checks = &registry.checks;
            let mut failed = checks
                .iter()
                .filter(|check| check.status() == CheckStatus::Failed);
            let said = failed.next().map(|check| check.message.clone());
            registry.state == WorkerState::Provisioning
                && said.is_some_and(|said| said.starts_with(&cards[0]) && said.contains(words))
        })
        .await;
    };
    until_refused("is used by process ").await;
    // What it ran runs on, and it is the one that may come back to it.
    agent.stop().await;
    second.registry().checks.clear();
    until_refused("is used by process ").await;
    let agent = Agent::start(config(&first, &driver)).await;
    until_offered(&first, 2, &cards[..1]).await;
    kill_all("two.0.1");
    until_refused("is offered by another agent here, process ").await;
    agent.stop().await;
    until_offered(&second, 1, &cards[..1]).await;
}
