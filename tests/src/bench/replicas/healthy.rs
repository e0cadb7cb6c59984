//! How long it takes from the call that creates a service until all of its replicas are ready, on
//! machines whose agents are played by the bench and are ready at once: what is measured is what the
//! manager and the registry take, with every intent and observation on disk.

use tokio::time::Instant;

use super::super::Setup;
use super::super::figure::{Figure, Report};
use super::super::statistics::{median, millis};
use super::super::workers;
use super::agents;
use super::manager::{self, Client};
use crate::fleet;

const NAME: &str = "many";

pub(super) async fn run(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    let (replicas, machines) = (setup.size(500, 20), setup.size(20, 2));
    let folder = setup.temporary()?;
    let registry = workers::patient(folder.path()).await?;
    let manager = manager::plan(folder.path(), &registry).start().await?;
    let joined = workers::fleet::join(&registry, machines).await?;
    let _agents = agents::run(&joined, &registry, &manager).await?;
    let mut client = Client::new(manager.connect().await?);
    let mut took = Vec::new();
    for _ in 0..setup.size(3, 1) {
        let spec = manager::service(NAME, replicas, "played");
        let begun = Instant::now();
        client.update_service(fleet::full_replacement(spec)).await?;
        manager::until_healthy(&mut client).await?;
        took.push(millis(begun.elapsed()));
        manager::delete(&mut client, NAME).await?;
    }
    let name = format!("time-to-healthy-{replicas}-replicas-{machines}-played-agents");
    report.add(Figure::new(name, median(took), "ms"));
    manager.kill().await?;
    registry.kill().await
}
