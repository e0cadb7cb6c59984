//! Room on 5,000 workers, taken one accelerator a call, and many.

use std::time::Duration;

use super::super::Setup;
use super::super::calls::Check;
use super::super::child::Child;
use super::super::figure::{Figure, Report, Target};
use super::super::form::Scripted;
use super::super::load::{self, Rounds, Window};
use super::fleet;
use super::owner::{Agents, Owner};

const CLIENTS: usize = 64;
const BATCHING: usize = 4;
const BATCH: usize = 100;

pub(super) async fn run(
    setup: &Setup,
    registry: &Child,
    agents: &Agents,
    report: &mut Report,
) -> anyhow::Result<()> {
    // Short, since there are only so many accelerators to be had in one window.
    let rounds = Rounds {
        length: setup.size(Duration::from_millis(500), Duration::from_millis(50)),
        ..setup.rounds()
    };
    let channels = registry.connections(CLIENTS).await?;
    let owners = |prefix: &'static str, batch: Option<usize>| {
        let clients = channels.iter().enumerate();
        clients.map(move |(number, channel)| {
            let prefix = format!("{prefix}-{number}");
            let owner = Owner::new(fleet::client(channel), agents, prefix, batch);
            (channel, owner)
        })
    };
    let mut floor = Check::on(&channels);
    for (_, mut owner) in owners("claim", None).take(1) {
        owner.claim().await?;
    }
    let scripted = owners("one", None).map(|(channel, owner)| Scripted::new(channel, owner));
    let pairs = load::alternate(&mut floor, &mut scripted.collect(), rounds).await?;
    let name = |what: &str| {
        format!(
            "allocations-{}-workers-{CLIENTS}-clients-{what}",
            agents.len()
        )
    };
    let rate = pairs.median(Window::rate)?;
    report.add(
        Figure::new(name("rate"), rate.value, "1/s")
            .over(rate.floor)
            .target(Target::RatioAtLeast(0.4)),
    );
    let p50 = pairs.median(Window::p50)?;
    report.add(Figure::new(name("p50"), p50.value, "us").over(p50.floor));
    let p99 = pairs.median(Window::p99)?;
    report.add(Figure::new(name("p99"), p99.value, "us").over(p99.floor));
    let mut decoded = owners("decoded", None).map(|(_, owner)| owner).collect();
    let pairs = load::alternate(&mut floor, &mut decoded, rounds).await?;
    let rate = pairs.median(Window::rate)?;
    report.add(Figure::new(name("decoded-rate"), rate.value, "1/s").over(rate.floor));

    let rounds = Rounds {
        length: rounds.length / 2,
        ..rounds
    };
    let mut floor = Check::on(&channels[..BATCHING]);
    let many = owners("many", Some(BATCH)).take(BATCHING);
    let mut many = many.map(|(_, owner)| owner).collect();
    let pairs = load::alternate(&mut floor, &mut many, rounds).await?;
    let rate = pairs.median(Window::rate)?;
    let name = format!(
        "allocations-{}-workers-in-{BATCH}s-{BATCHING}-clients-rate",
        agents.len()
    );
    report.add(
        Figure::new(name, rate.value, "1/s")
            .over(rate.floor)
            .target(Target::AtLeast(50_000.0)),
    );
    Ok(())
}
