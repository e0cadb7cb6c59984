//! Talks to the replica-manager: watches what is assigned, and reports what is seen. Two loops that
//! never wait for each other. They decide when to speak; what an assignment means is the domain's.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use muster_proto::replicas::v1::assignment_change::Change;
use muster_proto::replicas::v1::assignments_service_client::AssignmentsServiceClient;
use muster_proto::replicas::v1::{
    Assignment, ReportReplicasRequest, ReportReplicasResponse, WatchAssignmentsRequest,
    WatchAssignmentsResponse,
};
use muster_runtime::backoff::{self, Backoff};
use muster_runtime::connect::Channel;
use muster_runtime::health::Check;
use muster_runtime::shutdown::Phase;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::{Code, Request, Status};

use crate::agent::Heard;
use crate::domain::holdings::Input;
use crate::domain::ids::{AllocationId, AttemptId};
use crate::shared::Shared;
use crate::standing::{Registered, Standing};
use crate::view::{Seen, View};

mod stored;

use stored::{Message, Stored};

const REPORT_DEADLINE: Duration = Duration::from_secs(10);

/// Watches what is assigned to this worker.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) shared: Shared,
    pub(crate) client: AssignmentsServiceClient<Channel>,
    pub(crate) check: Check,
    /// Counts connections, for the reporter.
    pub(crate) connections: watch::Sender<u64>,
}

/// Where a watch stands.
#[derive(Debug, Default)]
struct Place {
    resume_token: String,
    epoch: String,
}

impl Watcher {
    /// Watches until the loops end.
    pub(crate) async fn run(mut self) -> Result<(), String> {
        let stop = self.shared.context.shutdown.reached(Phase::Loops);
        tokio::select! {
            () = stop => Ok(()),
            () = self.watch() => Ok(()),
        }
    }

    async fn watch(&mut self) {
        let mut place = Place::default();
        let mut trouble = Backoff::new(
            self.shared.config.retry,
            backoff::seed(&self.shared.config.name),
        );
        loop {
            let standing = self.shared.standing.clone();
            let registered = until_registered(&standing).await;
            let over = tokio::select! {
                status = self.watch_once(registered, &mut place, &mut trouble) => status,
                () = until_generation_is_over(&standing, registered.generation) => continue,
            };
            if matches!(over.code(), Code::OutOfRange | Code::InvalidArgument) {
                place = Place::default();
            }
            if trouble.failures() == 0 && over.code() != Code::Ok {
                tracing::warn!(code = ?over.code(), error = over.message(), "no assignments come");
            }
            self.check.failed(over.message());
            sleep(trouble.next_delay()).await;
        }
    }

    /// One connection, to its end.
    async fn watch_once(
        &mut self,
        registered: Registered,
        place: &mut Place,
        trouble: &mut Backoff,
    ) -> Status {
        let request = WatchAssignmentsRequest {
            worker: self.shared.config.name.clone(),
            generation: registered.generation,
            resume_token: place.resume_token.clone(),
        };
        let mut stream = match self.client.watch_assignments(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return status,
        };
        let mut first = true;
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    if std::mem::take(&mut first) {
                        self.connections.send_modify(|count| *count += 1);
                        trouble.reset();
                        self.check.ok("");
                    }
                    self.shared.standing.note_manager();
                    self.take(message, registered.revoked_through, place).await;
                }
                Ok(None) => return Status::unavailable("the stream ended"),
                Err(status) => return status,
            }
        }
    }

    async fn take(
        &mut self,
        message: WatchAssignmentsResponse,
        revoked_through: i64,
        place: &mut Place,
    ) {
        for change in message.changes {
            let heard = match change.change {
                Some(Change::Put(assignment)) => {
                    // A manager that was away may not know yet that the room is gone.
                    if let Some(room) = revoked_room(&assignment, revoked_through) {
                        self.shared.tell(Input::Ending(room, None)).await;
                    }
                    Heard::Assigned(Box::new(assignment))
                }
                Some(Change::Deleted(assignment)) => match AttemptId::parse(&assignment.attempt_id)
                {
                    Ok(id) => Heard::Input(Input::Settled(id)),
                    Err(_) => continue,
                },
                None => continue,
            };
            self.shared.tell_agent(heard).await;
        }
        if !message.resume_token.is_empty() {
            place.resume_token = message.resume_token;
        }
        if !message.epoch.is_empty() && message.epoch != place.epoch {
            if !place.epoch.is_empty() {
                tracing::warn!(before = %place.epoch, now = %message.epoch, "the replica-manager has another history");
            }
            place.epoch = message.epoch;
        }
    }
}

/// The room that an assignment names, if the registry has revoked it with all that this worker was given up to
/// a generation.
fn revoked_room(assignment: &Assignment, revoked_through: i64) -> Option<AllocationId> {
    if !(1..=revoked_through).contains(&assignment.worker_generation) {
        return None;
    }
    AllocationId::parse(&assignment.allocation_id).ok()
}

/// Reports what is seen of attempts.
#[derive(Debug)]
pub(crate) struct Reporter {
    pub(crate) shared: Shared,
    pub(crate) client: AssignmentsServiceClient<Channel>,
    pub(crate) connections: watch::Receiver<u64>,
}

impl Reporter {
    /// Reports until the loops end.
    pub(crate) async fn run(mut self) -> Result<(), String> {
        let stop = self.shared.context.shutdown.reached(Phase::Loops);
        tokio::select! {
            () = stop => Ok(()),
            () = self.report() => Ok(()),
        }
    }

    async fn report(&mut self) {
        let mut stored: Option<(u64, Stored)> = None;
        let mut trouble = Backoff::new(
            self.shared.config.retry,
            backoff::seed(&self.shared.config.name),
        );
        loop {
            let registered = until_registered(&self.shared.standing).await;
            let view = Arc::clone(&self.shared.view.borrow_and_update());
            let connection = *self.connections.borrow_and_update();
            // Behind a new connection there may be a manager that knows less.
            let of_it = stored.take().filter(|(of, _)| *of == connection);
            let (_, stored) = stored.insert(of_it.unwrap_or((connection, Stored::default())));
            let Some(message) = stored.next(&view) else {
                tokio::select! {
                    Ok(()) = self.shared.view.changed() => {}
                    Ok(()) = self.connections.changed() => {}
                    else => return,
                }
                continue;
            };
            match self.send(registered.generation, &message).await {
                Ok(answer) => {
                    trouble.reset();
                    self.shared.standing.note_manager();
                    stored.note(&view, &message, &answer);
                    self.settle(&view, answer).await;
                }
                Err(status) => {
                    if trouble.failures() == 0 {
                        tracing::warn!(code = ?status.code(), error = status.message(), "reports are not taken");
                    }
                    sleep(trouble.next_delay()).await;
                }
            }
        }
    }

    async fn send(
        &mut self,
        generation: i64,
        message: &Message,
    ) -> Result<ReportReplicasResponse, Status> {
        let mut request = Request::new(ReportReplicasRequest {
            worker: self.shared.config.name.clone(),
            generation,
            reports: message.reports.clone(),
            whole: message.whole,
        });
        request.set_timeout(REPORT_DEADLINE);
        self.client
            .report_replicas(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Stops reporting ends that are stored, and those of attempts that nobody knows.
    async fn settle(&self, view: &View, answer: ReportReplicasResponse) {
        let ids = answer.forgotten_attempts.iter();
        for id in ids.chain(&answer.unknown_attempts) {
            if let Ok(id) = AttemptId::parse(id)
                && let Some(seen) = view.attempts.get(&id).filter(|seen| seen.has_ended())
            {
                self.note_told(seen);
                self.shared.tell(Input::Settled(id)).await;
            }
        }
    }

    fn note_told(&self, seen: &Seen) {
        let ended = seen
            .report
            .end_time
            .and_then(|time| SystemTime::try_from(time).ok());
        let since =
            ended.and_then(|ended| self.shared.context.clock.now().duration_since(ended).ok());
        self.shared.measures.note_told(since.unwrap_or_default());
    }
}

/// Waits until the agent has a generation, and a lease that is counted.
async fn until_registered(standing: &Standing) -> Registered {
    let mut watch = standing.watch();
    let found = watch
        .wait_for(|now| now.is_some_and(|registered| registered.beaten))
        .await;
    match found.map(|found| *found) {
        Ok(Some(registered)) => registered,
        // The sender lives as long as `standing`.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

async fn until_generation_is_over(standing: &Standing, generation: i64) {
    let mut watch = standing.watch();
    let other =
        |now: &Option<Registered>| now.is_none_or(|registered| registered.generation != generation);
    if watch.wait_for(other).await.is_err() {
        std::future::pending::<()>().await;
    }
}
