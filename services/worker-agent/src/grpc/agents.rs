//! AgentsService: the output of attempts, and what the agent is. It reads, and changes nothing.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use muster_proto::agents::v1::agents_service_server::AgentsService;
use muster_proto::agents::v1::{
    GetAgentRequest, GetAgentResponse, LogLine, LogStream, StreamLogsRequest, StreamLogsResponse,
};
use muster_proto::types::v1::{ErrorReason, MachineCapacity};
use muster_runtime::auth::Roles;
use muster_runtime::server::Method;
use muster_runtime::shutdown::Phase;
use muster_runtime::status::{self, Violations};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::convert;
use crate::domain::ids::AttemptId;
use crate::log::reader::{Place, Reader, Wanted};
use crate::log::{Line, Stream as Output};
use crate::shared::Shared;
use crate::view::View;

/// Lines in one message at most: of the longest, four make a message that every client takes.
const LINES: usize = 200;
const MESSAGE_BYTES: usize = 256 * 1024;
/// Messages that wait for a slow reader.
const WAITING: usize = 4;
/// Between looks for more output while it is followed.
const FOLLOW_EVERY: Duration = Duration::from_millis(50);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Who may call what.
pub(crate) const METHODS: &[Method] = &[
    Method::new("/muster.agents.v1.AgentsService/StreamLogs", Roles::READ),
    Method::new("/muster.agents.v1.AgentsService/GetAgent", Roles::READ),
];

/// Answers from the agent's folder and view.
#[derive(Debug)]
pub(crate) struct Agents {
    pub(crate) shared: Shared,
}

#[tonic::async_trait]
impl AgentsService for Agents {
    type StreamLogsStream = Pin<Box<dyn Stream<Item = Result<StreamLogsResponse, Status>> + Send>>;

    async fn stream_logs(
        &self,
        request: Request<StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        let request = request.into_inner();
        let (id, wanted) = parse(&request)?;
        let folder = self.shared.data.attempt(&id).path().to_owned();
        if !Reader::is_kept(&folder) && !self.shared.view.borrow().attempts.contains_key(&id) {
            let message = format!("nothing of the output of {id} is kept");
            return Err(status::error(Code::NotFound, ErrorReason::LogNotFound, message).into());
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let sending = Sending {
            id,
            folder,
            wanted,
            follow: request.follow,
            view: self.shared.view.clone(),
            sender,
        };
        let stop = self.shared.context.shutdown.reached(Phase::Drain);
        self.shared.context.tasks.spawn("logs", async move {
            let sender = sending.sender.clone();
            tokio::select! {
                () = stop => {
                    let ending = status::unavailable(ErrorReason::ShuttingDown, "the agent is stopping", RETRY_AFTER);
                    let _ = sender.try_send(Err(ending.into()));
                }
                () = sending.run() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_agent(
        &self,
        _: Request<GetAgentRequest>,
    ) -> Result<Response<GetAgentResponse>, Status> {
        let (registry, manager, lease) = self.shared.standing.silences();
        let time = |time: Option<Duration>| time.map(convert::render_duration);
        let view = self.shared.view.borrow().clone();
        Ok(Response::new(GetAgentResponse {
            worker: self.shared.config.name.clone(),
            generation: self.shared.standing.generation(),
            version: self.shared.context.identity.version.to_owned(),
            capacity: Some(MachineCapacity::clone(&self.shared.standing.capacity())),
            attempts: view
                .attempts
                .values()
                .map(|seen| seen.running.clone())
                .collect(),
            registry_silence: time(registry),
            manager_silence: time(manager),
            lease_left: time(lease),
        }))
    }
}

fn parse(request: &StreamLogsRequest) -> Result<(AttemptId, Wanted), Status> {
    let mut violations = Violations::new();
    let id = AttemptId::parse(&request.attempt_id);
    if let Err(error) = &id {
        violations.add("attempt_id", error.to_string());
    }
    let tail = request.tail.map(usize::try_from).transpose();
    if tail.is_err() {
        violations.add("tail", "must be 0 or more");
    }
    let since = request.since_time.map(SystemTime::try_from).transpose();
    if since.is_err() {
        violations.add("since_time", "is no time that can be counted");
    }
    let after = Some(request.after.as_str()).filter(|after| !after.is_empty());
    let after = after.map(str::parse::<Place>).transpose();
    if after.is_err() {
        violations.add("after", "is no position that an answer had");
    }
    match (id, tail, since, after) {
        (Ok(id), Ok(tail), Ok(since), Ok(after)) => Ok((id, Wanted { tail, since, after })),
        _ => Err(violations.into_status()),
    }
}

/// Sends one attempt's output to one caller.
struct Sending {
    id: AttemptId,
    folder: PathBuf,
    wanted: Wanted,
    follow: bool,
    view: watch::Receiver<Arc<View>>,
    sender: mpsc::Sender<Result<StreamLogsResponse, Status>>,
}

impl Sending {
    async fn run(self) {
        if let Err(error) = self.send().await {
            tracing::warn!(attempt = %self.id, %error, "output cannot be read");
            let _ = self.sender.send(Err(status::internal())).await;
        }
    }

    async fn send(&self) -> std::io::Result<()> {
        let mut reader = Reader::open(&self.folder, self.wanted)?;
        let mut is_first = self.follow;
        loop {
            // Looked at before reading: what was written until its end is then read.
            let over = !self.follow || self.has_ended();
            loop {
                let (back, lines) = read_some(reader).await?;
                reader = back;
                if lines.is_empty() && !std::mem::take(&mut is_first) {
                    break;
                }
                is_first = false;
                let answer = StreamLogsResponse {
                    lines: lines.into_iter().map(render).collect(),
                    position: reader.place().to_string(),
                };
                if self.sender.send(Ok(answer)).await.is_err() {
                    return Ok(());
                }
            }
            if over {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
                () = self.sender.closed() => return Ok(()),
            }
        }
    }

    fn has_ended(&self) -> bool {
        let view = self.view.borrow();
        view.attempts
            .get(&self.id)
            .is_none_or(|seen| seen.report.end_time.is_some())
    }
}

/// Reads as many lines as fit into a message, away from the event loop.
async fn read_some(mut reader: Reader) -> std::io::Result<(Reader, Vec<Line>)> {
    let read = tokio::task::spawn_blocking(move || {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < LINES && bytes < MESSAGE_BYTES {
            let Some(line) = reader.read(1)?.pop() else {
                break;
            };
            bytes += line.text.len();
            lines.push(line);
        }
        Ok((reader, lines))
    });
    read.await.map_err(std::io::Error::other)?
}

fn render(line: Line) -> LogLine {
    let stream = match line.stream {
        Output::Out => LogStream::Stdout,
        Output::Err => LogStream::Stderr,
    };
    LogLine {
        time: Some(convert::render_time(line.time)),
        stream: stream.into(),
        text: line.text,
    }
}
