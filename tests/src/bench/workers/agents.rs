//! What agents do all the time, as load: they register, and they beat.

use anyhow::ensure;
use bytes::Bytes;
use muster_proto::workers::v1::RegisterWorkerRequest;
use prost::Message as _;

use super::super::Setup;
use super::super::calls::Check;
use super::super::child::{Child, Plan};
use super::super::component::Component;
use super::super::connection::Connection;
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
/// Of the rate of a bare server that signs and stores too.
const OF_BARE: f64 = 0.7;

pub(super) async fn registrations(
    setup: &Setup,
    registry: &Child,
    report: &mut Report,
) -> anyhow::Result<()> {
    let channels = registry.connections(REGISTERING).await?;
    let mut floor = Check::on(&channels);
    let pairs =
        load::alternate(&mut floor, &mut scripted("new", &channels), setup.rounds()).await?;
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
    let mut decoded = registrars("decoded", &channels);
    let pairs = load::alternate(&mut floor, &mut decoded, setup.rounds()).await?;
    let rate = pairs.median(Window::rate)?;
    report.add(Figure::new(name("decoded-rate"), rate.value, "1/s").over(rate.floor));
    limits(setup, registry, report).await
}

/// What a bare server makes of registrations, beside its own `Health/Check`: one that only reads the message and
/// answers, and one that signs and stores too. Then the registry beside the latter.
async fn limits(setup: &Setup, registry: &Child, report: &mut Report) -> anyhow::Result<()> {
    let folder = setup.temporary()?;
    let request = fleet::registration("limit".to_owned(), "zone-0".to_owned());
    let mut client = fleet::client(&registry.connect().await?);
    let answer = client.register_worker(request).await?.into_inner();
    let file = folder.path().join("registered");
    std::fs::write(&file, answer.encode_to_vec())?;
    let reads = Plan::new(Component::Bare, folder.path()).arg("registered", &file);
    let stores = reads
        .clone()
        .arg("keep", folder.path().join("registrations"));
    let bare = reads.start().await?;
    limit("reads", &bare, setup, report).await?;
    bare.kill().await?;
    let bare = stores.start().await?;
    limit("reads-signs-stores", &bare, setup, report).await?;
    let channels = bare.connections(REGISTERING).await?;
    let mut floor = scripted("beside", &channels);
    let channels = registry.connections(REGISTERING).await?;
    let mut subject = scripted("beside", &channels);
    let pairs = load::alternate(&mut floor, &mut subject, setup.rounds()).await?;
    let rate = pairs.median(Window::rate)?;
    let name = format!("registrations-{REGISTERING}-clients-beside-bare-server-rate");
    report.add(
        Figure::new(name, rate.value, "1/s")
            .over(rate.floor)
            .target(Target::RatioAtLeast(OF_BARE)),
    );
    bare.kill().await
}

async fn limit(what: &str, bare: &Child, setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    let channels = bare.connections(REGISTERING).await?;
    let (mut floor, mut subject) = (Check::on(&channels), scripted("limit", &channels));
    let pairs = load::alternate(&mut floor, &mut subject, setup.rounds()).await?;
    let rate = pairs.median(Window::rate)?;
    let name = format!("bare-server-{what}-registrations-{REGISTERING}-clients-rate");
    report.add(Figure::new(name, rate.value, "1/s").over(rate.floor));
    Ok(())
}

/// A registrar on each connection. Other registrars have another prefix.
fn registrars(prefix: &'static str, channels: &[Connection]) -> Vec<Registrar> {
    let numbered = channels.iter().enumerate();
    let registrar = |(number, channel)| Registrar {
        client: fleet::client(channel),
        prefix,
        number,
        next: 0,
    };
    numbered.map(registrar).collect()
}

/// The same, as bytes.
fn scripted(prefix: &'static str, channels: &[Connection]) -> Vec<Scripted<Registrar>> {
    let registrars = registrars(prefix, channels).into_iter().zip(channels);
    registrars
        .map(|(registrar, channel)| Scripted::new(channel, registrar))
        .collect()
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
