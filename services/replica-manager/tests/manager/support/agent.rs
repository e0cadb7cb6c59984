//! An agent that is played: it watches its assignments, reports starts, readiness and ends, and can be
//! told to let an attempt fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use muster_proto::replicas::v1::assignments_service_client::AssignmentsServiceClient;
use muster_proto::replicas::v1::*;
use muster_runtime::connect::Channel;

#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) worker: String,
    client: AssignmentsServiceClient<Channel>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    running: BTreeMap<String, Assignment>,
    started: Vec<String>,
    ended: BTreeSet<String>,
    unready: bool,
}

impl Agent {
    /// Connects as `worker`, and runs what it is told to.
    pub(crate) fn start(worker: &str, channel: Channel) -> Self {
        let agent = Self {
            worker: worker.to_owned(),
            client: AssignmentsServiceClient::new(channel),
            inner: Arc::default(),
        };
        let looping = agent.clone();
        #[allow(
            clippy::disallowed_methods,
            reason = "a played peer has no runtime of ours"
        )]
        tokio::spawn(async move { looping.run().await });
        agent
    }

    /// The same agent, with all that it runs, at another manager.
    pub(crate) fn reconnect(self, channel: Channel) -> Self {
        let agent = Self {
            worker: self.worker.clone(),
            client: AssignmentsServiceClient::new(channel),
            inner: Arc::clone(&self.inner),
        };
        let looping = agent.clone();
        #[allow(
            clippy::disallowed_methods,
            reason = "a played peer has no runtime of ours"
        )]
        tokio::spawn(async move { looping.run().await });
        agent
    }

    /// Starts replicas that never get ready.
    pub(crate) fn never_ready(&self, unready: bool) {
        self.inner.lock().unwrap().unready = unready;
    }

    pub(crate) fn running(&self) -> Vec<Assignment> {
        self.inner
            .lock()
            .unwrap()
            .running
            .values()
            .cloned()
            .collect()
    }

    pub(crate) fn started(&self) -> Vec<String> {
        self.inner.lock().unwrap().started.clone()
    }

    /// The process of an attempt exits by itself.
    pub(crate) async fn exit(&self, attempt: &str, code: i32) {
        {
            let mut inner = self.inner.lock().unwrap();
            inner.running.remove(attempt).expect("it runs");
            inner.ended.insert(attempt.to_owned());
        }
        let report = AttemptReport {
            attempt_id: attempt.to_owned(),
            phase: AttemptPhase::Ended.into(),
            exit: Some(ExitStatus {
                code: Some(code),
                ..ExitStatus::default()
            }),
            failure_class: FailureClass::Error.into(),
            last_log_lines: vec!["boom".to_owned()],
            ..AttemptReport::default()
        };
        self.report(report).await;
    }

    pub(crate) async fn report(&self, report: AttemptReport) -> ReportReplicasResponse {
        let request = ReportReplicasRequest {
            worker: self.worker.clone(),
            generation: 1,
            reports: vec![report],
            whole: false,
        };
        loop {
            match self.client.clone().report_replicas(request.clone()).await {
                Ok(response) => return response.into_inner(),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    }

    async fn run(&self) {
        loop {
            let request = WatchAssignmentsRequest {
                worker: self.worker.clone(),
                generation: 1,
                resume_token: String::new(),
            };
            if let Ok(stream) = self.client.clone().watch_assignments(request).await {
                let mut stream = stream.into_inner();
                self.report_whole().await;
                while let Ok(Some(message)) = stream.message().await {
                    for change in message.changes {
                        if let Some(assignment_change::Change::Put(assignment)) = change.change {
                            self.take(assignment).await;
                        }
                    }
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// What an agent does after each new connection.
    async fn report_whole(&self) {
        let (running, unready) = {
            let inner = self.inner.lock().unwrap();
            (inner.running.clone(), inner.unready)
        };
        let phase = if unready {
            AttemptPhase::Starting
        } else {
            AttemptPhase::Ready
        };
        let reports = running.into_iter().map(|(id, assignment)| AttemptReport {
            attempt_id: id,
            allocation_id: assignment.allocation_id.clone(),
            phase: phase.into(),
            assignment: Some(assignment),
            ..AttemptReport::default()
        });
        let request = ReportReplicasRequest {
            worker: self.worker.clone(),
            generation: 1,
            reports: reports.collect(),
            whole: true,
        };
        // The next connection tells it again.
        let _ = self.client.clone().report_replicas(request).await;
    }

    async fn take(&self, assignment: Assignment) {
        let id = assignment.attempt_id.clone();
        if assignment.intent == i32::from(AssignmentIntent::Stop) {
            {
                let mut inner = self.inner.lock().unwrap();
                inner.running.remove(&id);
                inner.ended.insert(id.clone());
            }
            let report = AttemptReport {
                attempt_id: id,
                phase: AttemptPhase::Ended.into(),
                stopped: true,
                ..AttemptReport::default()
            };
            self.report(report).await;
            return;
        }
        let unready = {
            let mut inner = self.inner.lock().unwrap();
            if inner.ended.contains(&id) || inner.running.contains_key(&id) {
                return;
            }
            inner.running.insert(id.clone(), assignment);
            inner.started.push(id.clone());
            inner.unready
        };
        let phase = if unready {
            AttemptPhase::Starting
        } else {
            AttemptPhase::Ready
        };
        let report = AttemptReport {
            attempt_id: id,
            phase: phase.into(),
            addresses: vec![PortAddress {
                number: 8000,
                name: String::new(),
                address: format!("{}:4711", self.worker),
            }],
            ..AttemptReport::default()
        };
        self.report(report).await;
    }
}
