//! What agents do all the time, as load: they register, and they beat.

use anyhow::ensure;
use bytes::Bytes;
use muster_proto::workers::v1::RegisterWorkerRequest;
use prost::Message as _;

use super::super::Setup;
use super::super::calls::Check;
use super::super::child::Child;
use super::super::figure::{Figure, Report, Target};
use super::super::form::{Form, Script, Scripted};
use super::super::load::{self, Call, Window};
use super::fleet::{self, Agent, Client};

const REGISTERING: usize = 64;
const BEATING: usize = 16;
/// Machines for which each client beats.
const MACHINES: usize = 64;
/// Of `Health/Check`: how much longer, and so how much less often.
const BEAT: f64 = 1.3;

pub(super) async fn registrations(
    setup: &Setup,
    registry: &Child,
    report: &mut Report,
) -> anyhow::Result<()> {
    let channels = registry.connections(REGISTERING).await?;
    let mut floor = Check::on(&channels);
    let registrars = |prefix: &'static str| {
        let numbered = channels.iter().enumerate();
        numbered.map(move |(number, channel)| {
            let script = Registrar {
                client: fleet::client(channel),
                prefix,
                number,
                next: 0,
            };
            (channel, script)
        })
    };
    let scripted = registrars("new").map(|(channel, script)| Scripted::new(channel, script));
    let pairs = load::alternate(&mut floor, &mut scripted.collect(), setup.rounds()).await?;
    let name = |what: &str| format!("registrations-{REGISTERING}-clients-{what}");
    let rate = pairs.median(Window::rate)?;
    report.add(
        Figure::new(name("rate"), rate.value, "1/s")
            .over(rate.floor)
            .target(Target::RatioAtLeast(0.5)),
    );
    let p50 = pairs.median(Window::p50)?;
    report.add(Figure::new(name("p50"), p50.value, "us").over(p50.floor));
    let p99 = pairs.median(Window::p99)?;
    report.add(Figure::new(name("p99"), p99.value, "us").over(p99.floor));
    let mut decoded = registrars("decoded").map(|(_, script)| script).collect();
    let pairs = load::alternate(&mut floor, &mut decoded, setup.rounds()).await?;
    let rate = pairs.median(Window::rate)?;
    report.add(Figure::new(name("decoded-rate"), rate.value, "1/s").over(rate.floor));
    Ok(())
}

pub(super) async fn heartbeats(
    setup: &Setup,
    registry: &Child,
    report: &mut Report,
) -> anyhow::Result<()> {
    let agents = fleet::join(registry, BEATING * MACHINES).await?;
    for clients in [1, BEATING] {
        let channels = registry.connections(clients).await?;
        let mut floor = Check::on(&channels);
        let mut subject = channels
            .iter()
            .zip(agents.chunks(MACHINES))
            .map(|(channel, agents)| Beater {
                client: fleet::client(channel),
                agents: agents.to_vec(),
                next: 0,
            })
            .collect();
        let pairs = load::alternate(&mut floor, &mut subject, setup.rounds()).await?;
        let name = |what: &str| format!("heartbeats-{clients}-clients-{what}");
        let single = clients == 1;
        let p50 = pairs.median(Window::p50)?;
        let target = single.then_some(Target::RatioAtMost(BEAT));
        report.add(
            Figure::new(name("p50"), p50.value, "us")
                .over(p50.floor)
                .target_if(target),
        );
        let p99 = pairs.median(Window::p99)?;
        report.add(Figure::new(name("p99"), p99.value, "us").over(p99.floor));
        let rate = pairs.median(Window::rate)?;
        let target = (!single).then_some(Target::RatioAtLeast(1.0 / BEAT));
        report.add(
            Figure::new(name("rate"), rate.value, "1/s")
                .over(rate.floor)
                .target_if(target),
        );
    }
    Ok(())
}

/// Registers one machine after the other.
struct Registrar {
    client: Client,
    /// Unlike those of other registrars of this number.
    prefix: &'static str,
    number: usize,
    next: u64,
}

impl Registrar {
    fn request(&self, number: u64) -> RegisterWorkerRequest {
        let name = format!("{}-{:03}-{number:09}", self.prefix, self.number);
        fleet::registration(name, format!("zone-{}", number % 10))
    }
}

impl Script for Registrar {
    const PATH: &'static str = "/muster.workers.v1.WorkersService/RegisterWorker";

    fn form(&self) -> Form {
        Form::of(|number| self.request(number))
    }

    fn answered(&mut self, answer: Bytes) -> anyhow::Result<()> {
        let Registered { credential } = Registered::decode(answer)?;
        ensure!(!credential.is_empty(), "an answer without a credential");
        Ok(())
    }
}

/// What of an answer is looked at.
#[derive(Clone, PartialEq, prost::Message)]
struct Registered {
    #[prost(string, tag = "2")]
    credential: String,
}

impl Call for Registrar {
    async fn call(&mut self) -> anyhow::Result<u64> {
        let request = self.request(self.next);
        self.next += 1;
        let answer = self.client.register_worker(request).await?;
        fleet::registered(answer.into_inner())?;
        Ok(1)
    }
}

/// Beats for its machines in turns.
struct Beater {
    client: Client,
    agents: Vec<Agent>,
    next: usize,
}

impl Call for Beater {
    async fn call(&mut self) -> anyhow::Result<u64> {
        let agent = &self.agents[self.next % self.agents.len()];
        self.next += 1;
        fleet::beat(&mut self.client, agent, Vec::new()).await?;
        Ok(1)
    }
}
