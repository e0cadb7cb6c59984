//! The limits that the kernel keeps for replicas that run as processes, and what it says and ends of
//! them by their control groups. Skipped where the unified hierarchy cannot be written with its
//! controllers; `tests/cgroups/run.py` runs this in a machine that has it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use muster_proto::replicas::v1::*;
use muster_proto::workers::v1::WorkerState;
use rustix::process::{Pid, Signal, kill_process};
use worker_agent::config::{CgroupParent, Config};

use crate::support::fleet::{Agent, Cleared, Fleet, Program, assignment, runs, until};

const ROOT: &str = "/sys/fs/cgroup";
const FOREVER: &str = "exec sleep 1000";
/// Uses up any memory.
const GREEDY: &str = "x=0123456789abcdef; while :; do x=$x$x; done";

/// Whether groups with limits can be made here.
fn usable() -> bool {
    static WRONG: OnceLock<Option<String>> = OnceLock::new();
    let wrong = WRONG.get_or_init(|| try_out().err().map(|error| error.to_string()));
    if let Some(wrong) = wrong {
        eprintln!("SKIPPED: no control groups (v2) can be made in {ROOT}: {wrong}");
    }
    wrong.is_none()
}

fn try_out() -> std::io::Result<()> {
    let has = fs::read_to_string(format!("{ROOT}/cgroup.controllers"))?;
    let has: Vec<&str> = has.split_ascii_whitespace().collect();
    if !["cpu", "memory"].iter().all(|one| has.contains(one)) {
        return Err(std::io::Error::other(format!("there is only {has:?}")));
    }
    fs::write(format!("{ROOT}/cgroup.subtree_control"), "+cpu +memory")?;
    let probe = format!("{ROOT}/muster-probe-{}", std::process::id());
    fs::create_dir(&probe)?;
    fs::remove_dir(&probe)
}

/// The agent's own group.
fn own(fleet: &Fleet) -> PathBuf {
    let data = fs::metadata(fleet.data()).unwrap();
    let name = format!("w1-{:x}-{:x}", data.dev(), data.ino());
    Path::new(CgroupParent::DEFAULT).join(name)
}

fn group(fleet: &Fleet, id: &str) -> PathBuf {
    own(fleet).join(format!("attempt-{id}"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The group of a process; empty once it has ended.
fn group_of(pid: i32) -> PathBuf {
    let line = read(format!("/proc/{pid}/cgroup"));
    let group = line.trim().trim_start_matches("0::");
    PathBuf::from(format!("{ROOT}{group}"))
}

/// Whoever else keeps the machine busy is slow in a virtual one.
async fn quiet() -> Fleet {
    let fleet = Fleet::start().await;
    fleet.registry().interval = Duration::from_millis(500);
    fleet
}

fn config(fleet: &Fleet) -> Config {
    Config {
        sample_interval: Duration::from_secs(5),
        ..fleet.config()
    }
}

/// Runs a script that is ready by itself.
fn plain(id: &str, script: &str) -> Assignment {
    Assignment {
        probes: None,
        ..assignment(id, script)
    }
}

fn limited(id: &str, script: &str, cpu_milli: i32, memory_mib: i32) -> Assignment {
    Assignment {
        cpu_milli,
        memory_mib,
        ..plain(id, script)
    }
}

/// What a replica wrote into its working directory, once it has.
async fn written(fleet: &Fleet, id: &str, name: &str) -> String {
    let path = fleet
        .data()
        .join("attempts")
        .join(id)
        .join("work")
        .join(name);
    until("it is written", || read(&path).ends_with('\n')).await;
    read(&path).trim().to_owned()
}

fn command_of(pid: &str) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// Begins a child that shows nobody whose it is, and says its number.
const HIDE: &str = "env -i setsid sleep 1000 & echo $! > hidden";

async fn hidden(fleet: &Fleet, id: &str) -> String {
    let pid = written(fleet, id, "hidden").await;
    until("it sleeps", || command_of(&pid).starts_with(b"sleep")).await;
    pid
}

async fn until_gone(group: &Path) {
    until("its group is removed", || !group.exists()).await;
}

async fn check_message(fleet: &Fleet) -> String {
    until("it is active", || {
        fleet.registry().state == WorkerState::Active
    })
    .await;
    let checks = fleet.registry().checks.clone();
    let check = checks.iter().find(|check| check.name == "supervisor");
    check.unwrap().message.clone()
}

#[tokio::test]
async fn a_replica_that_uses_up_its_memory_is_out_of_memory() {
    if !usable() {
        return;
    }
    let fleet = quiet().await;
    let agent = Agent::start(config(&fleet)).await;
    fleet.assign(limited("greedy.0.1", GREEDY, 0, 48));
    let ended = fleet.until_phase("greedy.0.1", AttemptPhase::Ended).await;
    assert_eq!(ended.failure_class(), FailureClass::Oom, "{ended:?}");
    let exit = ended.exit.unwrap();
    assert_eq!((exit.signal, exit.out_of_memory), (9, true));
    assert!(ended.message.contains("out of memory"), "{}", ended.message);
    until_gone(&group(&fleet, "greedy.0.1")).await;
    agent.stop().await;
    until_gone(&own(&fleet)).await;
}

/// As engines tell it: whatever the first process made of it.
#[tokio::test]
async fn a_child_that_was_killed_for_memory_makes_the_end_one_of_memory() {
    if !usable() {
        return;
    }
    let fleet = quiet().await;
    let agent = Agent::start(config(&fleet)).await;
    // It may change its own group, and so be killed in part.
    let apart = format!("echo 0 >{ROOT}$(cut -d: -f3 /proc/self/cgroup)/memory.oom.group");
    for (id, code) in [("part.0.1", 3), ("part.0.2", 0)] {
        let script = format!("{apart}; sh -c '{GREEDY}'; exit {code}");
        fleet.assign(limited(id, &script, 0, 48));
        let ended = fleet.until_phase(id, AttemptPhase::Ended).await;
        assert_eq!(ended.failure_class(), FailureClass::Oom, "{ended:?}");
        assert_eq!(ended.exit.unwrap().code, Some(code));
    }
    agent.stop().await;
}

#[tokio::test]
async fn limits_are_on_the_replica_and_not_on_its_supervisor() {
    if !usable() {
        return;
    }
    let fleet = quiet().await;
    let _cleared = Cleared(&["limits.0.1", "free.0.1"]);
    let mut agent = Agent::start(config(&fleet)).await;
    fleet.assign(limited("limits.0.1", "while :; do :; done", 200, 64));
    fleet.assign(plain("free.0.1", FOREVER));
    for id in ["limits.0.1", "free.0.1"] {
        fleet.until_phase(id, AttemptPhase::Ready).await;
    }
    let group = group(&fleet, "limits.0.1");
    let replica = group.join("replica");
    for (file, value) in [
        ("cpu.max", "20000 100000\n"),
        ("memory.max", "67108864\n"),
        ("memory.oom.group", "1\n"),
    ] {
        assert_eq!(read(replica.join(file)), value, "{file}");
        let of_supervisor = read(group.join("supervisor").join(file));
        assert_ne!(of_supervisor, value, "{file}");
        assert_eq!(
            read(self::group(&fleet, "free.0.1").join("replica").join(file)),
            of_supervisor
        );
    }
    let swap = replica.join("memory.swap.max");
    assert!(!swap.exists() || read(swap) == "0\n");
    let throttled = || {
        let stat = read(replica.join("cpu.stat"));
        let mut lines = stat
            .lines()
            .filter_map(|line| line.strip_prefix("nr_throttled "));
        lines.any(|count| count != "0")
    };
    until("it is held back", throttled).await;
    let about = agent.about().await;
    let told = about
        .attempts
        .iter()
        .find(|one| one.attempt_id == "limits.0.1")
        .unwrap();
    assert_eq!(group_of(told.supervisor_pid), group.join("supervisor"));
    assert_eq!(group_of(told.pid), replica);
    let message = check_message(&fleet).await;
    assert!(
        message.contains(&own(&fleet).display().to_string()),
        "{message}"
    );
    for id in ["limits.0.1", "free.0.1"] {
        fleet.stop(id);
        fleet.until_phase(id, AttemptPhase::Ended).await;
        until_gone(&self::group(&fleet, id)).await;
    }
    agent.stop().await;
    until_gone(&own(&fleet)).await;
}

#[tokio::test]
async fn nothing_hides_from_the_end_of_a_replica_without_its_supervisor() {
    if !usable() {
        return;
    }
    let fleet = quiet().await;
    let _cleared = Cleared(&["hides.0.1"]);
    let mut agent = Agent::start(config(&fleet)).await;
    // It may also have made groups of its own.
    let own = format!("mkdir {ROOT}$(cut -d: -f3 /proc/self/cgroup)/below");
    fleet.assign(plain("hides.0.1", &format!("{own}; {HIDE}; wait")));
    fleet.until_phase("hides.0.1", AttemptPhase::Ready).await;
    let hidden = hidden(&fleet, "hides.0.1").await;
    let supervisor = agent.about().await.attempts[0].supervisor_pid;
    kill_process(Pid::from_raw(supervisor).unwrap(), Signal::KILL).unwrap();
    let ended = fleet.until_phase("hides.0.1", AttemptPhase::Ended).await;
    assert!(
        command_of(&hidden).is_empty(),
        "it is not called ended before"
    );
    assert_eq!(ended.failure_class(), FailureClass::Interruption);
    until_gone(&group(&fleet, "hides.0.1")).await;
    agent.stop().await;
}

#[tokio::test]
async fn what_a_dead_agent_has_left_is_ended_and_removed_by_the_next() {
    if !usable() {
        return;
    }
    let fleet = quiet().await;
    let ids = ["left.0.1", "left.1.1", "left.2.1"];
    let _cleared = Cleared(&ids);
    let mut first = Program::start(&fleet, &[]);
    for id in ids {
        fleet.assign(plain(id, &format!("{HIDE}; wait")));
        fleet.until_phase(id, AttemptPhase::Ready).await;
    }
    let [lost, forsaken, kept] = ids;
    let supervisor = |id: &str| read(group(&fleet, id).join("supervisor/cgroup.procs"));
    let killed = |id: &str| {
        let pid = supervisor(id).trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    };
    let mut sleeping = Vec::new();
    for id in [lost, forsaken] {
        sleeping.push(hidden(&fleet, id).await);
    }
    first.signal(Signal::KILL);
    first.exit_code().await;
    killed(lost);
    fs::remove_dir_all(fleet.data().join("attempts").join(forsaken)).unwrap();
    fleet.manager().assignments.remove(forsaken);
    let mut second = Program::start(&fleet, &[]);
    fleet.until_phase(lost, AttemptPhase::Ended).await;
    for id in [lost, forsaken] {
        until_gone(&group(&fleet, id)).await;
    }
    assert!(sleeping.iter().all(|pid| command_of(pid).is_empty()));
    assert!(runs(kept) && !supervisor(kept).is_empty());
    fleet.stop(kept);
    fleet.until_phase(kept, AttemptPhase::Ended).await;
    until_gone(&group(&fleet, kept)).await;
    second.signal(Signal::TERM);
    second.exit_code().await;
    until_gone(&own(&fleet)).await;
}

/// A group of this test's own, with its processes.
struct Parent(PathBuf);

impl Parent {
    fn new(name: &str) -> Self {
        let path = format!("{ROOT}/muster-test-{name}-{}", std::process::id());
        fs::create_dir(&path).unwrap();
        Self(path.into())
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Runs a replica with a limit below a parent where that cannot be kept, and says what is said of it.
async fn said_below(parent: &Path, id: &str) -> String {
    let fleet = quiet().await;
    let ids = [id];
    let _cleared = Cleared(&ids);
    let mut config = config(&fleet);
    config.cgroup_parent = CgroupParent::Below(parent.to_owned());
    let agent = Agent::start(config).await;
    fleet.assign(limited(id, FOREVER, 500, 64));
    fleet.until_phase(id, AttemptPhase::Ready).await;
    let said = check_message(&fleet).await;
    fleet.stop(id);
    let ended = fleet.until_phase(id, AttemptPhase::Ended).await;
    assert!(ended.stopped, "{ended:?}");
    agent.stop().await;
    said
}

#[tokio::test]
async fn without_a_hierarchy_a_replica_runs_without_limits_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let said = said_below(&folder.path().join("muster"), "none.0.1").await;
    assert!(said.contains("no cgroup v2 hierarchy"), "{said}");
}

#[tokio::test]
async fn below_a_group_with_processes_a_replica_runs_without_limits_and_that_is_said() {
    if !usable() {
        return;
    }
    let parent = Parent::new("busy");
    let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(parent.0.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
    let said = said_below(&parent.0, "busy.0.1").await;
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    for word in ["cpu", "memory", "processes of its own"] {
        assert!(said.contains(word), "{said}");
    }
}

#[tokio::test]
async fn where_nothing_can_be_written_a_replica_runs_without_limits_and_that_is_said() {
    if !usable() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let ran = |program: &str, args: &[&str]| {
        let status = Command::new(program).args(args).status();
        status.is_ok_and(|status| status.success())
    };
    if !ran("mount", &["--bind", ROOT, &at]) {
        eprintln!("SKIPPED: nothing can be mounted here");
        return;
    }
    let read_only = ran("mount", &["-o", "remount,bind,ro", &at]);
    let said = said_below(&folder.path().join("muster-test"), "sealed.0.1").await;
    assert!(ran("umount", &[&at]) && read_only);
    assert!(said.contains("Read-only"), "{said}");
}

#[tokio::test]
async fn a_parent_of_its_own_may_be_named_and_stays() {
    if !usable() {
        return;
    }
    let parent = Parent::new("named");
    let said = said_below(&parent.0, "named.0.1").await;
    assert!(said.contains(&parent.0.display().to_string()), "{said}");
    assert_eq!(
        fs::read_dir(&parent.0)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().is_dir())
            .count(),
        0
    );
}
