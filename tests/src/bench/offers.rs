//! The offers-gateway over 100,000 rows in nine backends: answers beside `Health/Check` on the same
//! server, answers with two bad backends beside those with none, and restarts.

mod ask;
mod catalogue;
mod faults;
mod restart;

use std::path::Path;
use std::sync::Arc;

use super::connection::Connection;
use bytes::Bytes;
use muster_proto::offers::v1::offers_service_client::OffersServiceClient;
use prost::Message as _;

use super::Setup;
use super::calls::Check;
use super::child::{Child, Plan};
use super::component::Component;
use super::figure::{Figure, Report, Target};
use super::load::{self, Call, Pair, Window};
use ask::{Asker, Decoder, Question};

pub(super) async fn run(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    let folder = setup.temporary()?;
    let catalogs = folder.path().join("catalogs");
    let expected = catalogue::write(&catalogs, setup.size(100_000, 10_000))?;
    let gateway = restart::run(setup, folder.path(), expected, report).await?;
    report.add(Figure::new("memory", gateway.memory()?, "MB"));
    for (question, number) in [
        (Question::Selective, expected.selective),
        (Question::Broad, expected.broad),
        (Question::Everything, expected.offers),
    ] {
        let requests = ask::rehearse(&gateway.connect().await?, question, number).await?;
        for clients in [1, 16] {
            let channels = gateway.connections(clients).await?;
            let mut asked = Asked::new(question.name(), clients);
            if question == Question::Selective {
                asked.targets = [
                    Some(Target::RatioAtMost(2.0)),
                    Some(Target::RatioAtLeast(0.3)),
                ];
            }
            let subject = Asker::on(&channels, &requests);
            asked.compare(setup, &channels, subject, report).await?;
        }
    }
    decoding(setup, &gateway, report).await?;
    limit(setup, folder.path(), &gateway, report).await?;
    faults::run(setup, folder.path(), &gateway, expected, report).await?;
    report.add(Figure::new("memory-after-load", gateway.memory()?, "MB"));
    gateway.kill().await
}

/// A gateway on the catalogues in `folder`, which keeps its state there too.
fn plan(folder: &Path) -> Plan {
    Plan::new(Component::Gateway, folder)
        .arg("catalog", folder.join("catalogs"))
        .arg("data", folder.join("data"))
}

/// The same with a client that decodes what it gets.
async fn decoding(setup: &Setup, gateway: &Child, report: &mut Report) -> anyhow::Result<()> {
    for clients in [1, 16] {
        let channels = gateway.connections(clients).await?;
        let subject = Decoder::on(&channels, Question::Selective);
        let asked = Asked::new("selective-decoded", clients);
        asked.compare(setup, &channels, subject, report).await?;
    }
    Ok(())
}

/// The same page from a bare tonic server, beside that server's own `Health/Check`.
async fn limit(
    setup: &Setup,
    folder: &Path,
    gateway: &Child,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut client = OffersServiceClient::new(gateway.connect().await?);
    let request = Question::Selective.request();
    let page = ask::ask(&mut client, request.clone()).await?;
    let file = folder.join("page");
    std::fs::write(&file, page.encode_to_vec())?;
    let plan = Plan::new(Component::Bare, folder).arg("page", &file);
    let bare = plan.start().await?;
    let requests = Arc::from([Bytes::from(request.encode_to_vec())]);
    for clients in [1, 16] {
        let channels = bare.connections(clients).await?;
        let subject = Asker::on(&channels, &requests);
        let asked = Asked::new("bare-server-same-page", clients);
        asked.compare(setup, &channels, subject, report).await?;
    }
    Ok(())
}

/// A question as it stands in the names of figures.
struct Asked {
    name: &'static str,
    clients: usize,
    /// Of p50 with one client, and of the rate with many.
    targets: [Option<Target>; 2],
}

impl Asked {
    fn new(name: &'static str, clients: usize) -> Self {
        Self {
            name,
            clients,
            targets: [None, None],
        }
    }

    /// Measures beside `Health/Check` on the same connections.
    async fn compare<C: Call>(
        &self,
        setup: &Setup,
        channels: &[Connection],
        mut subject: Vec<C>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let mut floor = Check::on(channels);
        let pairs = load::alternate(&mut floor, &mut subject, setup.rounds()).await?;
        let single = self.clients == 1;
        let [of_p50, of_rate] = self.targets;
        let p50 = self.figure("p50", "us", pairs.median(Window::p50)?);
        report.add(p50.target_if(of_p50.filter(|_| single)));
        report.add(self.figure("p99", "us", pairs.median(Window::p99)?));
        let rate = self.figure("rate", "1/s", pairs.median(Window::rate)?);
        report.add(rate.target_if(of_rate.filter(|_| !single)));
        Ok(())
    }

    fn figure(&self, what: &str, unit: &'static str, pair: Pair) -> Figure {
        let name = format!("{}-{}-clients-{what}", self.name, self.clients);
        Figure::new(name, pair.value, unit).over(pair.floor)
    }
}
