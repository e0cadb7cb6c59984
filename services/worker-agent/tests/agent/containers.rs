//! Replicas in containers, on an engine made by hand.

use std::time::Duration;

use muster_proto::agents::v1::StreamLogsRequest;
use muster_proto::replicas::v1::run_spec::Runtime;
use muster_proto::replicas::v1::*;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use worker_agent::config::Config;
use worker_agent::log::{Stream, reader};

use crate::support::engine::{self, Engine};
use crate::support::fleet::{
    Agent, Cleared, FOREVER, Fleet, assignment, exec_probe, kill_all, runs, until,
};

struct Yard {
    fleet: Fleet,
    engine: Engine,
}

impl Yard {
    async fn start() -> Self {
        let fleet = Fleet::start().await;
        let engine = Engine::start(&fleet.tasks, fleet.folder.path());
        engine.state().images.push("here".into());
        Self { fleet, engine }
    }

    fn config(&self) -> Config {
        Config {
            docker_socket: self.engine.socket.clone(),
            ..self.fleet.config()
        }
    }
}

fn container(id: &str, image: &str, script: &str) -> Assignment {
    let mut assignment = assignment(id, script);
    let run = assignment.run.as_mut().unwrap();
    run.runtime = Some(Runtime::Container(ContainerRuntime {
        image: image.into(),
    }));
    run.ports = vec![Port {
        number: 8000,
        ..Default::default()
    }];
    assignment
}

#[tokio::test]
async fn a_container_runs_is_limited_and_stopped() {
    let yard = Yard::start().await;
    let _cleared = Cleared(&["box.0.1"]);
    let mut agent = Agent::start(yard.config()).await;
    let mut wanted = container(
        "box.0.1",
        "here",
        "echo port $PORT; trap 'echo bye >&2; exit 5' TERM; while :; do sleep 0.02; done",
    );
    (wanted.cpu_milli, wanted.memory_mib) = (500, 64);
    yard.fleet.assign(wanted);
    let ready = yard.fleet.until_phase("box.0.1", AttemptPhase::Ready).await;
    let real = ready.addresses[0]
        .address
        .strip_prefix("127.0.0.1:")
        .unwrap()
        .to_owned();
    {
        let state = yard.engine.state();
        let body = &state.containers["muster-box.0.1"].body;
        assert_eq!(body["Labels"]["dev.muster.attempt"], "box.0.1");
        assert_eq!(
            body["HostConfig"]["PortBindings"]["8000/tcp"][0]["HostPort"],
            real.as_str()
        );
        assert_eq!(body["HostConfig"]["Memory"], 64 << 20);
    }
    let told = agent.about().await;
    assert_eq!(
        told.attempts[0].pid,
        yard.engine.state().containers["muster-box.0.1"].pid
    );
    yard.fleet.stop("box.0.1");
    let ended = yard.fleet.until_phase("box.0.1", AttemptPhase::Ended).await;
    assert!(ended.stopped);
    assert_eq!(ended.exit.unwrap().code, Some(5));
    assert_eq!(yard.engine.state().removed, ["muster-box.0.1"]);
    let request = StreamLogsRequest {
        attempt_id: "box.0.1".into(),
        ..Default::default()
    };
    let mut logs = agent
        .client
        .stream_logs(request)
        .await
        .unwrap()
        .into_inner();
    let lines = logs.message().await.unwrap().unwrap().lines;
    let texts: Vec<&str> = lines
        .iter()
        .map(|line| line.text.as_str())
        .filter(|text| *text != "Terminated")
        .collect();
    assert_eq!(texts, ["port 8000", "bye"]);
    agent.stop().await;
}

#[tokio::test]
async fn failures_have_their_class() {
    let yard = Yard::start().await;
    yard.engine.state().registry.push("far/away:1".into());
    let agent = Agent::start(yard.config()).await;
    let mut unknown = container("unknown.0.1", "here", "");
    unknown.run.as_mut().unwrap().command = vec!["/no/such/program".into()];
    for (wanted, class, word) in [
        (
            container("pull.0.1", "nowhere:2", ""),
            FailureClass::Image,
            "pull access denied",
        ),
        (unknown, FailureClass::Config, "executable file not found"),
        (
            container("exit.0.1", "far/away:1", "exit 3"),
            FailureClass::Error,
            "code 3",
        ),
        (
            container("oom.0.1", "here", "exit 99"),
            FailureClass::Oom,
            "out of memory",
        ),
    ] {
        let id = wanted.attempt_id.clone();
        yard.fleet.assign(wanted);
        let ended = yard.fleet.until_phase(&id, AttemptPhase::Ended).await;
        assert_eq!(ended.failure_class(), class, "{id}: {}", ended.message);
        assert!(ended.message.contains(word), "{id}: {}", ended.message);
    }
    assert!(yard.engine.state().containers.is_empty(), "nothing is left");
    agent.stop().await;
}

#[tokio::test]
async fn without_an_engine_a_container_has_no_image() {
    let fleet = Fleet::start().await;
    let mut config = fleet.config();
    config.docker_socket = fleet.folder.path().join("no.sock");
    let agent = Agent::start(config).await;
    fleet.assign(container("none.0.1", "here", FOREVER));
    let ended = fleet.until_phase("none.0.1", AttemptPhase::Ended).await;
    assert_eq!(ended.failure_class(), FailureClass::Image);
    assert!(
        ended.message.contains("no container engine answers at"),
        "{}",
        ended.message
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_container_outlives_its_agent_but_not_its_supervisor() {
    let yard = Yard::start().await;
    let _cleared = Cleared(&["live.0.1"]);
    let first = Agent::start(yard.config()).await;
    yard.fleet.assign(container("live.0.1", "here", FOREVER));
    let before = yard
        .fleet
        .until_phase("live.0.1", AttemptPhase::Ready)
        .await;
    first.stop().await;
    assert!(runs("live.0.1"));
    yard.fleet.manager().latest.clear();
    let mut second = Agent::start(yard.config()).await;
    let after = yard
        .fleet
        .until_phase("live.0.1", AttemptPhase::Ready)
        .await;
    assert_eq!(after.ready_time, before.ready_time);
    let supervisor = second.about().await.attempts[0].supervisor_pid;
    kill_process(Pid::from_raw(supervisor).unwrap(), Signal::KILL).unwrap();
    let ended = yard
        .fleet
        .until_phase("live.0.1", AttemptPhase::Ended)
        .await;
    assert!(
        ended.message.contains("supervisor died"),
        "{}",
        ended.message
    );
    assert!(!runs("live.0.1"));
    assert_eq!(yard.engine.state().removed, ["muster-live.0.1"]);
    second.stop().await;
}

#[tokio::test]
async fn the_fence_ends_a_container_too() {
    let yard = Yard::start().await;
    let _cleared = Cleared(&["fence.0.1"]);
    yard.fleet.registry().fence_after = Duration::from_millis(1000);
    let agent = Agent::start(yard.config()).await;
    let mut fenced = container(
        "fence.0.1",
        "here",
        "trap '' TERM; while :; do sleep 0.05; done",
    );
    fenced.on_disconnect = OnDisconnect::Stop.into();
    fenced.stop = Some(StopPolicy {
        grace: Some(Duration::from_millis(100).try_into().unwrap()),
    });
    yard.fleet.assign(fenced);
    yard.fleet
        .until_phase("fence.0.1", AttemptPhase::Ready)
        .await;
    yard.fleet.registry().hanging = true;
    let last = yard.fleet.registry().beats.last().unwrap().0;
    until("it is fenced", || !runs("fence.0.1")).await;
    assert!(
        last.elapsed() < Duration::from_millis(2010),
        "{:?}",
        last.elapsed()
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_container_that_ignores_its_stop_is_killed_and_an_engine_that_is_away_is_no_excuse() {
    let yard = Yard::start().await;
    let _cleared = Cleared(&["deaf.0.1"]);
    let agent = Agent::start(yard.config()).await;
    let mut deaf = container(
        "deaf.0.1",
        "here",
        "trap '' TERM; while :; do sleep 0.05; done",
    );
    deaf.stop = Some(StopPolicy {
        grace: Some(Duration::from_millis(300).try_into().unwrap()),
    });
    yard.fleet.assign(deaf);
    yard.fleet
        .until_phase("deaf.0.1", AttemptPhase::Ready)
        .await;
    yard.engine.leave();
    yard.fleet.stop("deaf.0.1");
    until("it is killed", || !runs("deaf.0.1")).await;
    let ended = yard
        .fleet
        .until_phase("deaf.0.1", AttemptPhase::Ended)
        .await;
    assert!(ended.stopped);
    agent.stop().await;
}

#[tokio::test]
async fn what_an_engine_was_not_there_to_remove_is_removed_by_a_later_agent() {
    let yard = Yard::start().await;
    let _cleared = Cleared(&["left.0.1"]);
    let first = Agent::start(yard.config()).await;
    yard.fleet.assign(container("left.0.1", "here", FOREVER));
    yard.fleet
        .until_phase("left.0.1", AttemptPhase::Ready)
        .await;
    yard.engine.leave();
    yard.fleet.stop("left.0.1");
    yard.fleet
        .until_phase("left.0.1", AttemptPhase::Ended)
        .await;
    first.stop().await;
    yard.engine.come_back();
    {
        let mut state = yard.engine.state();
        assert!(state.removed.is_empty());
        let mut stranger = engine::Container::default();
        stranger.body = serde_json::json!({"Labels": {"dev.muster.attempt": "stranger.0.1"}});
        state.containers.insert("stranger".into(), stranger);
    }
    let second = Agent::start(yard.config()).await;
    until("it is removed", || !yard.engine.state().removed.is_empty()).await;
    assert_eq!(yard.engine.state().removed, ["muster-left.0.1"]);
    assert!(yard.engine.state().containers.contains_key("stranger"));
    second.stop().await;
}

#[tokio::test]
async fn what_a_container_says_while_the_engine_is_away_is_read_once_it_is_back() {
    let yard = Yard::start().await;
    let _cleared = Cleared(&["talk.0.1"]);
    let agent = Agent::start(yard.config()).await;
    let script = "i=0; while :; do i=$((i+1)); echo $i; echo $i >&2; sleep 0.02; done";
    yard.fleet.assign(container("talk.0.1", "here", script));
    let folder = yard.fleet.data().join("attempts/talk.0.1");
    let said = |stream| -> Vec<usize> {
        let lines = reader::last(&folder, usize::MAX).unwrap_or_default();
        let of_it = lines.iter().filter(|line| line.stream == stream);
        of_it.map(|line| line.text.parse().unwrap()).collect()
    };
    until("it has said something", || said(Stream::Out).len() > 9).await;
    // Times of whole seconds have to pass between tries to read on.
    yard.engine.leave();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = said(Stream::Out).len();
    yard.engine.come_back();
    until("it is heard again", || {
        said(Stream::Out).len() > before + 99
    })
    .await;
    kill_all("talk.0.1");
    yard.fleet
        .until_phase("talk.0.1", AttemptPhase::Ended)
        .await;
    for stream in [Stream::Out, Stream::Err] {
        let all = said(stream);
        let expected: Vec<usize> = (1..=all.len()).collect();
        assert_eq!(all, expected, "each line of {stream:?} once, in order");
    }
    agent.stop().await;
}

/// The only container of the engine.
fn only(engine: &Engine) -> Pid {
    let state = engine.state();
    Pid::from_raw(state.containers.values().next().unwrap().pid).unwrap()
}

#[tokio::test]
async fn what_may_have_been_started_is_not_ended_before_the_engine_says_so() {
    let yard = Yard::start().await;
    (yard.engine.state().hides, yard.engine.state().breaks) = (true, true);
    let agent = Agent::start(yard.config()).await;
    yard.fleet.assign(container("torn.0.1", "here", FOREVER));
    let away = yard.engine.socket.with_extension("away");
    until("the engine breaks off", || away.exists()).await;
    let process = only(&yard.engine);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(test_kill_process(process).is_ok());
    assert_ne!(yard.fleet.phase("torn.0.1"), AttemptPhase::Ended, "it runs");
    yard.engine.come_back();
    let ended = yard
        .fleet
        .until_phase("torn.0.1", AttemptPhase::Ended)
        .await;
    assert_eq!(ended.failure_class(), FailureClass::Interruption);
    assert_eq!(yard.engine.state().removed, ["muster-torn.0.1"]);
    until("nothing runs", || test_kill_process(process).is_err()).await;
    agent.stop().await;
}

/// A container whose processes do not show whose they are outlives `end` and the engine's absence.
async fn check_hidden(id: &str, end: impl AsyncFnOnce(&Yard, &mut Agent)) {
    let yard = Yard::start().await;
    yard.engine.state().hides = true;
    let mut agent = Agent::start(yard.config()).await;
    let mut wanted = container(id, "here", FOREVER);
    wanted.stop = Some(StopPolicy {
        grace: Some(Duration::from_millis(100).try_into().unwrap()),
    });
    yard.fleet.assign(wanted);
    yard.fleet.until_phase(id, AttemptPhase::Ready).await;
    let process = only(&yard.engine);
    yard.engine.leave();
    end(&yard, &mut agent).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(test_kill_process(process).is_ok());
    assert_ne!(yard.fleet.phase(id), AttemptPhase::Ended, "it runs");
    yard.engine.come_back();
    yard.fleet.until_phase(id, AttemptPhase::Ended).await;
    until("nothing runs", || test_kill_process(process).is_err()).await;
    agent.stop().await;
}

#[tokio::test]
async fn what_is_not_seen_is_not_taken_for_ended_while_the_engine_is_away() {
    check_hidden("veil.0.1", async |yard, _| yard.fleet.stop("veil.0.1")).await;
}

#[tokio::test]
async fn what_is_not_seen_is_not_taken_for_ended_with_its_supervisor() {
    check_hidden("veil.0.2", async |_, agent| {
        let supervisor = agent.about().await.attempts[0].supervisor_pid;
        kill_process(Pid::from_raw(supervisor).unwrap(), Signal::KILL).unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_does_not_say_how_a_container_is_does_not_hold_up_the_fence() {
    let yard = Yard::start().await;
    let _cleared = Cleared(&["mute.0.1"]);
    yard.fleet.registry().fence_after = Duration::from_secs(1);
    yard.engine.state().mute = true;
    let agent = Agent::start(yard.config()).await;
    let mut fenced = container("mute.0.1", "here", FOREVER);
    fenced.on_disconnect = OnDisconnect::Stop.into();
    yard.fleet.assign(fenced);
    until("it runs", || runs("mute.0.1")).await;
    yard.fleet.registry().hanging = true;
    until("it is fenced", || !runs("mute.0.1")).await;
    yard.fleet.registry().hanging = false;
    yard.engine.state().mute = false;
    let ended = yard
        .fleet
        .until_phase("mute.0.1", AttemptPhase::Ended)
        .await;
    assert!(ended.stopped && ended.interrupted);
    agent.stop().await;
}

#[tokio::test]
async fn probes_look_into_containers() {
    let yard = Yard::start().await;
    let _cleared = Cleared(&["peek.0.1"]);
    let agent = Agent::start(yard.config()).await;
    let mut probed = container("peek.0.1", "here", FOREVER);
    let sign = yard.fleet.folder.path().join("unready");
    std::fs::write(&sign, "").unwrap();
    let ready = exec_probe(&format!("echo not yet >&2; test ! -e {}", sign.display()));
    probed.probes = Some(Probes {
        ready: Some(ready),
        alive: None,
    });
    yard.fleet.assign(probed);
    until("it says why not", || {
        yard.fleet
            .report("peek.0.1")
            .message
            .ends_with("exit code 1: not yet")
    })
    .await;
    std::fs::remove_file(&sign).unwrap();
    yard.fleet
        .until_phase("peek.0.1", AttemptPhase::Ready)
        .await;
    kill_all("peek.0.1");
    let ended = yard
        .fleet
        .until_phase("peek.0.1", AttemptPhase::Ended)
        .await;
    assert_eq!(ended.exit.unwrap().code, Some(137));
    agent.stop().await;
}
