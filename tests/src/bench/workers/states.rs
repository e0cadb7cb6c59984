//! Changes of a worker's state.

use muster_proto::workers::v1::{DrainWorkerRequest, ResumeWorkerRequest};

use super::super::Setup;
use super::super::calls::Check;
use super::super::child::Child;
use super::super::figure::{Figure, Report, Target};
use super::super::load::{self, Call, Window};
use super::fleet::{self, Agent, Client};
use super::owner::{Agents, Owner};

/// A drain and its resumption in turns, of a worker that holds something.
pub(super) async fn run(
    setup: &Setup,
    registry: &Child,
    agents: &Agents,
    report: &mut Report,
) -> anyhow::Result<()> {
    let channels = registry.connections(1).await?;
    let mut subject = Vec::new();
    for (channel, agent) in channels.iter().zip(agents.values()) {
        let client = fleet::client(channel);
        let mut holder = Owner::new(client.clone(), agents, "held".to_owned(), None);
        holder.claim().await?;
        holder.take(&agent.name).await?;
        subject.push(Operator {
            client,
            worker: agent.clone(),
            draining: false,
        });
    }
    let mut floor = Check::on(&channels);
    let pairs = load::alternate(&mut floor, &mut subject, setup.rounds()).await?;
    let p50 = pairs.median(Window::p50)?;
    report.add(
        Figure::new("state-change-p50", p50.value / 1e3, "ms")
            .over(p50.floor / 1e3)
            .target(Target::AtMost(1.0)),
    );
    let p99 = pairs.median(Window::p99)?;
    report.add(Figure::new("state-change-p99", p99.value / 1e3, "ms").over(p99.floor / 1e3));
    Ok(())
}

struct Operator {
    client: Client,
    worker: Agent,
    draining: bool,
}

impl Call for Operator {
    async fn call(&mut self) -> anyhow::Result<u64> {
        let (name, reason) = (self.worker.name.clone(), "bench".to_owned());
        if self.draining {
            let resume = ResumeWorkerRequest {
                name,
                reason,
                ..ResumeWorkerRequest::default()
            };
            self.client.resume_worker(resume).await?;
        } else {
            let drain = DrainWorkerRequest {
                name,
                reason,
                ..DrainWorkerRequest::default()
            };
            self.client.drain_worker(drain).await?;
        }
        self.draining = !self.draining;
        Ok(1)
    }
}
