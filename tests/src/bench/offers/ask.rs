//! The questions that are put to the gateway, as load.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::connection::Connection;
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use muster_proto::offers::v1::offers_service_client::OffersServiceClient;
use muster_proto::offers::v1::{BackendData, ListOffersRequest, ListOffersResponse, OfferFilter};
use muster_proto::types::v1::{GpuRequest, Int32Range, Requirements};
use prost::Message as _;

use super::super::load::Call;
use super::super::raw::RawClient;
use super::catalogue::BACKENDS;

const PATH: &str = "/muster.offers.v1.OffersService/ListOffers";
/// Offers on a page of all but everything.
const PAGE: i32 = 50;
/// No page is as short as this, in bytes.
const LEAST: usize = 1_000;

/// Which offers are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// 8 H100, by price, the first 50.
    Selective,
    /// Any accelerator, by price, the first 50.
    Broad,
    /// Everything by price, page by page of 1,000.
    Everything,
}

impl Question {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Selective => "selective",
            Self::Broad => "broad",
            Self::Everything => "everything-paged",
        }
    }

    pub(super) fn request(self) -> ListOffersRequest {
        let gpu = match self {
            Self::Selective => Some(GpuRequest {
                names: vec!["H100".to_owned()],
                count: Some(Int32Range {
                    min: Some(8),
                    max: Some(8),
                }),
                ..GpuRequest::default()
            }),
            Self::Broad => Some(GpuRequest::default()),
            Self::Everything => None,
        };
        let requirements = gpu.map(|gpu| Requirements {
            gpu_any_of: vec![gpu],
            ..Requirements::default()
        });
        ListOffersRequest {
            filter: requirements.is_some().then(|| OfferFilter {
                requirements,
                ..OfferFilter::default()
            }),
            page_size: if self == Self::Everything {
                1_000
            } else {
                PAGE
            },
            ..ListOffersRequest::default()
        }
    }
}

/// Puts one question again and again, or goes around its pages; takes answers undecoded.
pub(super) struct Asker {
    client: RawClient,
    requests: Arc<[Bytes]>,
    next: usize,
}

impl Asker {
    /// A client on each connection. They begin at different pages.
    pub(super) fn on(channels: &[Connection], requests: &Arc<[Bytes]>) -> Vec<Self> {
        let client = |(number, channel): (usize, &Connection)| Self {
            client: RawClient::new(channel.clone(), PATH),
            requests: Arc::clone(requests),
            next: number * requests.len() / channels.len(),
        };
        channels.iter().enumerate().map(client).collect()
    }
}

impl Call for Asker {
    async fn call(&mut self) -> anyhow::Result<u64> {
        let request = self.requests[self.next % self.requests.len()].clone();
        self.next += 1;
        let answer = self.client.call(request).await?;
        ensure!(answer.len() > LEAST, "an answer of {} bytes", answer.len());
        Ok(1)
    }
}

/// Puts one question again and again with a generated client, which decodes the answers.
pub(super) struct Decoder {
    client: OffersServiceClient<Connection>,
    question: Question,
}

impl Decoder {
    /// A client on each connection.
    pub(super) fn on(channels: &[Connection], question: Question) -> Vec<Self> {
        let client = |channel: &Connection| Self {
            client: OffersServiceClient::new(channel.clone()),
            question,
        };
        channels.iter().map(client).collect()
    }
}

impl Call for Decoder {
    async fn call(&mut self) -> anyhow::Result<u64> {
        let answer = ask(&mut self.client, self.question.request()).await?;
        ensure!(!answer.offers.is_empty(), "an answer without offers");
        Ok(1)
    }
}

pub(super) async fn ask(
    client: &mut OffersServiceClient<Connection>,
    request: ListOffersRequest,
) -> anyhow::Result<ListOffersResponse> {
    Ok(client.list_offers(request).await?.into_inner())
}

/// Asks, goes through all pages where a question is about everything, checks that the offers are the
/// right ones, and answers the encoded request of each page.
pub(super) async fn rehearse(
    channel: &Connection,
    question: Question,
    expected: usize,
) -> anyhow::Result<Arc<[Bytes]>> {
    let mut client = OffersServiceClient::new(channel.clone());
    let mut request = question.request();
    let mut requests = Vec::new();
    let mut seen = BTreeSet::new();
    let mut price = 0;
    loop {
        requests.push(Bytes::from(request.encode_to_vec()));
        let answer = ask(&mut client, request.clone()).await?;
        check(&answer, expected)?;
        for offer in answer.offers {
            let next = offer.price.context("an offer without a price")?;
            ensure!(
                next.micro_usd_per_hour >= price,
                "{} is out of order",
                offer.id
            );
            price = next.micro_usd_per_hour;
            ensure!(seen.insert(offer.id), "an offer is on two pages");
        }
        request.page_token = answer.next_page_token;
        if question != Question::Everything {
            ensure!(
                i32::try_from(seen.len())? == PAGE,
                "{} offers on a page",
                seen.len()
            );
            break;
        }
        if request.page_token.is_empty() {
            ensure!(seen.len() == expected, "{} offers on all pages", seen.len());
            break;
        }
    }
    Ok(requests.into())
}

/// Checks how many offers there are in all.
pub(super) fn check(answer: &ListOffersResponse, expected: usize) -> anyhow::Result<()> {
    let total = usize::try_from(answer.total_size)?;
    ensure!(total == expected, "{total} offers match, not {expected}");
    Ok(())
}

/// Whether every backend's offers are in an answer.
pub(super) fn is_whole(answer: &ListOffersResponse) -> bool {
    let has_data = |data| !matches!(data, BackendData::Unspecified | BackendData::None);
    answer.backends.len() == BACKENDS.len()
        && answer.backends.iter().all(|report| has_data(report.data()))
}
