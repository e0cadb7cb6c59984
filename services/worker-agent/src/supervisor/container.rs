//! A replica that is a container: made, watched, stopped and removed through the engine of this
//! machine. It obeys the same orders as a process, and leaves the same files. An engine that goes
//! away and comes back is waited for; what has to end meanwhile is killed without it, as far as we
//! see it. It never calls ended what may run.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::launch::Failure;
use super::note::Note;
use super::orders::{Due, End, Shared};
use super::run::finish;
use crate::attempt_dir::{AttemptDir, Container, Running, Spec};
use crate::domain::end::{Exit, ExitCause};
use crate::engine::{self, Engine, State};
use crate::log::reader;
use crate::machine;

mod follow;

/// For a signal to be taken by the engine; then it is sent without it.
const SIGNAL_TIME: Duration = Duration::from_secs(1);
/// Between kills of what does not end.
const KILL_EVERY: Duration = Duration::from_millis(200);
/// Between questions to an engine that does not answer.
const RETRY: Duration = Duration::from_millis(200);
/// What is left of the output once the container has ended.
const OUTPUT_TIME: Duration = Duration::from_secs(1);
/// For the engine to say which process it has begun.
const NOTE_TIME: Duration = Duration::from_secs(5);
/// For the engine to remove what has ended.
const REMOVE_TIME: Duration = Duration::from_secs(10);
/// The longest between tries to have it removed.
const REMOVE_RETRY: Duration = Duration::from_secs(5);
/// The longest sleep: longer ones are no different.
const LONG: Duration = Duration::from_secs(3600);

/// Runs a container until it has ended and is removed.
pub(super) fn run(
    dir: &AttemptDir,
    spec: &Spec,
    container: &Container,
    running: Running,
    orders: Shared,
    changed: std::os::unix::net::UnixStream,
) -> io::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let run = Run {
            dir,
            spec,
            container,
            engine: Engine::new(&container.socket),
            running,
            orders,
            changed: UnixStream::from_std(changed)?,
            note: None,
            ending: None,
            asked: false,
        };
        Ok(run.until_the_end().await)
    })
}

/// One run of one container.
struct Run<'a> {
    dir: &'a AttemptDir,
    spec: &'a Spec,
    container: &'a Container,
    engine: Engine,
    running: Running,
    orders: Shared,
    changed: UnixStream,
    /// What is being said of its beginning.
    note: Option<Note>,
    ending: Option<End>,
    asked: bool,
}

impl Run<'_> {
    async fn until_the_end(mut self) -> Exit {
        let engine = self.engine.clone();
        let (spec, container) = (self.spec, self.container);
        let may_run = Cell::new(false);
        let up = {
            let mut up = pin!(bring_up(&engine, spec, container, &may_run));
            loop {
                tokio::select! {
                    up = &mut up => break Some(up),
                    () = self.until_due() => if self.ending.is_some() {
                        break None;
                    }
                }
            }
        };
        let (state, failure) = match up {
            Some(Ok(id)) => match self.until_ended(&id).await {
                Ok(state) => {
                    may_run.set(state.is_none());
                    let failure = state.as_ref().and_then(|state| self.init_failure(state));
                    (state.filter(|_| failure.is_none()), failure)
                }
                Err(failure) => (None, Some(failure)),
            },
            Some(Err(failure)) => (None, Some(failure)),
            None => (None, None),
        };
        self.remove(may_run.get()).await;
        self.exit(state.as_ref(), failure)
    }

    /// Says that it runs; `pid` is its first process, as the engine says.
    fn note_running(&mut self, pid: i32) {
        // Where the engine counts processes in a world of its own, this is a stranger's number.
        let ours = Pid::from_raw(pid.max(0))
            .filter(|pid| machine::environment_has(*pid, &self.variable()));
        self.running.process = Some(pid);
        self.running.process_start = ours.and_then(machine::start_of);
        self.running.start_time = Some(machine::wall_time());
        self.running.started = Some(machine::since_boot());
        self.note = Some(Note::begin(self.dir, &self.running, &self.orders));
    }

    /// Until nothing of it runs; how it was then, if the engine knows. Or why it must not run.
    async fn until_ended(&mut self, id: &str) -> Result<Option<State>, Failure> {
        let (engine, dir, limits) = (self.engine.clone(), self.dir.clone(), self.spec.log);
        let mut begun = pin!(timeout(NOTE_TIME, engine.state(id)));
        let mut ended = pin!(ended(&engine, id));
        let mut output = follow::begin(engine.clone(), id.to_owned(), dir, limits);
        let (mut noted, mut kept) = (false, false);
        let state = loop {
            tokio::select! {
                state = &mut ended => break state,
                state = &mut begun, if !noted => {
                    noted = true;
                    let pid = state.ok().and_then(Result::ok).map_or(0, |state| state.pid);
                    self.note_running(pid);
                }
                _ = &mut output, if !kept => kept = true,
                () = self.until_due() => {
                    if let Some(unsaid) = self.note.as_ref().and_then(Note::failure) {
                        return Err(unsaid);
                    }
                    if self.act(id).await {
                        break None;
                    }
                }
            }
        };
        if !noted {
            self.note_running(0);
        }
        // It has ended, which will say so as well.
        let _ = self.note.as_ref().and_then(Note::last_failure);
        if !kept {
            let _ = timeout(OUTPUT_TIME, output).await;
        }
        Ok(state)
    }

    /// Until an order has come or its time has; notes what it asks for.
    async fn until_due(&mut self) {
        let now = machine::since_boot();
        let fence = self.spec.fence.as_ref().map(|fence| fence.grace);
        let due = self.orders.get().due(&self.running.boot_id, now, fence);
        let wake_at = match (due, self.ending) {
            (Due::End(end), None) => {
                self.ending = Some(end);
                return;
            }
            (Due::End(end), Some(begun)) => {
                let kill_at = begun.kill_at.min(end.kill_at);
                self.ending = Some(End { kill_at, ..begun });
                kill_at
            }
            (Due::Nothing(_), Some(begun)) => begun.kill_at,
            (Due::Nothing(until), None) => until,
        };
        // Past its time it is killed again and again.
        let wait = if wake_at > now {
            (wake_at - now).min(LONG)
        } else {
            KILL_EVERY
        };
        let mut bytes = [0; 64];
        tokio::select! {
            () = sleep(wait) => {}
            _ = self.changed.read(&mut bytes) => {}
        }
    }

    /// Sends the signal that is due; true if we see that nothing is left, which the engine does not say.
    async fn act(&mut self, id: &str) -> bool {
        let Some(end) = self.ending else {
            return false;
        };
        let kill = end.kill_at <= machine::since_boot();
        // Asked once: many take a second time for impatience.
        if std::mem::replace(&mut self.asked, true) && !kill {
            return false;
        }
        let (name, signal) = if kill {
            ("SIGKILL", Signal::KILL)
        } else {
            ("SIGTERM", Signal::TERM)
        };
        let sent = timeout(SIGNAL_TIME, self.engine.kill(id, name)).await;
        if matches!(sent, Ok(Ok(()))) {
            return false;
        }
        self.signal(signal);
        kill && self.is_gone()
    }

    /// What all of its processes have in their environment.
    fn variable(&self) -> String {
        format!("MUSTER_ATTEMPT={}", self.spec.attempt_id)
    }

    /// Signals what we see of it without the engine.
    fn signal(&self, signal: Signal) {
        for pid in machine::processes_with(&self.variable()) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether we saw its first process, and it is no more: everything in a container ends with it.
    fn is_gone(&self) -> bool {
        self.running.has_gone() && machine::processes_with(&self.variable()).is_empty()
    }

    /// Whether the container ran its init alone, because that could not execute the command: the
    /// engine takes this for a start like any other.
    fn init_failure(&self, state: &State) -> Option<Failure> {
        if ![126, 127].contains(&state.exit_code) {
            return None;
        }
        let lines = reader::last(self.dir.path(), 1).ok()?;
        let said = lines.last().filter(|line| is_of_init(&line.text))?;
        Some(Failure {
            cause: ExitCause::NotExecutable,
            message: said.text.clone(),
        })
    }

    /// Has the engine remove it. What may run is killed meanwhile, and waited for: until the engine
    /// says that there is none, or we see it.
    async fn remove(&self, may_run: bool) {
        let mut wait = RETRY;
        let mut complained = false;
        loop {
            let why = match self.try_to_remove(may_run).await {
                Ok(()) => return,
                Err(why) => why,
            };
            if !std::mem::replace(&mut complained, true) {
                super::complain(&format!("the container is left: {why}"));
            }
            if !may_run || self.is_gone() {
                return;
            }
            sleep(wait).await;
            wait = (wait * 2).min(REMOVE_RETRY);
        }
    }

    async fn try_to_remove(&self, kill: bool) -> Result<(), String> {
        let mut removed = pin!(timeout(
            REMOVE_TIME,
            self.engine.remove(&self.container.name)
        ));
        loop {
            tokio::select! {
                removed = &mut removed => return match removed {
                    Ok(removed) => removed.map_err(|error| error.to_string()),
                    Err(_) => Err("the engine does not answer".to_owned()),
                },
                () = sleep(KILL_EVERY), if kill => self.signal(Signal::KILL),
            }
        }
    }

    fn exit(&self, state: Option<&State>, failure: Option<Failure>) -> Exit {
        let message = match (state, &failure, &self.ending) {
            (None, None, None) => "the container was removed".to_owned(),
            (Some(state), ..) => state.error.clone(),
            (None, ..) => String::new(),
        };
        Exit {
            code: state.map(|state| state.exit_code),
            out_of_memory: state.is_some_and(|state| state.oom_killed),
            ..finish(self.ending.map(|end| end.why), failure, message)
        }
    }
}

/// Brings the image here if it is not, makes the container, and starts it; its id comes back.
/// `may_run` says whether the engine has been asked to start it, and has not said that it did not.
async fn bring_up(
    engine: &Engine,
    spec: &Spec,
    container: &Container,
    may_run: &Cell<bool>,
) -> Result<String, Failure> {
    let image = |error: engine::Error| Failure {
        cause: ExitCause::NoImage,
        message: format!("image {}: {error}", container.image),
    };
    if !engine.has_image(&container.image).await.map_err(image)? {
        engine.pull(&container.image).await.map_err(image)?;
    }
    let body = engine::body(
        &spec.attempt_id,
        container,
        &spec.command,
        &spec.env,
        &spec.working_dir,
    );
    let failed = |error: engine::Error| Failure {
        cause: match &error {
            engine::Error::Refused { message, .. } => classify(message),
            engine::Error::Unreachable { .. } | engine::Error::Broken(_) => ExitCause::NotStarted,
        },
        message: error.to_string(),
    };
    let id = engine
        .create(&container.name, &body)
        .await
        .map_err(failed)?;
    may_run.set(true);
    let started = engine.start(&id).await;
    may_run.set(matches!(started, Ok(()) | Err(engine::Error::Broken(_))));
    started.map_err(failed)?;
    Ok(id)
}

/// What an engine's words mean. It has no codes for them.
fn classify(message: &str) -> ExitCause {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&[
        "address already in use",
        "port is already allocated",
        "context deadline",
        "no space left on device",
    ]) {
        ExitCause::NotStarted
    } else if says(&[
        "executable file not found",
        "exec format error",
        "exec:",
        "no command specified",
        "No command specified",
        "bind source path does not exist",
        "invalid mount",
        "mounting",
        "working directory",
    ]) {
        ExitCause::NotExecutable
    } else {
        ExitCause::NoImage
    }
}

/// What docker's and podman's inits say when they cannot execute a command.
fn is_of_init(line: &str) -> bool {
    line.starts_with("[FATAL tini") || line.contains("(catatonit:")
}

/// Waits until a container does not run; nothing if it is gone.
async fn ended(engine: &Engine, id: &str) -> Option<State> {
    loop {
        // However this comes out, the state is what counts.
        let _ = engine.wait(id).await;
        match engine.state(id).await {
            Ok(state) if !state.running => return Some(state),
            Err(error) if error.is_not_found() => return None,
            Ok(_) | Err(_) => sleep(RETRY).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_without_a_command_is_told() {
        assert!(is_of_init(
            "[FATAL tini (7)] exec /x failed: No such file or directory"
        ));
        assert!(is_of_init(
            "ERROR (catatonit:2): failed to exec pid1: No such file or directory"
        ));
        assert!(!is_of_init("sh: x: not found"));
    }

    #[test]
    fn what_an_engine_says_has_a_class() {
        for (message, cause) in [
            ("No such image: nope:latest", ExitCause::NoImage),
            ("pull access denied for nope", ExitCause::NoImage),
            (
                "OCI runtime create failed: runc create failed: unable to start container process: exec: \"nope\": executable file not found in $PATH: unknown",
                ExitCause::NotExecutable,
            ),
            ("No command specified", ExitCause::NotExecutable),
            (
                "invalid mount config for type \"bind\": bind source path does not exist: /nowhere",
                ExitCause::NotExecutable,
            ),
            (
                "driver failed programming external connectivity: Bind for 0.0.0.0:80 failed: port is already allocated",
                ExitCause::NotStarted,
            ),
            (
                "mkdir /var/lib/docker/overlay2/ab-init: no space left on device",
                ExitCause::NotStarted,
            ),
            (
                "could not select device driver \"nvidia\"",
                ExitCause::NoImage,
            ),
        ] {
            assert_eq!(classify(message), cause, "{message}");
        }
    }
}
