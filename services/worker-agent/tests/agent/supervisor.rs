//! The supervisor with real processes: what it leaves on disk, and what it leaves running.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use worker_agent::attempt_dir::{AttemptDir, Fence, LogLimits, Spec, Stop};
use worker_agent::domain::end::{Exit, ExitCause, StopCause};
use worker_agent::domain::lease::Lease;
use worker_agent::files::{self, Durability};
use worker_agent::log::reader;
use worker_agent::machine;

const PROGRAM: &str = env!("CARGO_BIN_EXE_worker-agent");

struct Attempt {
    dir: AttemptDir,
    supervisor: Child,
    _folder: tempfile::TempDir,
}

fn spec(folder: &Path, script: &str) -> Spec {
    Spec {
        attempt_id: "abc.0.1".into(),
        boot_id: machine::boot_id(),
        launcher_args: vec!["supervise".into()],
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        env: vec![
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("MUSTER_ATTEMPT".into(), mark(folder)),
        ],
        working_dir: folder.to_owned(),
        accelerators: Vec::new(),
        cgroup: None,
        log: LogLimits {
            segment_bytes: 1 << 20,
            segments: 2,
        },
        stop_grace: Duration::from_secs(20),
        fence: None,
        container: None,
    }
}

/// Something that only this attempt's processes have in their environment.
fn mark(folder: &Path) -> String {
    folder.display().to_string()
}

impl Attempt {
    fn start(script: &str) -> Self {
        Self::start_with(script, |_| {})
    }

    fn start_with(script: &str, change: impl FnOnce(&mut Spec)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = spec(folder.path(), script);
        change(&mut spec);
        let dir = AttemptDir::new(folder.path().join("attempt"));
        dir.make().unwrap();
        dir.set_spec(&spec).unwrap();
        let supervisor = supervise(&dir);
        Self {
            dir,
            supervisor,
            _folder: folder,
        }
    }

    /// Waits as an agent does: until the supervisor has closed its output.
    fn launched(&mut self) -> &mut Self {
        let mut text = String::new();
        self.supervisor
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "");
        self
    }

    fn process(&self) -> Pid {
        Pid::from_raw(self.dir.running().unwrap().unwrap().process.unwrap()).unwrap()
    }

    fn exit(&mut self) -> Exit {
        self.supervisor.wait().unwrap();
        self.dir.exit().unwrap().expect("an exit status")
    }

    fn stop_within(&self, grace: Duration) {
        let kill_at = machine::since_boot() + grace;
        let cause = StopCause::Released;
        self.dir.set_stop(&Stop { kill_at, cause }).unwrap();
    }

    fn output(&self) -> Vec<String> {
        let lines = reader::last(self.dir.path(), 1000).unwrap();
        // Some shells say so when a signal ends what they wait for.
        lines
            .into_iter()
            .map(|line| line.text)
            .filter(|text| text != "Terminated")
            .collect()
    }

    fn assert_nothing_runs(&self) {
        let variable = format!("MUSTER_ATTEMPT={}", mark(self._folder.path()));
        assert_eq!(machine::processes_with(&variable), []);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

fn supervise(dir: &AttemptDir) -> Child {
    Command::new(PROGRAM)
        .args(["supervise", "run"])
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(full())
        .spawn()
        .unwrap()
}

/// A file on a disk that is full.
fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

fn pause(millis: u64) {
    let (mut reader, _writer) = std::os::unix::net::UnixStream::pair().unwrap();
    reader
        .set_read_timeout(Some(Duration::from_millis(millis)))
        .unwrap();
    let _ = reader.read(&mut [0]);
}

/// Waits for a condition, for 10 s at most.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        pause(5);
    }
    panic!("never: {what}");
}

fn runs(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

#[test]
fn the_exit_code_and_the_output_are_kept() {
    let mut attempt = Attempt::start("echo out; echo err >&2; pwd; printf end; exit 7");
    let exit = attempt.exit();
    assert_eq!(
        (exit.cause, exit.code, exit.signal),
        (ExitCause::Exited, Some(7), None)
    );
    assert!(!exit.out_of_memory);
    let mut output = attempt.output();
    output.sort();
    let folder = mark(attempt._folder.path());
    assert_eq!(output, [folder.as_str(), "end", "err", "out"]);
    attempt.assert_nothing_runs();
}

#[test]
fn a_killed_replica_is_told_by_its_signal() {
    let mut attempt = Attempt::start("sleep 100");
    attempt.launched();
    kill_process(attempt.process(), Signal::KILL).unwrap();
    let exit = attempt.exit();
    assert_eq!(
        (exit.cause, exit.code, exit.signal),
        (ExitCause::Exited, None, Some(9))
    );
}

#[test]
fn what_cannot_be_executed_is_told_so() {
    for (command, word) in [
        (vec!["no-such-program-here".to_owned()], "No such file"),
        (vec!["/etc/passwd".to_owned()], "ermission denied"),
        (vec![], "empty"),
    ] {
        let mut attempt = Attempt::start_with("", |spec| spec.command = command.clone());
        let exit = attempt.exit();
        assert_eq!(
            exit.cause,
            ExitCause::NotExecutable,
            "{command:?}: {}",
            exit.message
        );
        assert!(exit.message.contains(word), "{}", exit.message);
        assert_eq!(exit.code, None);
        assert_eq!(attempt.dir.running().unwrap().unwrap().start_time, None);
    }
    let mut attempt = Attempt::start_with("true", |spec| spec.working_dir = "/nowhere".into());
    assert!(attempt.exit().message.contains("/nowhere"));
}

#[test]
fn it_sees_its_own_environment_only() {
    let mut attempt = Attempt::start("env");
    attempt.exit();
    let mut names: Vec<String> = attempt.output();
    names
        .iter_mut()
        .for_each(|line| line.truncate(line.find('=').unwrap()));
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(&name.as_str()));
    names.sort();
    assert_eq!(names, ["MUSTER_ATTEMPT", "PATH"]);
}

#[test]
fn it_is_asked_to_stop_and_has_its_grace() {
    let mut attempt =
        Attempt::start("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done");
    until("it is up", || attempt.output() == ["up"]);
    let asked = machine::since_boot();
    attempt.stop_within(Duration::from_secs(20));
    let exit = attempt.exit();
    assert_eq!((exit.cause, exit.code), (ExitCause::Stopped, Some(3)));
    assert_eq!(attempt.output(), ["up", "bye"]);
    assert!(machine::since_boot() - asked < Duration::from_secs(5));
}

#[test]
fn a_supervisor_that_is_told_to_end_has_its_grace_too() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut attempt =
            Attempt::start("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done");
        until("it is up", || attempt.output() == ["up"]);
        kill_process(Pid::from_child(&attempt.supervisor), signal).unwrap();
        let exit = attempt.exit();
        assert_eq!((exit.cause, exit.code), (ExitCause::Interrupted, Some(0)));
        assert_eq!(attempt.output(), ["up", "bye"]);
        attempt.assert_nothing_runs();
    }
}

#[test]
fn no_two_replicas_run_on_one_accelerator() {
    let on = |gpus: &[&str], script: &str| {
        let me = std::process::id();
        let gpus = gpus.iter().map(|gpu| format!("{gpu}-{me}")).collect();
        Attempt::start_with(script, |spec| spec.accelerators = gpus)
    };
    let mut first = on(&["GPU-a", "GPU-b"], "echo up; exec sleep 100");
    until("it is up", || first.output() == ["up"]);
    let mut second = on(&["GPU-c", "GPU-b"], "echo up");
    let exit = second.exit();
    assert_eq!(exit.cause, ExitCause::NotStarted);
    let used = format!("its accelerator GPU-b-{}", std::process::id());
    assert!(exit.message.starts_with(&used), "{}", exit.message);
    let by = format!("process {} (", first.supervisor.id());
    assert!(exit.message.contains(&by), "{}", exit.message);
    let folder = first.dir.path().display().to_string();
    assert!(exit.message.contains(&folder), "{}", exit.message);
    assert!(second.output().is_empty(), "it never ran");
    assert_eq!(on(&["GPU-c"], "exit 0").exit().cause, ExitCause::Exited);
    // What is killed with its supervisor gives them back too.
    first.supervisor.kill().unwrap();
    assert_eq!(on(&["GPU-b"], "exit 0").exit().cause, ExitCause::Exited);
}

#[test]
fn what_no_agent_can_know_of_is_ended() {
    let mut attempt = Attempt::start("echo up; exec sleep 100");
    until("it is up", || attempt.output() == ["up"]);
    let process = attempt.launched().process();
    let mut wake = attempt.dir.wake_end().unwrap();
    // A disk that is away for a while, or a folder that is put elsewhere, is no reason.
    let elsewhere = attempt._folder.path().join("elsewhere");
    std::fs::rename(attempt.dir.path(), &elsewhere).unwrap();
    wake.write_all(&[1]).unwrap();
    pause(300);
    assert!(runs(process));
    std::fs::remove_dir_all(&elsewhere).unwrap();
    wake.write_all(&[1]).unwrap();
    assert!(attempt.supervisor.wait().unwrap().success());
    attempt.assert_nothing_runs();
}

#[test]
fn a_replica_that_is_told_to_end_with_its_supervisor_has_not_failed() {
    let mut attempt = Attempt::start("exec sleep 100");
    let process = attempt.launched().process();
    kill_process(Pid::from_child(&attempt.supervisor), Signal::TERM).unwrap();
    // The supervisor may have ended it already.
    let _ = kill_process(process, Signal::TERM);
    let exit = attempt.exit();
    assert_eq!(
        (exit.cause, exit.signal),
        (ExitCause::Interrupted, Some(15))
    );
}

#[test]
fn it_is_killed_when_its_grace_has_passed_with_all_that_it_started() {
    let mut attempt = Attempt::start(
        "trap '' TERM; setsid sh -c \"trap '' TERM; echo deep; while :; do sleep 0.1; done\" & \
         echo up; while :; do sleep 0.1; done",
    );
    until("both are up", || attempt.output().len() == 2);
    let asked = machine::since_boot();
    attempt.stop_within(Duration::from_millis(300));
    let exit = attempt.exit();
    let took = machine::since_boot() - asked;
    assert_eq!((exit.cause, exit.signal), (ExitCause::Stopped, Some(9)));
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    attempt.assert_nothing_runs();
}

#[test]
fn a_stop_can_be_asked_for_again_sooner() {
    let mut attempt = Attempt::start("trap '' TERM; echo up; while :; do sleep 0.1; done");
    until("it is up", || attempt.output() == ["up"]);
    attempt.stop_within(Duration::from_secs(600));
    attempt.stop_within(Duration::ZERO);
    assert_eq!(attempt.exit().signal, Some(9));
}

#[test]
fn children_that_finish_their_work_within_the_grace_are_let() {
    let mut attempt = Attempt::start(
        "sh -c \"trap 'sleep 0.3; echo finished; exit 0' TERM; echo up; while :; do sleep 0.01; done\" & wait",
    );
    until("it is up", || attempt.output() == ["up"]);
    attempt.stop_within(Duration::from_secs(20));
    assert_eq!(attempt.exit().cause, ExitCause::Stopped);
    assert_eq!(attempt.output(), ["up", "finished"]);
}

#[test]
fn children_in_sessions_of_their_own_are_asked_too() {
    let mut attempt = Attempt::start(
        "setsid sh -c \"trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.01; done\" & wait",
    );
    until("it is up", || attempt.output() == ["up"]);
    attempt.stop_within(Duration::from_secs(20));
    assert_eq!(attempt.exit().cause, ExitCause::Stopped);
    assert_eq!(attempt.output(), ["up", "asked"]);
    attempt.assert_nothing_runs();
}

#[test]
fn a_stop_in_the_middle_of_the_start_asks_too() {
    for _ in 0..20 {
        let mut attempt = Attempt::start("exec sleep 100");
        until("there is a supervisor", || {
            matches!(attempt.dir.running(), Ok(Some(_)))
        });
        attempt.stop_within(Duration::from_secs(20));
        let exit = attempt.exit();
        assert_eq!(exit.cause, ExitCause::Stopped);
        assert_ne!(exit.signal, Some(9), "it was asked, and needs no kill");
    }
}

#[test]
fn what_a_crash_leaves_behind_is_killed_at_once() {
    let mut attempt = Attempt::start("(setsid sleep 100 &) ; sleep 100 & exit 1");
    let exit = attempt.exit();
    assert_eq!((exit.cause, exit.code), (ExitCause::Exited, Some(1)));
    attempt.assert_nothing_runs();
}

#[test]
fn a_supervisor_whose_folder_is_gone_does_not_stay_when_its_replica_ends() {
    let mut attempt = Attempt::start("exec sleep 3600");
    let process = attempt.launched().process();
    std::fs::remove_dir_all(attempt.dir.path()).unwrap();
    kill_process(process, Signal::KILL).unwrap();
    until("the supervisor has ended", || {
        attempt.supervisor.try_wait().unwrap().is_some()
    });
}

#[test]
fn an_exit_that_the_disk_does_not_take_is_kept_until_it_does() {
    let mut attempt = Attempt::start("while ! [ -e go ]; do sleep 0.01; done; exit 7");
    let (go, blocked) = (
        attempt._folder.path().join("go"),
        attempt.dir.path().join("exit.new"),
    );
    attempt.launched();
    std::fs::create_dir(&blocked).unwrap();
    std::fs::write(go, "").unwrap();
    pause(300);
    assert_eq!(attempt.supervisor.try_wait().unwrap(), None, "it waits");
    std::fs::remove_dir(&blocked).unwrap();
    assert_eq!(attempt.exit().code, Some(7));
}

/// Who opens a fifo waits for who opens its other end.
fn fifo(path: &Path) -> rustix::io::Result<()> {
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR)
}

/// Starts an attempt that runs until it is stopped; `block` makes the place where it would say that it runs one
/// that cannot be written to.
fn start_unsaid(folder: &Path, block: impl Fn(&Path) -> bool) -> (AttemptDir, Child) {
    let dir = AttemptDir::new(folder.join("attempt"));
    dir.make().unwrap();
    dir.set_spec(&spec(folder, "while :; do sleep 0.05; done"))
        .unwrap();
    let [spec, fresh] = ["spec.json", "running.new"].map(|name| dir.path().join(name));
    let text = std::fs::read(&spec).unwrap();
    // So every step waits for us.
    fifo(&fresh).unwrap();
    let supervisor = supervise(&dir);
    until("it has read its spec", || dir.life().unwrap().is_some());
    std::fs::remove_file(&spec).unwrap();
    fifo(&spec).unwrap();
    std::fs::read(&fresh).unwrap();
    until("the first is in its place", || block(&fresh));
    std::fs::write(&spec, text).unwrap();
    (dir, supervisor)
}

fn processes_of(folder: &Path) -> Vec<Pid> {
    machine::processes_with(&format!("MUSTER_ATTEMPT={}", mark(folder)))
}

#[test]
fn what_cannot_be_told_to_run_is_ended_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, mut supervisor) =
        start_unsaid(folder.path(), |fresh| std::fs::create_dir(fresh).is_ok());
    until("it ends", || supervisor.try_wait().unwrap().is_some());
    let exit = dir.exit().unwrap().unwrap();
    assert_eq!(exit.cause, ExitCause::NotStarted);
    assert!(
        exit.message.contains("cannot write down that it runs"),
        "{exit:?}"
    );
    assert_eq!(processes_of(folder.path()), []);
}

#[test]
fn a_disk_that_stands_still_at_the_start_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, mut supervisor) = start_unsaid(folder.path(), |fresh| fifo(fresh).is_ok());
    until("it runs", || !processes_of(folder.path()).is_empty());
    pause(200);
    dir.set_stop(&Stop {
        kill_at: machine::since_boot(),
        cause: StopCause::Released,
    })
    .unwrap();
    until("it ends", || supervisor.try_wait().unwrap().is_some());
    assert_eq!(dir.exit().unwrap().unwrap().cause, ExitCause::Stopped);
    assert_eq!(processes_of(folder.path()), []);
}

#[test]
fn a_replica_dies_with_its_supervisor() {
    let mut attempt = Attempt::start("while :; do sleep 0.05; done");
    let pid = attempt.launched().process();
    attempt.supervisor.kill().unwrap();
    attempt.supervisor.wait().unwrap();
    until("the replica is gone", || !runs(pid));
    assert_eq!(attempt.dir.exit().unwrap(), None);
}

#[test]
fn two_supervisors_never_run_one_attempt() {
    let mut attempt = Attempt::start("echo run; sleep 0.3");
    let mut second = supervise(&attempt.dir);
    attempt.exit();
    second.wait().unwrap();
    let mut third = supervise(&attempt.dir);
    third.wait().unwrap();
    assert_eq!(attempt.output(), ["run"]);
}

#[test]
fn a_stop_before_the_start_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = AttemptDir::new(folder.path().join("attempt"));
    dir.make().unwrap();
    dir.set_spec(&spec(folder.path(), "echo run")).unwrap();
    dir.set_stop(&Stop {
        kill_at: Duration::ZERO,
        cause: StopCause::Released,
    })
    .unwrap();
    assert!(supervise(&dir).wait().unwrap().success());
    let exit = dir.exit().unwrap().unwrap();
    assert_eq!((exit.cause, exit.code), (ExitCause::Stopped, None));
    assert!(reader::last(dir.path(), 9).unwrap().is_empty());
}

fn renew(path: &Path, fence_after: Duration) -> Lease {
    let lease = Lease::renewed(&machine::boot_id(), machine::since_boot(), fence_after);
    files::replace(path, lease.print().as_bytes(), Durability::Kernel).unwrap();
    lease
}

#[test]
fn the_fence_ends_it_before_the_deadline_and_renewal_puts_it_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lease");
    let mut lease = renew(&path, Duration::from_secs(1));
    let mut attempt = Attempt::start_with("trap '' TERM; while :; do sleep 0.05; done", |spec| {
        spec.fence = Some(Fence {
            lease: path.clone(),
            grace: Duration::from_millis(200),
        });
    });
    for _ in 0..6 {
        pause(300);
        lease = renew(&path, Duration::from_secs(1));
    }
    assert!(
        runs(attempt.launched().process()),
        "it is renewed, and runs on"
    );
    let exit = attempt.exit();
    assert_eq!(
        (exit.cause, exit.signal),
        (ExitCause::Fenced, Some(9)),
        "{exit:?}"
    );
    let ago = machine::wall_time().duration_since(exit.time).unwrap();
    let ended = machine::since_boot() - ago;
    // The registry leaves a second between the lease's end and the next attempt.
    let slack = Duration::from_millis(500);
    assert!(
        ended < lease.deadline + slack,
        "{ended:?} is after {:?}",
        lease.deadline
    );
    assert!(ended + slack > lease.deadline, "far too early");
    attempt.assert_nothing_runs();
}

#[test]
fn a_changed_grace_counts_for_what_runs() {
    let leases = tempfile::tempdir().unwrap();
    let path = leases.path().join("lease");
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let lease = Lease {
        deadline: machine::since_boot() + minutes(20),
        ..renew(&path, minutes(60))
    };
    std::fs::write(&path, lease.print()).unwrap();
    let mut attempt = Attempt::start_with(
        "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done",
        |spec| {
            spec.fence = Some(Fence {
                lease: path.clone(),
                grace: minutes(1),
            });
        },
    );
    until("it is up", || attempt.output() == ["up"]);
    attempt.dir.set_grace(minutes(25)).unwrap();
    until("it ends", || matches!(attempt.dir.exit(), Ok(Some(_))));
    let exit = attempt.exit();
    assert_eq!((exit.cause, exit.code), (ExitCause::Fenced, Some(0)));
    assert_eq!(attempt.output(), ["up", "bye"]);
}

#[test]
fn without_a_lease_nothing_that_needs_one_is_started() {
    let mut attempt = Attempt::start_with("echo run", |spec| {
        spec.fence = Some(Fence {
            lease: "/nowhere/lease".into(),
            grace: Duration::ZERO,
        });
    });
    assert_eq!(attempt.exit().cause, ExitCause::Fenced);
    assert!(attempt.output().is_empty());
}

#[test]
fn a_flood_of_output_is_bounded() {
    let mut attempt = Attempt::start_with(
        "i=0; while [ $i -lt 20000 ]; do echo \"line $i of a flood of output\"; i=$((i+1)); done",
        |spec| {
            spec.log = LogLimits {
                segment_bytes: 50_000,
                segments: 3,
            }
        },
    );
    assert_eq!(attempt.exit().code, Some(0));
    let output = attempt.output();
    assert_eq!(output.last().unwrap(), "line 19999 of a flood of output");
    let kept: u64 = std::fs::read_dir(attempt.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_str().unwrap().starts_with("log."))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(kept < 3 * (50_000 + 70_000), "{kept} bytes");
}

#[test]
fn bad_usage_is_refused() {
    for args in [
        &["supervise"][..],
        &["supervise", "fly"],
        &["supervise", "run"],
    ] {
        let status = Command::new(PROGRAM)
            .args(args)
            .stderr(full())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(2), "{args:?}");
    }
    let status = Command::new(PROGRAM)
        .args(["supervise", "check"])
        .status()
        .unwrap();
    assert!(status.success());
}
