//! The worker-registry: what agents do all the time, what owners and operators do on 5,000 workers, and
//! 100,000 workers of which a fifth is lost at once. The floor is `Health/Check` on the same server.

mod agents;
mod allocations;
mod crowd;
pub(super) mod fleet;
mod lists;
mod owner;
mod states;
mod watchers;

use std::path::Path;
use std::sync::Arc;

use super::Setup;
use super::child::{Child, Plan};
use super::component::Component;
use super::figure::Report;
use owner::Agents;

/// The parts that are measured on 5,000 workers.
const FLEET: [&str; 4] = ["lists", "states", "allocations", "watchers"];

pub(super) async fn run(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    agents(setup, report).await?;
    fleet_of_five_thousand(setup, report).await?;
    if setup.wants("crowd") {
        crowd::run(setup, report).await?;
    }
    Ok(())
}

/// A registry whose store is in `folder`.
fn plan(folder: &Path) -> Plan {
    Plan::new(Component::Registry, folder)
        .arg(
            "store",
            format!("embedded:{}", folder.join("workers.db").display()),
        )
        .flag("insecure-join")
}

/// A registry that waits for ever for those who do not beat.
pub(super) async fn patient(folder: &Path) -> anyhow::Result<Child> {
    let plan = plan(folder)
        .arg("lost-after", "1d")
        .arg("fence-after", "2d");
    plan.start().await
}

async fn agents(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    let folder = setup.temporary()?;
    let registry = patient(folder.path()).await?;
    if setup.wants("heartbeats") {
        agents::heartbeats(setup, &registry, report).await?;
    }
    if setup.wants("registrations") {
        agents::registrations(setup, &registry, report).await?;
    }
    registry.kill().await
}

async fn fleet_of_five_thousand(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    if !FLEET.iter().any(|part| setup.wants(part)) {
        return Ok(());
    }
    let folder = setup.temporary()?;
    let registry = patient(folder.path()).await?;
    let joined = fleet::join(&registry, setup.size(5_000, 500)).await?;
    let by_name = joined.into_iter().map(|agent| (agent.name.clone(), agent));
    let agents: Agents = Arc::new(by_name.collect());
    if setup.wants("lists") {
        lists::run(setup, &registry, &agents, report).await?;
    }
    if setup.wants("states") {
        states::run(setup, &registry, &agents, report).await?;
    }
    if setup.wants("allocations") {
        allocations::run(setup, &registry, &agents, report).await?;
    }
    if setup.wants("watchers") {
        watchers::run(setup, &registry, &agents, report).await?;
    }
    registry.kill().await
}
