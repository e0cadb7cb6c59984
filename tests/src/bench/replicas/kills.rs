//! Each replica of a service is killed once, on a real agent with the process runtime and an interval of
//! 0: how long until another process of it runs. A process runs once it has written down its pid.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, timeout};

use super::super::Setup;
use super::super::child::{Child, Plan};
use super::super::component::Component;
use super::super::figure::{Figure, Report, Target};
use super::super::statistics::{largest, millis, percentile};
use super::super::workers;
use super::manager::{self, Client, PATIENCE};
use crate::fleet;

const MOST_MILLIS: f64 = 200.0;
/// Time from one look for a new process to the next.
const LOOK: Duration = Duration::from_micros(500);

pub(super) async fn run(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    let folder = setup.temporary()?;
    let registry = workers::patient(folder.path()).await?;
    let manager = manager::plan(folder.path(), &registry).start().await?;
    let agent = agent(folder.path(), &registry, &manager).start().await?;
    let pids = folder.path().join("pids");
    fs::create_dir(&pids)?;
    let count = setup.size(60, 3);
    let mut client = Client::new(manager.connect().await?);
    let script = format!(
        "echo $$ > '{0}/new-'$$; mv '{0}/new-'$$ \"{0}/${{MUSTER_REPLICA##*/}}\"; exec sleep 3600",
        pids.display()
    );
    let spec = manager::service("kills", count, &script);
    client.update_service(fleet::full_replacement(spec)).await?;
    manager::until_healthy(&mut client).await?;

    let mut took = Vec::new();
    for ordinal in 0..count {
        took.push(millis(kill_once(&pids.join(ordinal.to_string())).await?));
    }
    let name = |what: &str| format!("kill-to-replacement-running-{what}");
    report.add(
        Figure::new(name("p50"), percentile(took.clone(), 50), "ms")
            .target(Target::AtMost(MOST_MILLIS)),
    );
    report.add(Figure::new(name("p99"), percentile(took.clone(), 99), "ms"));
    report.add(Figure::new(name("slowest"), largest(&took), "ms"));

    manager::delete(&mut client, "kills").await?;
    agent.kill().await?;
    manager.kill().await?;
    registry.kill().await
}

fn agent(folder: &Path, registry: &Child, manager: &Child) -> Plan {
    Plan::new(Component::Agent, folder)
        .arg("data", folder.join("agent"))
        .arg("name", "bench")
        .arg("workers-addr", registry.url())
        .arg("replicas-addr", manager.url())
}

async fn kill_once(file: &Path) -> anyhow::Result<Duration> {
    let before = pid(file)?;
    let begun = Instant::now();
    fleet::kill(before);
    let replaced = async {
        while pid(file)? == before {
            tokio::time::sleep(LOOK).await;
        }
        anyhow::Ok(begun.elapsed())
    };
    timeout(PATIENCE, replaced).await.context("not replaced")?
}

fn pid(file: &Path) -> anyhow::Result<i32> {
    let text = fs::read_to_string(file).context("a replica has left no pid")?;
    Ok(text.trim().parse()?)
}
