//! Agents that are played: each watches what is assigned to its machine, says at once that it is ready,
//! and beats, so that room comes free when something has ended.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_proto::replicas::v1::assignments_service_client::AssignmentsServiceClient;
use muster_proto::replicas::v1::{
    Assignment, AssignmentIntent, AttemptPhase, AttemptReport, ReportReplicasRequest,
    WatchAssignmentsRequest, assignment_change,
};
use tokio::task::JoinSet;

use super::super::child::Child;
use super::super::connection::Connection;
use super::super::workers::fleet::{self, Agent};

/// Runs machines that have joined, until the answer is dropped. Each has connections of its own.
pub(super) async fn run(
    agents: &[Agent],
    registry: &Child,
    manager: &Child,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let mut running = JoinSet::new();
    for agent in agents {
        let (workers, replicas) = (registry.connect().await?, manager.connect().await?);
        running.spawn(play(agent.clone(), workers, replicas));
    }
    Ok(running)
}

async fn play(agent: Agent, workers: Connection, replicas: Connection) -> anyhow::Result<()> {
    let mut registry = fleet::client(&workers);
    let mut manager = AssignmentsServiceClient::new(replicas);
    // A manager that has just started fetches the keys that our credential is verified with.
    let mut stream = loop {
        let request = agent.request(WatchAssignmentsRequest {
            worker: agent.name.clone(),
            generation: agent.generation,
            resume_token: String::new(),
        });
        match manager.watch_assignments(request).await {
            Ok(answer) => break answer.into_inner(),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let mut ended = BTreeSet::new();
    while let Some(message) = stream.message().await? {
        let mut reports = Vec::new();
        let mut gone = Vec::new();
        for change in message.changes {
            if let Some(assignment_change::Change::Put(assignment)) = change.change {
                let stop = assignment.intent() == AssignmentIntent::Stop;
                if stop && ended.insert(assignment.attempt_id.clone()) {
                    gone.push(assignment.allocation_id.clone());
                }
                reports.push(report(&assignment, stop));
            }
        }
        if reports.is_empty() {
            continue;
        }
        let request = agent.request(ReportReplicasRequest {
            worker: agent.name.clone(),
            generation: agent.generation,
            reports,
            whole: false,
        });
        manager.report_replicas(request).await?;
        if !gone.is_empty() {
            fleet::beat(&mut registry, &agent, gone).await?;
        }
    }
    Ok(())
}

fn report(assignment: &Assignment, stop: bool) -> AttemptReport {
    let phase = if stop {
        AttemptPhase::Ended
    } else {
        AttemptPhase::Ready
    };
    AttemptReport {
        attempt_id: assignment.attempt_id.clone(),
        allocation_id: assignment.allocation_id.clone(),
        phase: phase.into(),
        stopped: stop,
        ..AttemptReport::default()
    }
}
