//! All workers, page by page: taken as bytes, and decoded.

use std::sync::Arc;

use anyhow::ensure;
use bytes::Bytes;
use muster_proto::workers::v1::ListWorkersRequest;
use prost::Message as _;

use super::super::Setup;
use super::super::calls::Check;
use super::super::child::Child;
use super::super::figure::{Figure, Report, Target};
use super::super::load::{self, Call, Pairs, Window};
use super::super::raw::RawClient;
use super::fleet::{self, Client};
use super::owner::Agents;

const PAGE: i32 = 1_000;
const LIST: &str = "/muster.workers.v1.WorkersService/ListWorkers";

pub(super) async fn run(
    setup: &Setup,
    registry: &Child,
    agents: &Agents,
    report: &mut Report,
) -> anyhow::Result<()> {
    let channels = registry.connections(1).await?;
    let mut decoded = Vec::new();
    let mut raw = Vec::new();
    for channel in &channels {
        let mut lister = Lister {
            client: fleet::client(channel),
            expected: agents.len(),
        };
        raw.push(RawLister {
            client: RawClient::new(channel.clone(), LIST),
            requests: lister.walk().await?.into(),
        });
        decoded.push(lister);
    }
    let mut floor = Check::on(&channels);
    let name = |what: &str| format!("list-{}-workers-by-{PAGE}-{what}", agents.len());
    let of_raw = load::alternate(&mut floor, &mut raw, setup.rounds()).await?;
    let of_decoded = load::alternate(&mut floor, &mut decoded, setup.rounds()).await?;
    let figure = |what: &str, pairs: Pairs| {
        let p50 = pairs.median(Window::p50)?;
        anyhow::Ok(Figure::new(name(what), p50.value / 1e3, "ms").over(p50.floor / 1e3))
    };
    report.add(figure("p50", of_raw)?.target(Target::AtMost(15.0)));
    // Most of this is the client's own work.
    report.add(figure("decoded-p50", of_decoded)?);
    Ok(())
}

struct Lister {
    client: Client,
    expected: usize,
}

impl Lister {
    /// Goes through all pages, and answers the encoded request of each.
    async fn walk(&mut self) -> anyhow::Result<Vec<Bytes>> {
        let mut request = ListWorkersRequest {
            page_size: PAGE,
            ..ListWorkersRequest::default()
        };
        let mut requests = Vec::new();
        let mut seen = 0;
        loop {
            requests.push(Bytes::from(request.encode_to_vec()));
            let page = self
                .client
                .list_workers(request.clone())
                .await?
                .into_inner();
            seen += page.workers.len();
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                ensure!(seen == self.expected, "{seen} workers on all pages");
                return Ok(requests);
            }
        }
    }
}

impl Call for Lister {
    async fn call(&mut self) -> anyhow::Result<u64> {
        self.walk().await?;
        Ok(1)
    }
}

struct RawLister {
    client: RawClient,
    requests: Arc<[Bytes]>,
}

impl Call for RawLister {
    async fn call(&mut self) -> anyhow::Result<u64> {
        for request in self.requests.iter() {
            let page = self.client.call(request.clone()).await?;
            ensure!(!page.is_empty(), "an empty page");
        }
        Ok(1)
    }
}
