//! Asks replicas how they are: over HTTP, TCP, gRPC, or by a command. It decides nothing: each
//! answer goes to the agent, whose domain counts them.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use muster_proto::health::v1::HealthCheckRequest;
use muster_proto::health::v1::health_check_response::ServingStatus;
use muster_proto::health::v1::health_client::HealthClient;
use muster_runtime::task::{Handle, Tasks};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpgid};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::transport::Endpoint;

use crate::agent::{Heard, Inbox};
use crate::attempt_dir::Container;
use crate::domain::holdings::Input;
use crate::domain::ids::AttemptId;
use crate::domain::probe::{Counter, Kind, Outcome, Terms, Verdict};
use crate::engine::Engine;
use crate::http;
use crate::machine;
use crate::plan::Target;

/// What is told of a command's failure, in characters of its last line.
const SAID: usize = 200;
/// Stands in the environment of a command, and in no replica's: the attempt that it asks.
const MARK: &str = "MUSTER_PROBE";
/// For the first process of a group to end once it was killed; then looks at the others, and the time
/// between.
const BURIAL_TIME: Duration = Duration::from_secs(1);
const BURIALS: usize = 100;
const BURIAL_PAUSE: Duration = Duration::from_millis(10);
/// What is kept of what a command says, in bytes.
const KEPT: usize = 64 * 1024;
/// An engine closes the connections that it cannot pass on within this time.
const CLOSED_AT_ONCE: Duration = Duration::from_millis(100);

/// Asks one thing of one replica, again and again. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Prober {
    task: Handle<()>,
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is asked of whom.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) attempt: AttemptId,
    pub(crate) kind: Kind,
    pub(crate) target: Target,
    pub(crate) terms: Terms,
    /// For commands: where, and with what environment.
    pub(crate) working_dir: PathBuf,
    pub(crate) env: Vec<(String, String)>,
    /// The container that it is; absent for a process.
    pub(crate) container: Option<Container>,
}

impl Prober {
    /// Begins to ask.
    pub(crate) fn begin(tasks: &Tasks, question: Question, was_well: bool, inbox: Inbox) -> Self {
        Self {
            task: tasks.spawn("prober", ask_on(question, was_well, inbox)),
        }
    }
}

async fn ask_on(question: Question, mut was_well: bool, inbox: Inbox) {
    let terms = question.terms;
    let mut counter = Counter::default();
    let mut next = Instant::now();
    if question.kind == Kind::Alive {
        next += terms.interval;
    }
    for tried in 1.. {
        sleep_until(next).await;
        let outcome = ask(&question).await;
        was_well |= counter.count(outcome.is_ok(), &terms) == Verdict::Well;
        let input = Input::Probed(question.attempt.clone(), question.kind, outcome);
        if inbox.send(Heard::Input(input)).await.is_err() {
            return;
        }
        // From the start of one try to that of the next, unless a try takes longer.
        next = (next + terms.delay(tried, was_well)).max(Instant::now());
    }
}

async fn ask(question: &Question) -> Outcome {
    let limit = question.terms.timeout;
    let late = || Err(format!("no answer within {limit:?}"));
    match &question.target {
        // A command is ended by itself: it must not run on.
        Target::Exec { command } => match &question.container {
            // A command is ended by itself: it must not run on.
            None => execute(command, question, limit).await,
            Some(container) => timeout(limit, execute_in(container, command))
                .await
                .unwrap_or_else(|_| late()),
        },
        Target::Http { port, path } => timeout(limit, ask_http(*port, path))
            .await
            .unwrap_or_else(|_| late()),
        Target::Tcp { port } => {
            let published = question.container.is_some();
            timeout(limit, ask_tcp(*port, published))
                .await
                .unwrap_or_else(|_| late())
        }
        Target::Grpc { port, service } => timeout(limit, grpc(*port, service))
            .await
            .unwrap_or_else(|_| late()),
    }
}

/// A connection is a success. A published port is an engine's: it takes every connection, and
/// closes those at once that nobody in the container takes.
async fn ask_tcp(port: u16, published: bool) -> Outcome {
    let mut stream = http::connect(port).await?;
    if !published {
        return Ok(());
    }
    match timeout(CLOSED_AT_ONCE, stream.read(&mut [0])).await {
        Err(_) | Ok(Ok(1..)) => Ok(()),
        Ok(Ok(0) | Err(_)) => Err(format!("port {port}: closed at once")),
    }
}

/// Runs a command in a container. It runs on there if it is given up: the engine cannot end it.
async fn execute_in(container: &Container, command: &[String]) -> Outcome {
    let engine = Engine::new(&container.socket);
    match engine.execute(&container.name, command).await {
        Ok((0, _)) => Ok(()),
        Ok((code, said)) => Err(format!(
            "{:?}: exit code {code}: {}",
            command[0],
            last_line(&said)
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// A status of 200 to 399 is a success; redirects are not followed.
async fn ask_http(port: u16, path: &str) -> Outcome {
    let status = http::status(port, path).await?;
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(format!("{path}: status {status}"))
    }
}

async fn grpc(port: u16, service: &str) -> Outcome {
    let failed = |error: tonic::transport::Error| format!("port {port}: {error}");
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).map_err(failed)?;
    let channel = endpoint.connect().await.map_err(failed)?;
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(channel).check(request).await;
    let answer = answer
        .map_err(|status| format!("port {port}: {}", status.message()))?
        .into_inner();
    match answer.status() {
        ServingStatus::Serving => Ok(()),
        other @ (ServingStatus::Unknown
        | ServingStatus::NotServing
        | ServingStatus::ServiceUnknown) => Err(format!("port {port}: {}", other.as_str_name())),
    }
}

/// Exit code 0 is a success. What takes too long is killed, with all that it started in its group.
async fn execute(command: &[String], question: &Question, limit: Duration) -> Outcome {
    let Some((program, args)) = command.split_first() else {
        return Err("the command is empty".to_owned());
    };
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .envs(question.env.iter().map(|(name, value)| (name, value)))
        .env(MARK, question.attempt.as_str())
        .current_dir(&question.working_dir)
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot execute {program:?}: {error}"))?;
    let group = Group(child.id());
    let said = end_of(child.stderr.take());
    let outcome = timeout(limit, async { tokio::join!(child.wait(), said) }).await;
    group.end(&mut child).await;
    let Ok((status, said)) = outcome else {
        return Err(format!("{program:?} did not end within {limit:?}"));
    };
    let status = status.map_err(|error| format!("{program:?}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    Err(format!("{program:?}: {status}: {}", last_line(&said)))
}

/// Ends commands that an earlier process of the agent has left behind. Nobody waits for what they find.
pub(crate) fn end_left(attempts: &[AttemptId]) {
    for (pid, attempt) in machine::processes_marked(MARK) {
        if attempts.iter().any(|one| one.as_str() == attempt) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The last of what is said until its end: it may be without measure.
async fn end_of(said: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let (mut last, mut bytes) = (Vec::new(), [0; 4096]);
    let Some(mut said) = said else {
        return last;
    };
    // What cannot be read is no part of the answer, which is the exit code.
    while let Ok(read @ 1..) = said.read(&mut bytes).await {
        last.extend_from_slice(&bytes[..read]);
        last.drain(..last.len().saturating_sub(KEPT));
    }
    last
}

fn last_line(said: &str) -> String {
    let line = said.trim_end().lines().last().unwrap_or_default();
    line.chars().take(SAID).collect()
}

/// Kills what is left of a command's process group when it is given up.
struct Group(Option<u32>);

impl Group {
    fn pid(&self) -> Option<Pid> {
        let pid = self.0.and_then(|pid| i32::try_from(pid).ok());
        pid.and_then(Pid::from_raw)
    }

    /// Kills it, and takes the statuses of those that lost their parent: in a container the agent may be
    /// the first process, whose children they are then.
    async fn end(self, first: &mut Child) {
        let Some(pid) = self.pid() else {
            return;
        };
        drop(self);
        if timeout(BURIAL_TIME, first.wait()).await.is_err() {
            // Not even that ends it: it is left to who waits for it next.
            return;
        }
        for _ in 0..BURIALS {
            match waitpgid(pid, WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => sleep(BURIAL_PAUSE).await,
                Err(_) => return,
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests;
