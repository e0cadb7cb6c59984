//! The agent's program when it is killed, stopped, cut off, fenced, told to end, or when who it
//! talks to forgets everything.

use std::time::Duration;

use muster_proto::replicas::v1::*;
use muster_proto::workers::v1::*;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};
use tonic::Status;
use worker_agent::config::OnTerminate;

use crate::support::fleet::{
    Agent, Cleared, FOREVER, Fleet, Program, assignment, kill_all, reregister, runs, until,
};

fn fenced_assignment(id: &str) -> Assignment {
    Assignment {
        on_disconnect: OnDisconnect::Stop.into(),
        stop: Some(StopPolicy {
            grace: Some(Duration::from_millis(100).try_into().unwrap()),
        }),
        ..assignment(id, FOREVER)
    }
}

async fn pause(millis: u64) {
    sleep(Duration::from_millis(millis)).await;
}

#[tokio::test]
async fn killed_and_started_again_it_has_stopped_nothing() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["kill.0.1"]);
    let mut first = Program::start(&fleet, &[]);
    fleet.assign(assignment("kill.0.1", FOREVER));
    let before = fleet.until_phase("kill.0.1", AttemptPhase::Ready).await;
    let processes = worker_agent::machine::processes_with("MUSTER_ATTEMPT=kill.0.1");
    for _ in 0..3 {
        first.signal(Signal::KILL);
        first.exit_code().await;
        fleet.manager().latest.clear();
        fleet.manager().reports.clear();
        first = Program::start(&fleet, &[]);
        let after = fleet.until_phase("kill.0.1", AttemptPhase::Ready).await;
        assert_eq!(
            (after.start_time, after.ready_time),
            (before.start_time, before.ready_time)
        );
        let manager = fleet.manager();
        let mut all = manager
            .reports
            .iter()
            .flat_map(|(_, request)| &request.reports);
        assert!(all.all(|report| report.phase() == AttemptPhase::Ready));
    }
    let left = worker_agent::machine::processes_with("MUSTER_ATTEMPT=kill.0.1");
    assert!(
        processes.iter().any(|pid| left.contains(pid)),
        "the same process runs on"
    );
    first.signal(Signal::TERM);
    assert_eq!(first.exit_code().await, Some(0));
    assert!(runs("kill.0.1"), "it is kept");
}

/// What is bound to its machine's connection ends when the agent is dead, hung, or cut off; what
/// is not runs on.
async fn check_fence(kept: &str, fenced: &str, cut: impl AsyncFnOnce(&Fleet, &Program)) {
    let fleet = Fleet::start().await;
    let (ids, lease) = ([kept, fenced], Duration::from_millis(1500));
    let _cleared = Cleared(&ids);
    fleet.registry().fence_after = lease;
    let agent = Program::start(&fleet, &[]);
    fleet.assign(assignment(kept, FOREVER));
    fleet.assign(fenced_assignment(fenced));
    for id in ids {
        fleet.until_phase(id, AttemptPhase::Ready).await;
    }
    pause(2000).await;
    assert!(runs(fenced), "it is renewed");
    cut(&fleet, &agent).await;
    let last = fleet.registry().beats.last().unwrap().0;
    until("it is fenced", || !runs(fenced)).await;
    let took = last.elapsed();
    assert!(
        took < lease * 101 / 100 + Duration::from_secs(1),
        "{took:?}"
    );
    assert!(runs(kept), "it runs on");
    agent.signal(Signal::CONT);
}

#[tokio::test]
async fn the_fence_works_when_the_agent_is_dead() {
    check_fence("dead.0.1", "dead.1.1", async |_, agent| {
        agent.signal(Signal::KILL);
    })
    .await;
}

#[tokio::test]
async fn the_fence_works_when_the_agent_hangs() {
    check_fence("hung.0.1", "hung.1.1", async |_, agent| {
        agent.signal(Signal::STOP);
    })
    .await;
}

#[tokio::test]
async fn the_fence_works_when_the_machine_is_cut_off() {
    check_fence("cut.0.1", "cut.1.1", async |fleet, _| {
        fleet.registry().hanging = true;
    })
    .await;
}

#[tokio::test]
async fn what_the_fence_ended_is_told_when_the_connection_is_back() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["back.0.1"]);
    fleet.registry().fence_after = Duration::from_secs(1);
    let agent = Agent::start(fleet.config()).await;
    fleet.assign(fenced_assignment("back.0.1"));
    fleet.until_phase("back.0.1", AttemptPhase::Ready).await;
    fleet.registry().failing = Some(Status::unavailable("cut off"));
    fleet.fail_manager(Some(Status::unavailable("cut off")));
    until("it is fenced", || !runs("back.0.1")).await;
    pause(200).await;
    fleet.registry().failing = None;
    fleet.fail_manager(None);
    let ended = fleet.until_phase("back.0.1", AttemptPhase::Ended).await;
    assert!(ended.stopped && ended.interrupted);
    until("the registry has heard it", || {
        fleet.named_ended("a-back.0.1")
    })
    .await;
    agent.stop().await;
}

#[tokio::test]
async fn everyone_away_for_a_while_changes_nothing() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["away.0.1"]);
    let agent = Agent::start(fleet.config()).await;
    fleet.assign(assignment("away.0.1", FOREVER));
    let before = fleet.until_phase("away.0.1", AttemptPhase::Ready).await;
    fleet.registry().failing = Some(Status::unavailable("away"));
    fleet.fail_manager(Some(Status::unavailable("away")));
    pause(1000).await;
    fleet.manager().latest.clear();
    let beats = fleet.registry().beats.len();
    fleet.registry().failing = None;
    fleet.fail_manager(None);
    let after = fleet.until_phase("away.0.1", AttemptPhase::Ready).await;
    assert_eq!(after.start_time, before.start_time);
    assert!(
        fleet.manager().reports.last().unwrap().1.whole,
        "a new connection is told everything"
    );
    until("it beats again", || fleet.registry().beats.len() > beats).await;
    assert_eq!(fleet.registry().registrations.len(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_manager_that_does_not_know_what_runs_is_told_what_was_assigned() {
    let fleet = Fleet::start().await;
    let ids = ["unknown.0.1", "unknown.1.1"];
    let _cleared = Cleared(&ids);
    let agent = Agent::start(fleet.config()).await;
    for id in ids {
        fleet.assign(assignment(id, FOREVER));
        fleet.until_phase(id, AttemptPhase::Ready).await;
    }
    let assigned = |id: &str| {
        let manager = fleet.manager();
        let all = manager.reports.iter().flat_map(|(_, one)| &one.reports);
        let of_it = all.filter(|report| report.attempt_id == id && report.assignment.is_some());
        of_it.count()
    };
    fleet.fail_manager(Some(Status::unavailable("away")));
    pause(500).await;
    fleet.manager().assignments.remove(ids[0]);
    fleet.fail_manager(None);
    until("it is told", || assigned(ids[0]) == 1).await;
    assert_eq!(assigned(ids[1]), 0, "it knows");
    agent.stop().await;
    assert_eq!(assigned(ids[0]), 1, "once is enough");
}

#[tokio::test]
async fn a_registry_that_forgot_is_told_what_runs() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["forgot.0.1"]);
    let agent = Agent::start(fleet.config()).await;
    fleet.assign(assignment("forgot.0.1", FOREVER));
    fleet.until_phase("forgot.0.1", AttemptPhase::Ready).await;
    let registrations = || fleet.registry().registrations.len();
    fleet.registry().failing = Some(reregister());
    pause(300).await;
    fleet.registry().failing = None;
    until("it registers again", || registrations() == 2).await;
    fleet.registry().epoch = "registry-2".into();
    until("it registers in the new history", || registrations() == 3).await;
    fleet.registry().unknown = vec!["a-forgot.0.1".into()];
    until("it registers what is unknown", || registrations() == 4).await;
    {
        let state = fleet.registry();
        let boots = state.registrations.iter().map(|one| &one.boot_id);
        assert_eq!(
            boots.collect::<std::collections::BTreeSet<_>>().len(),
            1,
            "one process, one boot"
        );
        let held = &state.registrations[3].held[0];
        assert_eq!(held.phase(), HeldPhase::Running);
        assert_eq!(held.record.as_ref().unwrap().subject, "chat/0");
    }
    let beats = fleet.registry().beats.len();
    until("it beats", || fleet.registry().beats.len() > beats + 3).await;
    assert_eq!(registrations(), 4);
    assert!(runs("forgot.0.1"));
    agent.stop().await;
}

#[tokio::test]
async fn a_registry_that_fails_is_given_time_whatever_is_to_be_told() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["press.0.1"]);
    let agent = Agent::start(fleet.config()).await;
    fleet.assign(assignment("press.0.1", FOREVER));
    fleet.until_phase("press.0.1", AttemptPhase::Ready).await;
    let running = Some(HeldPhase::Running);
    until("it is told", || fleet.held("a-press.0.1") == running).await;
    fleet.registry().failing = Some(Status::unavailable("away"));
    // Until a call that fails is not tried again by itself.
    pause(3000).await;
    kill_all("press.0.1");
    fleet.until_phase("press.0.1", AttemptPhase::Ended).await;
    let (before, begun) = (fleet.registry().failed, Instant::now());
    pause(1000).await;
    let failed = fleet.registry().failed - before;
    // Ten beats a second are due, and some calls are tried twice.
    let most = 20.0 + 40.0 * begun.elapsed().as_secs_f64();
    assert!(f64::from(u32::try_from(failed).unwrap()) < most, "{failed}");
    agent.stop().await;
}

#[tokio::test]
async fn a_process_that_could_not_keep_its_credential_is_followed_by_the_same() {
    let fleet = Fleet::start().await;
    let blocked = fleet.data().join("credential.new");
    std::fs::create_dir_all(&blocked).unwrap();
    let boots = || {
        let state = fleet.registry();
        let boots = state.registrations.iter().map(|one| one.boot_id.clone());
        boots.collect::<Vec<_>>()
    };
    let mut first = Program::start(&fleet, &[]);
    until("it registers, and again", || boots().len() > 1).await;
    assert!(
        fleet.registry().beats.is_empty(),
        "it is not registered yet"
    );
    first.signal(Signal::KILL);
    first.exit_code().await;
    let tries = boots().len();
    std::fs::remove_dir(&blocked).unwrap();
    let mut second = Program::start(&fleet, &[]);
    until("it beats", || !fleet.registry().beats.is_empty()).await;
    assert_eq!(boots().len(), tries + 1);
    assert!(boots().iter().all(|boot| *boot == boots()[0]));
    assert_eq!(fleet.registry().generation, 1);
    second.signal(Signal::KILL);
    second.exit_code().await;
    let _third = Program::start(&fleet, &[]);
    until("it registers", || boots().len() == tries + 2).await;
    assert_ne!(boots()[tries + 1], boots()[tries], "another process");
}

#[tokio::test]
async fn a_disk_that_stands_still_holds_up_no_heartbeat() {
    let fleet = Fleet::start().await;
    let agent = Program::start(&fleet, &[]);
    let lease = fleet.data().join("lease");
    until("it has a lease", || lease.exists()).await;
    // Who writes to a fifo waits for who reads.
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let fifo = lease.with_extension("new");
    until("its next lease stands still", || {
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).is_ok()
    })
    .await;
    pause(200).await;
    let beats = fleet.registry().beats.len();
    until("it beats on", || fleet.registry().beats.len() > beats + 5).await;
    assert!(fifo.exists());
    agent.signal(Signal::KILL);
}

#[tokio::test]
async fn a_full_disk_ends_no_agent_and_keeps_none_from_starting() {
    let fleet = Fleet::start().await;
    let ids = ["disk.0.1", "disk.1.1", "disk.2.1"];
    let _cleared = Cleared(&ids);
    let mut first = Program::start_on_small_disk(&fleet, false);
    for id in &ids[..2] {
        fleet.assign(assignment(id, FOREVER));
        fleet.until_phase(id, AttemptPhase::Ready).await;
    }
    first.fill_disk(true);
    kill_all(ids[0]);
    fleet.until_phase(ids[0], AttemptPhase::Ended).await;
    until("the registry has heard it", || {
        fleet.held("a-disk.0.1").is_none()
    })
    .await;
    fleet.assign(assignment(ids[2], FOREVER));
    let unsaid = || {
        let told = fleet.phase(ids[2]) == AttemptPhase::Ended;
        !told && !fleet.named_ended("a-disk.2.1") && !runs(ids[2])
    };
    let goes_on = async || {
        let beats = fleet.registry().beats.len();
        until("it beats", || fleet.registry().beats.len() > beats + 10).await;
        assert!(unsaid(), "what it cannot keep it does not say");
        assert_eq!(fleet.held("a-disk.1.1"), Some(HeldPhase::Running));
    };
    goes_on().await;
    first.signal(Signal::KILL);
    first.exit_code().await;
    let second = Program::start_on_small_disk(&fleet, true);
    fleet.manager().latest.clear();
    fleet.until_phase(ids[1], AttemptPhase::Ready).await;
    goes_on().await;
    second.fill_disk(false);
    let ended = fleet.until_phase(ids[2], AttemptPhase::Ended).await;
    assert_eq!(ended.failure_class(), FailureClass::Interruption);
    until("the registry hears it", || fleet.named_ended("a-disk.2.1")).await;
    second.signal(Signal::KILL);
}

#[tokio::test]
async fn a_superseded_agent_stops_what_runs_and_itself() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["twin.0.1"]);
    let mut agent = Program::start(&fleet, &[]);
    fleet.assign(assignment("twin.0.1", FOREVER));
    fleet.until_phase("twin.0.1", AttemptPhase::Ready).await;
    fleet.registry().generation += 1;
    assert_eq!(agent.exit_code().await, Some(1));
    assert!(!runs("twin.0.1"));
}

#[tokio::test]
async fn a_superseded_agent_whose_folder_was_taken_over_only_ends() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["heir.0.1"]);
    let mut agent = Program::start(&fleet, &[]);
    fleet.assign(assignment("heir.0.1", FOREVER));
    fleet.until_phase("heir.0.1", AttemptPhase::Ready).await;
    std::fs::remove_file(fleet.data().join("lock")).unwrap();
    fleet.registry().generation += 1;
    assert_eq!(agent.exit_code().await, Some(1));
    assert!(runs("heir.0.1"), "its successor has adopted it");
}

#[tokio::test]
async fn two_agents_on_one_folder_are_one_too_many() {
    let fleet = Fleet::start().await;
    let first = Agent::start(fleet.config()).await;
    until("it beats", || !fleet.registry().beats.is_empty()).await;
    let mut second = Program::start(&fleet, &[]);
    assert_eq!(second.exit_code().await, Some(1));
    let log = std::fs::read_to_string(fleet.folder.path().join("agent.log")).unwrap();
    assert!(log.contains("is in use by another agent"), "{log}");
    first.stop().await;
}

#[tokio::test]
async fn a_replica_without_its_supervisor_is_ended_and_told() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["orphan.0.1"]);
    let mut agent = Agent::start(fleet.config()).await;
    // Children that do not die with their parent, one of which does not show whose it is.
    let script = "setsid sleep 1000 & env -i sleep 1000 & echo $! > hidden; wait";
    fleet.assign(assignment("orphan.0.1", script));
    fleet.until_phase("orphan.0.1", AttemptPhase::Ready).await;
    let hidden = fleet.data().join("attempts/orphan.0.1/work/hidden");
    let hidden = || std::fs::read_to_string(&hidden).unwrap_or_default();
    until("it says who is hidden", || hidden().ends_with('\n')).await;
    let hidden = hidden();
    let command = || std::fs::read(format!("/proc/{}/cmdline", hidden.trim())).unwrap_or_default();
    until("it sleeps", || command().starts_with(b"sleep")).await;
    let told = agent.about().await;
    kill_process(
        Pid::from_raw(told.attempts[0].supervisor_pid).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    let ended = fleet.until_phase("orphan.0.1", AttemptPhase::Ended).await;
    assert_eq!(ended.failure_class(), FailureClass::Interruption);
    assert!(
        ended.message.contains("supervisor died"),
        "{}",
        ended.message
    );
    assert!(!runs("orphan.0.1") && command().is_empty());
    agent.stop().await;
}

/// The folder of an attempt that was ready, and whose agent and supervisor have died.
async fn bereft(fleet: &Fleet, id: &str) -> std::path::PathBuf {
    let mut agent = Agent::start(fleet.config()).await;
    fleet.assign(assignment(id, FOREVER));
    fleet.until_phase(id, AttemptPhase::Ready).await;
    let supervisor = agent.about().await.attempts[0].supervisor_pid;
    agent.stop().await;
    kill_process(Pid::from_raw(supervisor).unwrap(), Signal::KILL).unwrap();
    until("it has died", || !runs(id)).await;
    fleet.manager().latest.clear();
    fleet.data().join("attempts").join(id)
}

#[tokio::test]
async fn what_runs_is_lost_if_it_cannot_be_read_what_it_is() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["blank.0.1"]);
    let folder = bereft(&fleet, "blank.0.1").await;
    std::fs::write(folder.join("running.json"), "").unwrap();
    let agent = Agent::start(fleet.config()).await;
    let ended = fleet.until_phase("blank.0.1", AttemptPhase::Ended).await;
    assert_eq!(ended.failure_class(), FailureClass::Interruption);
    assert!(
        ended.message.contains("supervisor died"),
        "{}",
        ended.message
    );
    agent.stop().await;
}

#[tokio::test]
async fn nothing_of_an_earlier_boot_is_started() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["power.0.1"]);
    let folder = bereft(&fleet, "power.0.1").await;
    for name in ["running.json", "ready.json"] {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    let spec = std::fs::read_to_string(folder.join("spec.json")).unwrap();
    let spec = spec.replace(&worker_agent::machine::boot_id(), "earlier");
    std::fs::write(folder.join("spec.json"), spec).unwrap();
    let agent = Agent::start(fleet.config()).await;
    let ended = fleet.until_phase("power.0.1", AttemptPhase::Ended).await;
    assert_eq!(ended.failure_class(), FailureClass::Interruption);
    assert_eq!(ended.message, "the machine was restarted");
    assert!(!runs("power.0.1"));
    agent.stop().await;
}

#[tokio::test]
async fn what_was_not_begun_waits_for_its_assignment() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["early.0.1"]);
    let folder = bereft(&fleet, "early.0.1").await;
    for name in ["running.json", "ready.json"] {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    fleet.fail_manager(Some(Status::unavailable("away")));
    let agent = Agent::start(fleet.config()).await;
    until("it registers", || fleet.registry().registrations.len() == 2).await;
    pause(500).await;
    assert!(!runs("early.0.1"), "it may run elsewhere");
    fleet.fail_manager(None);
    fleet.until_phase("early.0.1", AttemptPhase::Ready).await;
    agent.stop().await;
}

#[tokio::test]
async fn what_was_assigned_and_cannot_be_read_is_ended_and_not_run_twice() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["torn.0.1"]);
    let first = Agent::start(fleet.config()).await;
    let script = format!("echo run >> runs; {FOREVER}");
    fleet.assign(assignment("torn.0.1", &script));
    fleet.until_phase("torn.0.1", AttemptPhase::Ready).await;
    first.stop().await;
    fleet.manager().latest.clear();
    let folder = fleet.data().join("attempts/torn.0.1");
    std::fs::write(folder.join("assignment.pb"), "").unwrap();
    let second = Agent::start(fleet.config()).await;
    fleet.until_phase("torn.0.1", AttemptPhase::Ended).await;
    assert!(!runs("torn.0.1"));
    let begun = std::fs::read_to_string(folder.join("work/runs")).unwrap();
    assert_eq!(begun, "run\n");
    second.stop().await;
}

#[tokio::test]
async fn a_machine_that_cannot_start_a_replica_blames_itself() {
    let fleet = Fleet::start().await;
    let agent = Agent::start(fleet.config()).await;
    until("it beats", || !fleet.registry().beats.is_empty()).await;
    std::fs::write(fleet.data().join("attempts/full.0.1"), "").unwrap();
    fleet.assign(assignment("full.0.1", FOREVER));
    let ended = fleet.until_phase("full.0.1", AttemptPhase::Ended).await;
    assert_eq!(ended.failure_class(), FailureClass::Interruption);
    assert!(
        ended.message.contains("cannot make the folder"),
        "{}",
        ended.message
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_stop_that_cannot_be_written_is_passed_on_once_it_can() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["unwritten.0.1"]);
    let agent = Agent::start(fleet.config()).await;
    fleet.assign(assignment("unwritten.0.1", FOREVER));
    fleet
        .until_phase("unwritten.0.1", AttemptPhase::Ready)
        .await;
    let folder = fleet.data().join("attempts/unwritten.0.1");
    let (wake, away) = (folder.join("wake"), folder.join("away"));
    std::fs::rename(&wake, &away).unwrap();
    std::fs::create_dir(folder.join("stop.new")).unwrap();
    fleet.stop("unwritten.0.1");
    fleet
        .until_phase("unwritten.0.1", AttemptPhase::Stopping)
        .await;
    pause(1500).await;
    assert!(runs("unwritten.0.1"), "nobody has told it");
    std::fs::remove_dir(folder.join("stop.new")).unwrap();
    std::fs::rename(&away, &wake).unwrap();
    let ended = fleet
        .until_phase("unwritten.0.1", AttemptPhase::Ended)
        .await;
    assert!(ended.stopped && !ended.interrupted);
    agent.stop().await;
}

#[tokio::test]
async fn a_stop_that_is_never_written_is_obeyed() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["called.0.1"]);
    let agent = Agent::start(fleet.config()).await;
    fleet.assign(assignment("called.0.1", FOREVER));
    fleet.until_phase("called.0.1", AttemptPhase::Ready).await;
    let folder = fleet.data().join("attempts/called.0.1");
    std::fs::create_dir(folder.join("stop.new")).unwrap();
    fleet.stop("called.0.1");
    let ended = fleet.until_phase("called.0.1", AttemptPhase::Ended).await;
    assert!(ended.stopped && !ended.interrupted);
    agent.stop().await;
}

#[tokio::test]
async fn a_replica_whose_folder_is_gone_can_be_stopped_and_ends_with_its_supervisor() {
    let fleet = Fleet::start().await;
    let ids = ["gone.0.1", "gone.1.1"];
    let _cleared = Cleared(&ids);
    let mut agent = Agent::start(fleet.config()).await;
    for id in ids {
        fleet.assign(assignment(id, FOREVER));
        fleet.until_phase(id, AttemptPhase::Ready).await;
    }
    let told = agent.about().await;
    for id in ids {
        std::fs::remove_dir_all(fleet.data().join("attempts").join(id)).unwrap();
    }
    pause(300).await;
    assert!(ids.iter().all(|id| runs(id)), "nothing ends for it alone");
    fleet.stop(ids[0]);
    let stopped = fleet.until_phase(ids[0], AttemptPhase::Ended).await;
    assert!(stopped.stopped && !stopped.interrupted && !runs(ids[0]));
    let mut attempts = told.attempts.iter();
    let supervisor = attempts.find(|one| one.attempt_id == ids[1]).unwrap();
    kill_process(
        Pid::from_raw(supervisor.supervisor_pid).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    let lost = fleet.until_phase(ids[1], AttemptPhase::Ended).await;
    assert_eq!(lost.failure_class(), FailureClass::Interruption);
    assert!(lost.message.contains("folder is gone"), "{}", lost.message);
    assert!(!runs(ids[1]));
    agent.stop().await;
}

#[tokio::test]
async fn an_end_is_told_while_the_disk_does_not_take_it_and_once_it_has() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["late.0.1"]);
    fleet.registry().keeps_ended = true;
    fleet.manager().keeps_ended = true;
    let mut first = Agent::start(fleet.config()).await;
    fleet.assign(assignment("late.0.1", FOREVER));
    fleet.until_phase("late.0.1", AttemptPhase::Ready).await;
    let supervisor = first.about().await.attempts[0].supervisor_pid;
    let supervisor = Pid::from_raw(supervisor).unwrap();
    let lives = || rustix::process::test_kill_process(supervisor).is_ok();
    let folder = fleet.data().join("attempts/late.0.1");
    std::fs::create_dir(folder.join("exit.new")).unwrap();
    kill_all("late.0.1");
    let check = |ended: &AttemptReport| {
        assert_eq!(ended.failure_class(), FailureClass::Error);
        assert_eq!(ended.message, "killed by SIGKILL");
    };
    check(&fleet.until_phase("late.0.1", AttemptPhase::Ended).await);
    assert!(lives(), "it waits for the disk");
    first.stop().await;
    fleet.manager().latest.clear();
    let second = Agent::start(fleet.config()).await;
    check(&fleet.until_phase("late.0.1", AttemptPhase::Ended).await);
    std::fs::remove_dir(folder.join("exit.new")).unwrap();
    until("it is written", || folder.join("exit.json").exists()).await;
    second.stop().await;
    fleet.manager().latest.clear();
    let third = Agent::start(fleet.config()).await;
    check(&fleet.until_phase("late.0.1", AttemptPhase::Ended).await);
    third.stop().await;
}

#[tokio::test]
async fn what_could_not_be_started_nor_written_is_not_started_by_the_next_agent() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["never.0.1"]);
    fleet.registry().keeps_ended = true;
    fleet.manager().keeps_ended = true;
    let mut config = fleet.config();
    config.supervisor_command = vec!["/no/such/program".into(), "supervise".into()];
    let first = Agent::start(config).await;
    until("it beats", || !fleet.registry().beats.is_empty()).await;
    let blocked = fleet.data().join("attempts/never.0.1/exit.new");
    std::fs::create_dir_all(blocked).unwrap();
    fleet.assign(assignment("never.0.1", FOREVER));
    let ended = fleet.until_phase("never.0.1", AttemptPhase::Ended).await;
    assert_eq!(ended.failure_class(), FailureClass::Interruption);
    first.stop().await;
    let registrations = fleet.registry().registrations.len();
    let second = Agent::start(fleet.config()).await;
    until("it registers", || {
        fleet.registry().registrations.len() > registrations
    })
    .await;
    pause(500).await;
    assert!(!runs("never.0.1"));
    second.stop().await;
}

#[tokio::test]
async fn a_port_that_this_machine_has_given_away_is_no_fault_of_the_replica() {
    let fleet = Fleet::start().await;
    let agent = Agent::start(fleet.config()).await;
    let stranger = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let mut wanted = assignment("port.0.1", FOREVER);
    wanted.run.as_mut().unwrap().ports = vec![Port {
        number: stranger.local_addr().unwrap().port().into(),
        host_port: true,
        ..Default::default()
    }];
    fleet.assign(wanted);
    let ended = fleet.until_phase("port.0.1", AttemptPhase::Ended).await;
    assert_eq!(ended.failure_class(), FailureClass::Interruption);
    assert!(ended.message.contains("is in use"), "{}", ended.message);
    agent.stop().await;
}

#[tokio::test]
async fn a_drain_at_the_end_waits_for_the_moves_then_leaves() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["drain.0.1"]);
    let mut agent = Program::start(
        &fleet,
        &["--on-terminate", "drain", "--drain-timeout", "30s"],
    );
    fleet.assign(assignment("drain.0.1", FOREVER));
    fleet.until_phase("drain.0.1", AttemptPhase::Ready).await;
    agent.signal(Signal::TERM);
    until("it asks for a drain", || {
        !fleet.registry().drains.is_empty()
    })
    .await;
    let drain = fleet.registry().drains[0].clone();
    assert_eq!(
        (drain.cause(), drain.after_deadline()),
        (DrainCause::Shutdown, AfterDeadline::Force)
    );
    assert_eq!(drain.generation, 1);
    pause(300).await;
    assert!(runs("drain.0.1") && !fleet.registry().left, "it waits");
    fleet.stop("drain.0.1");
    assert_eq!(agent.exit_code().await, Some(0));
    let state = fleet.registry();
    assert!(state.left);
    assert!(state.beats.last().unwrap().1.leaving, "the last word");
    assert_eq!(fleet.phase("drain.0.1"), AttemptPhase::Ended);
}

#[tokio::test]
async fn a_drain_is_forced_when_its_time_has_passed_even_unheard() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["force.0.1"]);
    let mut agent = Program::start(
        &fleet,
        &["--on-terminate", "drain", "--drain-timeout", "500ms"],
    );
    fleet.assign(assignment("force.0.1", FOREVER));
    fleet.until_phase("force.0.1", AttemptPhase::Ready).await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.exit_code().await, Some(0));
    assert!(!runs("force.0.1"));
    assert!(fleet.report("force.0.1").interrupted);
}

#[tokio::test]
async fn a_second_signal_skips_the_drain() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["twice.0.1"]);
    let mut agent = Program::start(&fleet, &["--on-terminate", "drain"]);
    fleet.assign(assignment("twice.0.1", FOREVER));
    fleet.until_phase("twice.0.1", AttemptPhase::Ready).await;
    agent.signal(Signal::TERM);
    until("it asks for a drain", || {
        !fleet.registry().drains.is_empty()
    })
    .await;
    let begun = Instant::now();
    agent.signal(Signal::TERM);
    agent.exit_code().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(runs("twice.0.1"), "the next agent finds it");
}

#[tokio::test]
async fn a_stack_that_ends_as_a_whole_stops_its_replicas() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["whole.0.1"]);
    let mut config = fleet.config();
    config.on_terminate = OnTerminate::Stop;
    let agent = Agent::start(config).await;
    fleet.assign(assignment("whole.0.1", FOREVER));
    fleet.until_phase("whole.0.1", AttemptPhase::Ready).await;
    let report = agent.stop().await;
    assert!(report.is_clean(), "{report:?}");
    assert!(!runs("whole.0.1") && fleet.registry().left);
}

#[tokio::test]
async fn a_forced_drain_stops_everything() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["forced.0.1"]);
    let agent = Agent::start(fleet.config()).await;
    fleet.assign(assignment("forced.0.1", FOREVER));
    fleet.until_phase("forced.0.1", AttemptPhase::Ready).await;
    fleet.registry().forced = true;
    let ended = fleet.until_phase("forced.0.1", AttemptPhase::Ended).await;
    assert!(ended.stopped && ended.interrupted);
    agent.stop().await;
}

#[tokio::test]
async fn an_end_is_told_until_both_have_stored_it() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["told.0.1"]);
    fleet.registry().keeps_ended = true;
    fleet.manager().keeps_ended = true;
    let first = Agent::start(fleet.config()).await;
    fleet.assign(assignment("told.0.1", "exit 3"));
    fleet.until_phase("told.0.1", AttemptPhase::Ended).await;
    until("the registry has heard it", || {
        fleet.named_ended("a-told.0.1")
    })
    .await;
    first.stop().await;
    fleet.manager().latest.clear();
    let second = Agent::start(fleet.config()).await;
    let again = fleet.until_phase("told.0.1", AttemptPhase::Ended).await;
    assert_eq!(again.exit.unwrap().code, Some(3));
    assert_eq!(fleet.held("a-told.0.1"), Some(HeldPhase::Ended));
    fleet.registry().keeps_ended = false;
    fleet.manager().keeps_ended = false;
    until("the registry hears no more of it", || {
        fleet.held("a-told.0.1").is_none()
    })
    .await;
    second.stop().await;
    let third = Agent::start(fleet.config()).await;
    until("it is adopted by nobody", || {
        fleet.registry().registrations.len() == 3
    })
    .await;
    kill_all("told.0.1");
    third.stop().await;
}
