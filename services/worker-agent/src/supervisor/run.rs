//! The supervisor's life: take the attempt's lock, start the replica, wait for its end or for an
//! order, end everything, and leave the exit status on disk. One thread decides and signals; it
//! touches the disk only before the start and after the end, so that nothing holds up the fence.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{getpid, set_child_subreaper, setsid};

use super::complain;
use super::container;
use super::launch::Failure;
use super::note::Note;
use super::orders::{self, Due, End, Shared, Why};
use super::process::Process;
use crate::attempt_dir::{AttemptDir, Lock, Running, Spec};
use crate::cgroup::Group;
use crate::claims::use_of;
use crate::domain::end::{Exit, ExitCause};
use crate::log::writer::Writer;
use crate::machine;
use crate::machine::claim::{Claim, Holder};

/// Another holder of the lock is waited for: an agent holds it only to look.
const LOCK_TRIES: u32 = 200;
/// An accelerator's last replica has ended, but its supervisor may be a moment from its own end.
const CLAIM_TRIES: u32 = 100;
/// Between tries of either.
const TAKE_PAUSE: Duration = Duration::from_millis(10);
/// Between looks at what a replica left behind: its end cannot be waited for otherwise.
const REMAINS_PAUSE: Duration = Duration::from_millis(5);
/// Between kills, at last: some processes cannot be killed.
const LONGEST_KILL_PAUSE: Duration = Duration::from_millis(500);
/// What is left in a replica's pipes is waited for this long: a stranger may hold their other end.
const OUTPUT_TIME: Duration = Duration::from_secs(1);
/// Whoever asks all processes of a service to end may come to us after the replica, by this much.
const OWN_SIGNAL_TIME: Duration = Duration::from_millis(100);
/// Zombies that a running replica leaves to us are taken this often.
const REAP_EVERY: Duration = Duration::from_secs(5);

/// `run FOLDER`.
pub(super) fn main(folder: &Path) -> ExitCode {
    match supervise(&AttemptDir::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{}: {error}", folder.display()));
            ExitCode::FAILURE
        }
    }
}

fn supervise(dir: &AttemptDir) -> io::Result<()> {
    let Some(lock) = take_lock(dir)? else {
        return Ok(());
    };
    if dir.has_begun()? {
        // It has been run before, and is never run again.
        return Ok(());
    }
    let spec = dir.spec()?;
    let alive = dir.alive_end()?;
    detach();
    if let Some(group) = &spec.cgroup
        && let Err(error) = group.enter_as_supervisor()
    {
        complain(&format!("cannot enter the control group: {error}"));
    }
    let running = Running {
        boot_id: machine::boot_id(),
        supervisor: getpid().as_raw_pid(),
        process: None,
        process_start: None,
        start_time: None,
        started: None,
    };
    let (orders, changed) = orders::begin(dir, &spec)?;
    dir.set_running(&running)?;
    let exit = match claim(&spec.accelerators) {
        Ok(_claims) => match &spec.container {
            None => Run::new(dir, &spec, running, orders, changed).until_the_end()?,
            Some(container) => container::run(dir, &spec, container, running, orders, changed)?,
        },
        Err(failure) => finish(None, Some(failure), String::new()),
    };
    if let Some(group) = &spec.cgroup {
        // What cannot be removed is removed with the rest, by the agent.
        let _ = group.remove_replica();
    }
    leave_exit(dir, &lock, &alive, &exit);
    Ok(())
}

fn take_lock(dir: &AttemptDir) -> io::Result<Option<Lock>> {
    in_turn(LOCK_TRIES, || dir.try_lock())
}

/// What is had by one process at a time, once whoever has it gives it back; nothing if that takes too long.
fn in_turn<T>(
    tries: u32,
    mut take: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    for _ in 0..tries {
        if let Some(taken) = take()? {
            return Ok(Some(taken));
        }
        pause(TAKE_PAUSE);
    }
    Ok(None)
}

/// Has the accelerators for as long as the replica runs: no two run on one, whoever has started them and
/// whatever the agents of this machine know of each other.
fn claim(accelerators: &[String]) -> Result<Vec<Claim>, Failure> {
    let mut claims = Vec::with_capacity(accelerators.len());
    for accelerator in accelerators {
        match claim_one(&use_of(accelerator)) {
            Ok(Ok(claim)) => claims.push(claim),
            Ok(Err(holder)) => {
                return Err(Failure {
                    cause: ExitCause::NotStarted,
                    message: format!("its accelerator {accelerator} is used by {holder}"),
                });
            }
            // Where the kernel has no such names, the registry's word is all there is.
            Err(error) => complain(&format!("cannot claim accelerator {accelerator}: {error}")),
        }
    }
    Ok(claims)
}

fn claim_one(name: &str) -> io::Result<Result<Claim, Holder>> {
    Ok(match in_turn(CLAIM_TRIES, || Claim::take(name))? {
        Some(claim) => Ok(claim),
        None => Err(Holder::of(name)?.unwrap_or_default()),
    })
}

/// A session of its own, the parent of all orphans below, and last in line when memory is short.
fn detach() {
    let _ = setsid();
    let _ = set_child_subreaper(Some(getpid()));
    let _ = std::fs::write("/proc/self/oom_score_adj", "-500");
    let _ = std::env::set_current_dir("/");
}

/// The exit status has to get to disk: a full disk is waited for. The agent hears of it meanwhile,
/// so that it does not take for running what has ended.
fn leave_exit(dir: &AttemptDir, lock: &Lock, alive: &File, exit: &Exit) {
    let mut wait = Duration::from_millis(50);
    while let Err(error) = dir.set_exit(lock, exit) {
        complain(&format!("cannot write the exit status: {error}"));
        if !dir.path().exists() {
            // Whoever removed it will not ask.
            return;
        }
        AttemptDir::tell_exit(alive, exit);
        pause(wait);
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}

/// One run of one replica.
struct Run<'a> {
    dir: &'a AttemptDir,
    spec: &'a Spec,
    running: Running,
    orders: Shared,
    changed: UnixStream,
    launched: bool,
    /// What is being said of its beginning.
    note: Option<Note>,
    ending: Option<End>,
    failure: Option<Failure>,
    /// Until the next kill.
    kill_pause: Duration,
}

impl<'a> Run<'a> {
    fn new(
        dir: &'a AttemptDir,
        spec: &'a Spec,
        running: Running,
        orders: Shared,
        changed: UnixStream,
    ) -> Self {
        Self {
            dir,
            spec,
            running,
            orders,
            changed,
            launched: false,
            note: None,
            ending: None,
            failure: None,
            kill_pause: REMAINS_PAUSE,
        }
    }

    /// Runs it until nothing of it is left.
    fn until_the_end(mut self) -> io::Result<Exit> {
        if let Due::End(end) = self.due() {
            self.ending = Some(end);
            return Ok(self.exit(None));
        }
        let log = Arc::new(Mutex::new(Writer::new(self.dir.path(), self.spec.log)));
        let mut process = match Process::start(self.dir.path(), self.spec, &log) {
            Ok(process) => process,
            Err(error) => {
                let message = format!("cannot start the launcher: {error}");
                self.failure = Some(Failure {
                    cause: ExitCause::NotStarted,
                    message,
                });
                return Ok(self.exit(None));
            }
        };
        while process.status().is_none() {
            self.step(&mut process)?;
        }
        if !self.launched {
            self.note_launch(&mut process);
        }
        let unsaid = self.note.as_ref().and_then(Note::last_failure);
        self.failure = self.failure.take().or(unsaid);
        self.note_interruption(&process);
        self.clear_remains(&mut process);
        process.finish_output(OUTPUT_TIME);
        Ok(self.exit(Some(&process)))
    }

    /// Waits for something to happen, and does what is due.
    fn step(&mut self, process: &mut Process) -> io::Result<()> {
        let now = machine::since_boot();
        let wake_at = match (self.due(), self.ending) {
            (Due::End(end), None) => {
                process.terminate();
                self.ending = Some(end);
                end.kill_at
            }
            (Due::End(end), Some(begun)) => {
                let kill_at = begun.kill_at.min(end.kill_at);
                self.ending = Some(End { kill_at, ..begun });
                kill_at
            }
            (Due::Nothing(_), Some(begun)) => begun.kill_at,
            (Due::Nothing(until), None) => until,
        };
        let mut wait = wake_at.saturating_sub(now).min(REAP_EVERY);
        if self.ending.is_some_and(|end| end.kill_at <= now) {
            wait = self.kill(process);
        }
        self.wait(process, wait)?;
        process.reap();
        Ok(())
    }

    /// Until an order changes, the launch is over, the replica ends, or the time has passed.
    fn wait(&mut self, process: &mut Process, time: Duration) -> io::Result<()> {
        let (launch_over, told) = {
            let ended = process.ended_fd();
            let launch = process.launch_fd();
            let mut fds = [
                PollFd::new(&self.changed, PollFlags::IN),
                PollFd::new(&ended, PollFlags::IN),
                PollFd::new(&launch, PollFlags::IN),
            ];
            // A socket whose other end is closed is always ready: leave it out once it has been read.
            let watched = if self.launched { 2 } else { 3 };
            match poll(&mut fds[..watched], Some(&timespec(time))) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready = |index: usize| !fds[index].revents().is_empty();
            (!self.launched && ready(2), ready(0))
        };
        if told {
            let _ = self.changed.read(&mut [0; 64]);
            if let Some(unsaid) = self.note.as_ref().and_then(Note::failure) {
                self.failure = Some(unsaid);
                process.kill(self.group());
            }
        }
        if launch_over {
            self.note_launch(process);
        }
        Ok(())
    }

    fn note_launch(&mut self, process: &mut Process) {
        self.launched = true;
        match process.launched() {
            Ok(()) => {
                self.running.process = Some(process.pid().as_raw_pid());
                self.running.process_start = machine::start_of(process.pid());
                self.running.start_time = Some(machine::wall_time());
                self.running.started = Some(machine::since_boot());
                self.note = Some(Note::begin(self.dir, &self.running, &self.orders));
            }
            Err(failure) => {
                self.failure = Some(failure);
                close_stdout();
            }
        }
    }

    /// Whether it ended because everything here is told to end, and not by itself.
    fn note_interruption(&mut self, process: &Process) {
        if self.ending.is_some() {
            return;
        }
        if process.was_asked_to_end() {
            pause(OWN_SIGNAL_TIME);
        }
        if let Due::End(end) = self.due()
            && end.why == Why::Interrupted
        {
            self.ending = Some(end);
        }
    }

    /// Ends what the first process left behind: by its grace if it was asked to stop, at once if
    /// it ended by itself.
    fn clear_remains(&mut self, process: &mut Process) {
        if self.ending.is_some() && process.reap() {
            process.terminate();
        }
        while process.reap() || self.group().is_some_and(Group::has_replica) {
            if let Due::End(end) = self.due()
                && let Some(begun) = &mut self.ending
            {
                begun.kill_at = begun.kill_at.min(end.kill_at);
            }
            let kill_at = self.ending.map_or(Duration::ZERO, |end| end.kill_at);
            pause(if kill_at <= machine::since_boot() {
                self.kill(process)
            } else {
                REMAINS_PAUSE
            });
        }
    }

    /// Kills everything; how long to wait before it is done again.
    fn kill(&mut self, process: &Process) -> Duration {
        process.kill(self.group());
        let next = (self.kill_pause * 2).min(LONGEST_KILL_PAUSE);
        std::mem::replace(&mut self.kill_pause, next)
    }

    fn group(&self) -> Option<&Group> {
        self.spec.cgroup.as_ref()
    }

    fn due(&self) -> Due {
        let fence = self.spec.fence.as_ref().map(|fence| fence.grace);
        self.orders
            .get()
            .due(&self.running.boot_id, machine::since_boot(), fence)
    }

    fn exit(self, process: Option<&Process>) -> Exit {
        let ran = self.failure.is_none();
        let status = process.and_then(Process::status).filter(|_| ran);
        Exit {
            code: status.and_then(|status| status.exit_status()),
            signal: status.and_then(|status| status.terminating_signal()),
            out_of_memory: self.group().is_some_and(Group::was_out_of_memory),
            ..finish(self.ending.map(|end| end.why), self.failure, String::new())
        }
    }
}

/// How something ended that was being stopped, or failed to start, or neither.
pub(super) fn finish(why: Option<Why>, failure: Option<Failure>, message: String) -> Exit {
    let cause = match (&failure, why) {
        (Some(failure), None) => failure.cause,
        (_, Some(Why::Told)) => ExitCause::Stopped,
        (_, Some(Why::Fenced)) => ExitCause::Fenced,
        (_, Some(Why::Interrupted)) => ExitCause::Interrupted,
        (None, None) => ExitCause::Exited,
    };
    Exit {
        cause,
        code: None,
        signal: None,
        out_of_memory: false,
        time: machine::wall_time(),
        message: failure.map_or(message, |failure| failure.message),
    }
}

/// Tells the agent, which waits for the end of our output, to look at the folder.
pub(super) fn close_stdout() {
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(null);
    }
}

pub(super) fn pause(time: Duration) {
    let _ = poll(&mut [], Some(&timespec(time)));
}

pub(super) fn timespec(time: Duration) -> Timespec {
    // Rounded up: waking just before what is due would have us wait again at once.
    let time = time + Duration::from_micros(100);
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}
