//! What every process costs: how long each component takes from nothing to SERVING on an empty
//! embedded store, what memory it has when idle, and what a call costs that does nothing. The floor is
//! a bare tonic server.

use std::time::Duration;

use super::Setup;
use super::calls::Check;
use super::child::Plan;
use super::component::Component;
use super::figure::{Figure, Report, Target};
use super::load::{self, Window};
use super::statistics::{largest, median, millis};

const MOST_MILLIS: f64 = 50.0;
const MOST_MB: f64 = 20.0;

/// What one component did.
struct Outcome {
    /// Milliseconds, of each start.
    starts: Vec<f64>,
    /// MB.
    memory: f64,
}

pub(super) async fn run(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    let floor = measure(setup, Component::Bare).await?;
    for component in Component::OURS {
        let outcome = measure(setup, component).await?;
        let name = |what: &str| format!("{}-{what}", component.name());
        report.add(
            Figure::new(name("start"), median(outcome.starts.clone()), "ms")
                .over(median(floor.starts.clone()))
                .target(Target::AtMost(MOST_MILLIS)),
        );
        let slowest = Figure::new(name("start-slowest"), largest(&outcome.starts), "ms");
        report.add(slowest.over(largest(&floor.starts)));
        report.add(
            Figure::new(name("idle-memory"), outcome.memory, "MB")
                .over(floor.memory)
                .target(Target::AtMost(MOST_MB)),
        );
    }
    layers(setup, report).await
}

async fn measure(setup: &Setup, component: Component) -> anyhow::Result<Outcome> {
    let mut starts = Vec::new();
    let mut memory = 0.0;
    let count = setup.size(11, 2);
    for start in 1..=count {
        let folder = setup.temporary()?;
        let child = component.on_empty(folder.path()).start().await?;
        starts.push(millis(child.started_in()));
        if start == count {
            let idle = setup.size(Duration::from_secs(2), Duration::from_millis(500));
            tokio::time::sleep(idle).await;
            memory = child.memory()?;
        }
        child.kill().await?;
    }
    Ok(Outcome { starts, memory })
}

/// What our layers add to a call that does nothing.
async fn layers(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    let folder = setup.temporary()?;
    let bare = Plan::new(Component::Bare, folder.path()).start().await?;
    let empty = Plan::new(Component::Empty, folder.path()).start().await?;
    for clients in [1, 16] {
        let mut floor = Check::on(&bare.connections(clients).await?);
        let mut subject = Check::on(&empty.connections(clients).await?);
        let pairs = load::alternate(&mut floor, &mut subject, setup.rounds()).await?;
        let name = |what: &str| format!("health-check-{clients}-clients-{what}");
        let p50 = pairs.median(Window::p50)?;
        report.add(Figure::new(name("p50"), p50.value, "us").over(p50.floor));
        let rate = pairs.median(Window::rate)?;
        report.add(Figure::new(name("rate"), rate.value, "1/s").over(rate.floor));
    }
    Ok(())
}
