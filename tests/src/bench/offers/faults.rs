//! The same questions while one backend hangs and another fails: beside a gateway without them, and
//! from its first start. The one that hangs takes connections and never says a word.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use muster_proto::offers::v1::offers_service_client::OffersServiceClient;
use muster_proto::offers::v1::{BackendData, BackendRefresh, ListOffersResponse};
use tokio::time::Instant;

use super::super::Setup;
use super::super::child::{Child, Plan};
use super::super::component::Component;
use super::super::figure::{Figure, Report, Target};
use super::super::load::{self, Rounds, Window};
use super::super::statistics::median;
use super::Asked;
use super::ask::{self, Asker, Question};
use super::catalogue::{BACKENDS, Expected};

/// How long a caller waits for one backend in these measurements.
const BACKEND_TIMEOUT: Duration = Duration::from_secs(1);
/// What a first answer may take beyond that, in seconds.
const BEYOND: f64 = 0.05;
const STARTS: usize = 5;
const LENGTH: Duration = Duration::from_secs(5);

/// Backends that do not answer, for as long as this lives.
struct Bad {
    hanging: TcpListener,
    failing: SocketAddr,
}

impl Bad {
    fn new() -> anyhow::Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        // The kernel takes connections to a listener whom nobody serves.
        let hanging = TcpListener::bind(any)?;
        // Nobody listens there any more, so that connections are refused.
        let failing = TcpListener::bind(any)?.local_addr()?;
        Ok(Self { hanging, failing })
    }

    /// What tells a gateway of them.
    fn config(&self) -> anyhow::Result<String> {
        let entry = |name: &str, address: SocketAddr| {
            format!(
                "[[backend]]\nname = \"{name}\"\nkind = \"grpc\"\naddress = \"http://{address}\"\n"
            )
        };
        let hanging = entry("hanging", self.hanging.local_addr()?);
        Ok(hanging + &entry("failing", self.failing))
    }
}

/// Measures beside `healthy`, which has the same catalogues and no bad backends.
pub(super) async fn run(
    setup: &Setup,
    folder: &Path,
    healthy: &Child,
    expected: Expected,
    report: &mut Report,
) -> anyhow::Result<()> {
    let bad = Bad::new()?;
    let config = folder.join("bad.toml");
    std::fs::write(&config, bad.config()?)?;
    let sick = cold(setup, folder, &config, expected, report).await?;
    let requests = ask::rehearse(
        &sick.connect().await?,
        Question::Selective,
        expected.selective,
    )
    .await?;
    for clients in [1, 16] {
        let (well, unwell) = (
            healthy.connections(clients).await?,
            sick.connections(clients).await?,
        );
        let mut floor = Asker::on(&well, &requests);
        let mut subject = Asker::on(&unwell, &requests);
        let rounds = Rounds {
            length: setup.size(LENGTH, setup.rounds().length),
            ..setup.rounds()
        };
        let pairs = load::alternate(&mut floor, &mut subject, rounds).await?;
        let asked = Asked::new("selective-beside-bad-backends", clients);
        let single = |target| (clients == 1).then_some(target);
        let p50 = asked.figure("p50", "us", pairs.median(Window::p50)?);
        report.add(p50.target_if(single(Target::RatioAtMost(1.05))));
        let p99 = asked.figure("p99", "us", pairs.median(Window::p99)?);
        report.add(p99.target_if(single(Target::RatioAtMost(1.25))));
        report.add(asked.figure("rate", "1/s", pairs.median(Window::rate)?));
        // And beside that server's own floor.
        let asked = Asked::new("selective-with-bad-backends", clients);
        let subject = Asker::on(&unwell, &requests);
        asked.compare(setup, &unwell, subject, report).await?;
    }
    sick.kill().await
}

/// First starts with the bad backends, each until its first answer; the last gateway runs on.
async fn cold(
    setup: &Setup,
    folder: &Path,
    config: &Path,
    expected: Expected,
    report: &mut Report,
) -> anyhow::Result<Child> {
    let timeout = format!("{}ms", BACKEND_TIMEOUT.as_millis());
    let plan = Plan::new(Component::Gateway, folder)
        .arg("catalog", folder.join("catalogs"))
        .arg("config", config)
        .arg("backend-timeout", timeout);
    let mut times = Vec::new();
    loop {
        let gateway = plan.start().await?;
        let mut client = OffersServiceClient::new(gateway.connect().await?);
        let begun = Instant::now();
        let answer = ask::ask(&mut client, Question::Selective.request()).await?;
        times.push(begun.elapsed().as_secs_f64());
        check(&answer)?;
        ask::check(&answer, expected.selective)?;
        if times.len() == setup.size(STARTS, 2) {
            let most = BACKEND_TIMEOUT.as_secs_f64() + BEYOND;
            let figure = Figure::new("cold-answer-with-bad-backends", median(times), "s");
            report.add(figure.target(Target::AtMost(most)));
            return Ok(gateway);
        }
        gateway.kill().await?;
    }
}

/// Whether an answer says of each bad backend what is wrong, and has the offers of all others.
fn check(answer: &ListOffersResponse) -> anyhow::Result<()> {
    let shown = &answer.backends;
    ensure!(shown.len() == BACKENDS.len() + 2, "{shown:?}");
    for report in shown {
        let expected = match report.backend.as_str() {
            "hanging" => report.refresh() == BackendRefresh::TimedOut,
            "failing" => report.refresh() == BackendRefresh::Failed,
            _ => matches!(report.data(), BackendData::Fresh | BackendData::Cached),
        };
        ensure!(expected, "{report:?}");
    }
    Ok(())
}
