//! Minds one attempt for the agent: starts its supervisor, passes on that it is to stop, and tells
//! how it ended, within milliseconds of the supervisor's own end. A minder can die at any time with
//! its agent: the next one finds everything in the attempt's folder. It decides only whose turn it
//! is: the lock says whether a supervisor speaks for the attempt.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use muster_proto::replicas::v1::Assignment;
use muster_runtime::context::Context;
use muster_runtime::shutdown::Phase;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::agent::{Heard, Inbox};
use crate::attempt_dir::{AttemptDir, Container, Lock, Running, Spec, Stop, told_exit};
use crate::cgroup::{Group, Groups, Limits};
use crate::domain::end::{Exit, ExitCause, StopCause};
use crate::domain::ids::AttemptId;
use crate::engine::Engine;
use crate::files;
use crate::log::reader;
use crate::machine;
use crate::plan::Port;
use crate::record;

mod group;

/// A supervisor that ends before it has begun is started this many times.
const STARTS: u32 = 3;
/// Between looks at a supervisor that is beginning, and was started by another agent, at first, and
/// at last: it may have an image to wait for.
const BEGIN_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_BEGIN_PAUSE: Duration = Duration::from_millis(500);
/// Between looks at processes that were killed, at first, and at last: some cannot be killed.
const KILL_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_KILL_PAUSE: Duration = Duration::from_secs(1);
/// For the engine to remove a container without its supervisor.
const REMOVE_TIME: Duration = Duration::from_secs(10);
/// Tries of that where nothing can run any more.
const REMOVE_TRIES: u32 = 3;
/// Between tries where something may, at first, and at last.
const REMOVE_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_REMOVE_PAUSE: Duration = Duration::from_secs(5);
/// Lines of output that a failure is told with.
const LAST_LINES: usize = 20;
/// Between tries to pass on a stop that cannot be written.
const STOP_RETRY: Duration = Duration::from_secs(1);
/// Stops that wait to be passed on: a first, and a sooner one; more change nothing.
const STOPS: usize = 4;

/// Where an attempt stands, as its folder says.
#[derive(Debug)]
enum Standing {
    /// It has ended.
    Ended(Exit),
    /// A supervisor speaks for it.
    Supervised(Option<Running>),
    /// No supervisor has ever spoken for it.
    Unstarted,
    /// Its supervisor has died without a word; now we speak for it. What it ran may be lost too.
    Lost(Lock, Option<Running>),
}

/// What a minder has to do first.
#[derive(Debug)]
pub(crate) enum Task {
    /// Make the attempt's folder, then run it.
    Start(Box<Start>),
    /// Find out what has become of it, and go on from there.
    Adopt,
}

/// What an attempt's folder is made of, and its group.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) spec: Spec,
    pub(crate) limits: Option<Limits>,
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) ports: Vec<Port>,
}

impl Start {
    /// The folder comes first, since a group without one is ended, and the spec last: without it
    /// nothing was begun.
    fn make(mut self, id: &AttemptId, dir: &AttemptDir, groups: &Groups) -> io::Result<()> {
        dir.make()?;
        self.spec.cgroup = groups.make(id, self.limits);
        record::set_assignment(dir, &self.assignment)?;
        record::set_ports(dir, &self.ports)?;
        dir.set_spec(&self.spec)
    }
}

/// Tells a minder what to do.
#[derive(Debug, Clone)]
pub(crate) struct Orders(mpsc::Sender<(StopCause, Duration)>);

impl Orders {
    /// Has the attempt stopped: killed once `grace` has passed.
    pub(crate) fn stop(&self, cause: StopCause, grace: Duration) {
        // Full: a stop is on its way that is about as soon.
        let _ = self.0.try_send((cause, grace));
    }
}

/// Minds one attempt.
#[derive(Debug)]
pub(crate) struct Minder {
    pub(crate) id: AttemptId,
    pub(crate) dir: AttemptDir,
    /// What it is run in, if not as a process; the spec has the last word.
    pub(crate) container: Option<Container>,
    pub(crate) groups: Groups,
    pub(crate) supervisor_command: Vec<OsString>,
    pub(crate) inbox: Inbox,
}

impl Minder {
    /// Begins, as a task of its own. It ends with the agent's loops; the attempt runs on.
    pub(crate) fn begin(self, context: &Context, task: Task) -> Orders {
        let (sender, receiver) = mpsc::channel(STOPS);
        let stop = context.shutdown.reached(Phase::Loops);
        context.tasks.spawn("minder", async move {
            tokio::select! {
                () = stop => {}
                () = self.mind(task, receiver) => {}
            }
        });
        Orders(sender)
    }

    async fn mind(self, task: Task, stops: mpsc::Receiver<(StopCause, Duration)>) {
        let starts = match task {
            Task::Start(start) => match self.make(start).await {
                Ok(()) => STARTS,
                Err(error) => {
                    let why = format!("cannot make the folder of the attempt: {error}");
                    self.tell_end(failure(why)).await;
                    return self.remove_group().await;
                }
            },
            Task::Adopt => 0,
        };
        let exit = tokio::select! {
            exit = self.until_the_end(starts) => exit,
            () = self.pass_on(stops) => self.give_up().await,
        };
        self.tell_end(exit).await;
        self.remove_group().await;
    }

    /// Ends the attempt at once; returns when nothing of it runs.
    pub(crate) async fn end(&self) {
        let dir = self.dir.clone();
        let stop = Stop {
            kill_at: Duration::ZERO,
            cause: StopCause::AgentEnds,
        };
        if let Err(error) = blocking(move || dir.set_stop(&stop)).await {
            tracing::error!(attempt = %self.id, %error, "a stop is not written");
        }
        self.until_the_end(0).await;
    }

    async fn make(&self, start: Box<Start>) -> io::Result<()> {
        let (id, dir, groups) = (self.id.clone(), self.dir.clone(), self.groups.clone());
        blocking(move || start.make(&id, &dir, &groups)).await
    }

    /// Passes on every stop that comes, until the folder is gone. What cannot be written is tried
    /// again: the agent asks once.
    async fn pass_on(&self, mut stops: mpsc::Receiver<(StopCause, Duration)>) {
        let mut unwritten: Option<Stop> = None;
        let mut failed = false;
        loop {
            tokio::select! {
                Some((cause, grace)) = stops.recv() => {
                    let kill_at = machine::since_boot().saturating_add(grace);
                    let first = unwritten.unwrap_or(Stop { kill_at, cause });
                    unwritten = Some(first.by(kill_at));
                }
                () = sleep(STOP_RETRY), if unwritten.is_some() => {}
                else => std::future::pending().await,
            }
            let Some(stop) = unwritten.clone() else {
                continue;
            };
            let dir = self.dir.clone();
            match blocking(move || dir.set_stop(&stop)).await {
                Ok(()) => {
                    unwritten = None;
                    if std::mem::take(&mut failed) {
                        tracing::info!(attempt = %self.id, "passed on that an attempt is to stop");
                    }
                }
                Err(_) if self.folder_is_gone() => return,
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::error!(attempt = %self.id, %error, "cannot pass on yet that an attempt is to stop");
                    }
                }
            }
        }
    }

    /// Starts a supervisor at most `starts` times.
    async fn until_the_end(&self, mut starts: u32) -> Exit {
        let mut pause = BEGIN_PAUSE;
        loop {
            let standing = match self.look().await {
                Ok(standing) => standing,
                Err(_) if self.folder_is_gone() => return self.give_up().await,
                Err(error) => {
                    tracing::error!(attempt = %self.id, %error, "cannot read the folder of an attempt");
                    sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            match standing {
                Standing::Ended(exit) => return exit,
                Standing::Supervised(running) => {
                    self.watch(running.as_ref()).await;
                    // It has ended, or is beginning or ending.
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_BEGIN_PAUSE);
                }
                Standing::Unstarted if starts == 0 => {
                    return self
                        .conclude_failure("its supervisor ends before it begins")
                        .await;
                }
                Standing::Unstarted => {
                    starts -= 1;
                    if let Err(error) = self.supervise().await {
                        let why = format!("cannot start a supervisor: {error}");
                        return self.conclude_failure(&why).await;
                    }
                }
                Standing::Lost(lock, running) => return self.bury(lock, running).await,
            }
        }
    }

    async fn look(&self) -> io::Result<Standing> {
        let dir = self.dir.clone();
        blocking(move || look(&dir)).await
    }

    /// Starts a supervisor, and waits for its end.
    async fn supervise(&self) -> io::Result<()> {
        let (command, dir) = (self.supervisor_command.clone(), self.dir.clone());
        let mut child = blocking(move || spawn(&command, &dir)).await?;
        if let Some(output) = child.stdout.take().map(OwnedFd::from)
            && let Ok(output) = pipe::Receiver::from_owned_fd(output)
        {
            // Closed once it has brought the attempt up, or has failed to.
            end_of(&output).await;
        }
        self.tell_launch().await;
        self.look_for_group().await;
        self.until_it_dies().await;
        // Only its status is left to take, by whoever has time.
        drop(tokio::task::spawn_blocking(move || child.wait()));
        Ok(())
    }

    /// Waits for the end of a supervisor that another agent has started, once what it runs has begun.
    async fn watch(&self, running: Option<&Running>) {
        if running.is_some_and(|running| running.process.is_some()) {
            self.tell_launch().await;
            self.until_it_dies().await;
        }
    }

    async fn until_it_dies(&self) {
        match self.dir.life() {
            Ok(Some(alive)) => match pipe::Receiver::from_file(alive) {
                Ok(alive) => {
                    // It lives on to write that down.
                    if let Some(exit) = exit_or_end_of(&alive).await {
                        self.tell_end(exit).await;
                        end_of(&alive).await;
                    }
                }
                Err(error) => self.complain_of(&error).await,
            },
            Ok(None) => {}
            Err(error) => self.complain_of(&error).await,
        }
    }

    async fn complain_of(&self, error: &io::Error) {
        tracing::error!(attempt = %self.id, %error, "cannot wait for a supervisor");
        sleep(Duration::from_secs(1)).await;
    }

    async fn tell_launch(&self) {
        let dir = self.dir.clone();
        if let Ok(Some(running)) = blocking(move || dir.running()).await {
            self.tell(Heard::Launched(self.id.clone(), running)).await;
        }
    }

    /// Ends what is left of a replica whose supervisor has died, and says so for good.
    async fn bury(&self, lock: Lock, running: Option<Running>) -> Exit {
        let dir = self.dir.clone();
        let rebooted = match &running {
            Some(running) => running.boot_id != machine::boot_id(),
            None => blocking(move || dir.spec())
                .await
                .is_ok_and(|spec| spec.is_of_another_boot()),
        };
        if rebooted {
            self.clear_container().await;
        } else {
            self.end_remains(running.as_ref()).await;
        }
        let (cause, message) = if rebooted {
            (ExitCause::MachineRestarted, "the machine was restarted")
        } else {
            (
                ExitCause::Abandoned,
                "its supervisor died, and it was ended with it",
            )
        };
        let exit = Exit {
            cause,
            ..failure(message.to_owned())
        };
        self.conclude(lock, exit).await
    }

    fn folder_is_gone(&self) -> bool {
        matches!(self.dir.path().try_exists(), Ok(false))
    }

    /// Ends what is left of a replica whose folder is gone: nobody can be asked to, and nobody will
    /// say how it ended.
    async fn give_up(&self) -> Exit {
        tracing::error!(attempt = %self.id, "the folder of an attempt is gone: it is ended");
        self.end_remains(None).await;
        Exit {
            cause: ExitCause::FolderGone,
            ..failure("its folder is gone, and it was ended with it".to_owned())
        }
    }

    /// Ends what runs of the attempt. A container is waited for until the engine says that there is
    /// none: not everyone sees its processes. `running` is what its supervisor has seen.
    async fn end_remains(&self, running: Option<&Running>) {
        let container = self.container().await;
        let mut pause = REMOVE_PAUSE;
        let mut complained = false;
        loop {
            let removed = match &container {
                Some(container) => self.remove(container, &mut complained).await,
                None => true,
            };
            self.kill_remains(running).await;
            if removed || running.is_some_and(Running::has_gone) {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_REMOVE_PAUSE);
        }
    }

    /// Has the engine remove a container of which nothing runs.
    async fn clear_container(&self) {
        let Some(container) = self.container().await else {
            return;
        };
        let mut complained = false;
        for _ in 0..REMOVE_TRIES {
            if self.remove(&container, &mut complained).await {
                return;
            }
            sleep(KILL_PAUSE).await;
        }
    }

    async fn container(&self) -> Option<Container> {
        let dir = self.dir.clone();
        match blocking(move || dir.spec()).await {
            Ok(spec) => spec.container,
            Err(_) => self.container.clone(),
        }
    }

    /// Has the engine remove a container; whether it says that there is none. Complains once.
    async fn remove(&self, container: &Container, complained: &mut bool) -> bool {
        let engine = Engine::new(&container.socket);
        let error = match timeout(REMOVE_TIME, engine.remove(&container.name)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        if !std::mem::replace(complained, true) {
            tracing::warn!(attempt = %self.id, error, "a container is left");
        }
        false
    }

    async fn kill_remains(&self, running: Option<&Running>) {
        let variable = format!("MUSTER_ATTEMPT={}", self.id);
        let first = running.and_then(Running::first);
        let group = self.group().await;
        let mut pause = KILL_PAUSE;
        loop {
            let (name, group) = (variable.clone(), group.clone());
            let left = blocking(move || Ok(kill_all(&name, first, group.as_ref()))).await;
            if left.unwrap_or(0) == 0 {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_KILL_PAUSE);
        }
    }

    /// What its supervisor said last.
    fn complaint(&self) -> String {
        let complaints = std::fs::read_to_string(self.dir.complaints_path()).unwrap_or_default();
        complaints.lines().last().unwrap_or_default().to_owned()
    }

    async fn conclude_failure(&self, why: &str) -> Exit {
        let complaint = self.complaint();
        let why = [why, &complaint]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>();
        let exit = failure(why.join(": "));
        let Ok(Some(lock)) = self.dir.try_lock() else {
            return exit;
        };
        let exit = self.conclude(lock, exit).await;
        // A full disk takes no exit, but gives back what says that it is to be run.
        if !matches!(self.dir.exit(), Ok(Some(_)))
            && let Err(error) = self.dir.remove_spec()
        {
            tracing::error!(attempt = %self.id, %error, "a later agent may start what has ended");
        }
        exit
    }

    async fn conclude(&self, lock: Lock, exit: Exit) -> Exit {
        let (dir, written) = (self.dir.clone(), exit.clone());
        let outcome = blocking(move || dir.set_exit(&lock, &written)).await;
        if let Err(error) = outcome {
            tracing::error!(attempt = %self.id, %error, "cannot keep how an attempt ended");
        }
        exit
    }

    async fn tell_end(&self, exit: Exit) {
        let dir = self.dir.clone();
        let lines = blocking(move || reader::last(dir.path(), LAST_LINES))
            .await
            .unwrap_or_default();
        let lines = lines.into_iter().map(|line| line.text).collect();
        self.tell(Heard::Ended(self.id.clone(), exit, lines)).await;
    }

    async fn tell(&self, heard: Heard) {
        // Closed: the agent ends, and its successor will look for itself.
        let _ = self.inbox.send(heard).await;
    }
}

fn failure(message: String) -> Exit {
    Exit::not_started(message, machine::wall_time())
}

fn look(dir: &AttemptDir) -> io::Result<Standing> {
    if let Some(exit) = legible(dir.exit())? {
        return Ok(Standing::Ended(exit));
    }
    let lock = dir.try_lock()?;
    let running = legible(dir.running())?;
    let Some(lock) = lock else {
        return Ok(Standing::Supervised(running));
    };
    // It may have ended between the two looks.
    if let Some(exit) = legible(dir.exit())? {
        return Ok(Standing::Ended(exit));
    }
    if dir.has_begun()? {
        return Ok(Standing::Lost(lock, running));
    }
    Ok(Standing::Unstarted)
}

/// What was written; nothing also where the machine lost its power before it was on disk.
fn legible<T>(read: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match read {
        Err(error) if files::is_garbled(&error) => Ok(None),
        other => other,
    }
}

fn spawn(command: &[OsString], dir: &AttemptDir) -> io::Result<Child> {
    let (program, args) = command
        .split_first()
        .ok_or_else(|| io::Error::other("no supervisor command is configured"))?;
    let complaints: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.complaints_path())?;
    Command::new(program)
        .args(args)
        .arg("run")
        .arg(dir.path())
        .env_clear()
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(complaints)
        .spawn()
}

/// Kills every process with a variable, every one of the session that `first` began, since not all
/// keep their environment, and all of the group. How many there were, at least.
fn kill_all(variable: &str, first: Option<(Pid, u64)>, group: Option<&Group>) -> usize {
    let in_group = group.is_some_and(Group::has_replica);
    if let Some(group) = group.filter(|_| in_group) {
        group.kill();
    }
    let mut processes = machine::processes_with(variable);
    processes.extend(
        first
            .into_iter()
            .flat_map(|(pid, start)| machine::processes_of_session(pid, start)),
    );
    for pid in &processes {
        let _ = kill_process(*pid, Signal::KILL);
    }
    processes.len() + usize::from(in_group)
}

/// Waits until the other end of a pipe is closed.
async fn end_of(pipe: &pipe::Receiver) {
    while exit_or_end_of(pipe).await.is_some() {}
}

/// Waits until a pipe brings how an attempt ended, or its other end is closed.
async fn exit_or_end_of(pipe: &pipe::Receiver) -> Option<Exit> {
    let mut heard = Vec::new();
    let mut bytes = [0; 1024];
    while pipe.readable().await.is_ok() {
        match pipe.try_read(&mut bytes) {
            Ok(0) => return None,
            Ok(read) => {
                heard.extend_from_slice(&bytes[..read]);
                if let Some(exit) = told_exit(&heard) {
                    return Some(exit);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
    None
}

/// Does what may block away from the event loop.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
