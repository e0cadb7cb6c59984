//! What a stopping agent does with its replicas before anything else of it stops: nothing, have
//! them moved away, or stop them. It ends in time, whatever the registry and the manager do.

use std::sync::Arc;
use std::time::Duration;

use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_proto::workers::v1::{AfterDeadline, DrainCause, DrainWorkerRequest};
use muster_runtime::backoff::{self, Backoff};
use muster_runtime::connect::Channel;
use muster_runtime::shutdown::Phase;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::Request;

use crate::config::OnTerminate;
use crate::domain::holdings::Input;
use crate::grpc::convert;
use crate::shared::Shared;
use crate::view::View;

const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// After its time a drain is forced by the registry; if that is not heard of, by us.
const FORCED_LATE: Duration = Duration::from_secs(2);
/// What stopping may take beyond the longest grace that the contract allows with a lease.
const STOP_TIME: Duration = Duration::from_secs(45);
/// For telling the last ends, and for leaving.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Ends what runs here.
#[derive(Debug)]
pub(crate) struct Terminate {
    pub(crate) shared: Shared,
    pub(crate) client: WorkersServiceClient<Channel>,
    pub(crate) leave: mpsc::Sender<oneshot::Sender<()>>,
}

impl Terminate {
    /// Adds what is to be done to the agent's shutdown.
    pub(crate) fn add_step(self) {
        let time = match self.shared.config.on_terminate {
            OnTerminate::Keep => return,
            OnTerminate::Drain(time) => time + FORCED_LATE + STOP_TIME + 2 * LAST_WORDS,
            OnTerminate::Stop => STOP_TIME + 2 * LAST_WORDS,
        };
        let shutdown = self.shared.context.shutdown.clone();
        shutdown.extend_budget(time);
        shutdown.step(Phase::StepDown, "replicas", time, move || self.run());
    }

    async fn run(mut self) -> Result<(), String> {
        if let OnTerminate::Drain(time) = self.shared.config.on_terminate {
            let until = Instant::now() + time + FORCED_LATE;
            tracing::info!(?time, "draining");
            let drained = timeout_at(until, self.drain(time)).await;
            if drained.is_err() {
                tracing::warn!("the drain's time has passed");
            }
        }
        let ended = self.stop_all().await;
        self.leave().await;
        ended
    }

    /// Asks for a drain, and waits until nothing runs.
    async fn drain(&mut self, time: Duration) {
        let mut trouble = Backoff::new(
            self.shared.config.retry,
            backoff::seed(&self.shared.config.name),
        );
        let until = Instant::now() + time;
        while let Err(status) = self
            .ask_for_drain(until.saturating_duration_since(Instant::now()))
            .await
        {
            tracing::warn!(code = ?status.code(), error = status.message(), "the registry does not drain");
            if !self.shared.view.borrow().running {
                return;
            }
            sleep(trouble.next_delay()).await;
        }
        let _ = self.shared.view.wait_for(|view| !view.running).await;
    }

    async fn ask_for_drain(&mut self, time: Duration) -> Result<(), tonic::Status> {
        let mut request = Request::new(DrainWorkerRequest {
            name: self.shared.config.name.clone(),
            cause: DrainCause::Shutdown.into(),
            reason: "the agent is stopping".to_owned(),
            deadline: Some(convert::render_duration(time)),
            max_parallel: 0,
            after_deadline: AfterDeadline::Force.into(),
            etag: String::new(),
            validate_only: false,
            generation: self.shared.standing.generation(),
        });
        request.set_timeout(DRAIN_DEADLINE);
        self.client.drain_worker(request).await.map(|_| ())
    }

    /// Stops what is left.
    async fn stop_all(&mut self) -> Result<(), String> {
        if self.shared.view.borrow().running {
            self.shared.tell(Input::Closing).await;
        }
        match timeout(STOP_TIME, self.shared.view.wait_for(|view| !view.running)).await {
            Ok(_) => Ok(()),
            Err(_) => Err("replicas still run".to_owned()),
        }
    }

    /// Tells the last ends, then says that the agent leaves.
    async fn leave(mut self) {
        let all_told = |view: &Arc<View>| view.attempts.values().all(|seen| seen.settled);
        let _ = timeout(LAST_WORDS, self.shared.view.wait_for(all_told)).await;
        let (done, left) = oneshot::channel();
        if self.leave.try_send(done).is_ok() {
            let _ = timeout(LAST_WORDS, left).await;
        }
    }
}
