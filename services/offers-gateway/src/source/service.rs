//! Backends in any language, over `muster.backend.v1`. What such a server sends is bounded in
//! messages, offers, bytes and time; an offer that makes no sense is skipped and counted, and a
//! stream that does not end well changes nothing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use muster_proto::backend::v1 as pb;
use muster_proto::backend::v1::backend_service_client::BackendServiceClient;
use muster_runtime::connect::{Channel, Connector, Credential, Endpoints};
use muster_runtime::deadline::Deadline;
use prost::Message as _;
use tonic::{Request, Streaming};

use super::{Failure, Fetched, Offers, called};
use crate::domain::builder::Builder;
use crate::domain::offer::Source;
use crate::grpc::convert;
use crate::spec::Service as Spec;

/// Messages of one answer at most.
const MAX_MESSAGES: usize = 100_000;

/// Offers of one answer at most: several times all real catalogues together.
const MAX_OFFERS: usize = 500_000;

/// Bytes of one answer at most. Of a single message tonic takes 4 MiB.
const MAX_BYTES: usize = 128 << 20;

/// The longest etag that is kept.
const MAX_ETAG: usize = 4096;

/// The longest time between two fetches that a backend may ask for.
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// A server of offers.
#[derive(Debug)]
pub(super) struct Service {
    endpoints: Endpoints,
    client: BackendServiceClient<Channel>,
    within: Duration,
    /// What it called itself last, for the log.
    called: Mutex<String>,
    least_interval: std::sync::atomic::AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Described {
    live_capacity: bool,
}

impl Described {
    /// What names a state of its offers: its own etag, under what its offers were read as, and by which
    /// version of ours. Read as something else, or by another one, they would be other offers.
    fn validator(self, etag: &str) -> String {
        if etag.is_empty() {
            return String::new();
        }
        format!("{}{etag}", self.read_as())
    }

    /// Its etag in a validator; empty if its offers were read as something else.
    fn etag(self, validator: &str) -> &str {
        validator.strip_prefix(self.read_as()).unwrap_or_default()
    }

    fn read_as(self) -> &'static str {
        if self.live_capacity {
            concat!(env!("CARGO_PKG_VERSION"), " live ")
        } else {
            concat!(env!("CARGO_PKG_VERSION"), " list ")
        }
    }
}

impl Service {
    /// Each fetch may take so long. Nothing is called yet.
    pub(super) fn new(spec: &Spec, connector: &Connector, within: Duration) -> Self {
        let connector = connector.clone().with_credential(credential(spec));
        Self {
            endpoints: spec.endpoints.clone(),
            client: BackendServiceClient::new(connector.channel(&spec.endpoints)),
            within,
            called: Mutex::default(),
            least_interval: 0.into(),
        }
    }

    /// The least time between two fetches, as far as it has said so.
    pub(super) fn least_interval(&self) -> Duration {
        Duration::from_millis(
            self.least_interval
                .load(std::sync::atomic::Ordering::Relaxed),
        )
    }

    pub(super) async fn fetch(&self, backend: &str, validator: &str) -> Result<Fetched, Failure> {
        let deadline = Deadline::after(self.within);
        let described = self.describe(deadline).await?;
        self.offers(backend, validator, described, deadline).await
    }

    /// What it is. It may be another one since the last fetch, and say AVAILABLE without knowing.
    async fn describe(&self, deadline: Deadline) -> Result<Described, Failure> {
        let mut request = Request::new(pb::DescribeBackendRequest {});
        deadline.carry(&mut request);
        let answer = self.client.clone().describe_backend(request).await;
        let answer = answer.map_err(|status| self.failed(&status))?.into_inner();
        let least = match answer.min_refresh_interval.map(Duration::try_from) {
            None => Duration::ZERO,
            Some(Ok(least)) => least.min(MAX_INTERVAL),
            Some(Err(_)) => {
                return Err(Failure::lasting(
                    "its min_refresh_interval is not a duration of 0 or more",
                ));
            }
        };
        let millis = u64::try_from(least.as_millis()).unwrap_or(u64::MAX);
        self.least_interval
            .store(millis, std::sync::atomic::Ordering::Relaxed);
        self.log(&answer);
        Ok(Described {
            live_capacity: answer.live_capacity,
        })
    }

    /// Says what it calls itself, once.
    fn log(&self, answer: &pb::DescribeBackendResponse) {
        let (name, version) = (shown(&answer.display_name), shown(&answer.version));
        let called = format!("{name} {version}");
        // A text that is replaced whole is left whole by a panic.
        let mut last = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != called {
            tracing::info!(address = %self.endpoints, name, version, "backend described");
            *last = called;
        }
    }

    async fn offers(
        &self,
        backend: &str,
        validator: &str,
        described: Described,
        deadline: Deadline,
    ) -> Result<Fetched, Failure> {
        let etag = described.etag(validator);
        let mut request = Request::new(pb::FetchOffersRequest {
            etag: etag.to_owned(),
        });
        deadline.carry(&mut request);
        let stream = self.client.clone().fetch_offers(request).await;
        let mut stream = stream.map_err(|status| self.failed(&status))?.into_inner();
        let source = if described.live_capacity {
            Source::Provider
        } else {
            Source::Catalog
        };
        let mut intake = Intake::new(Builder::new(backend, source));
        while let Some(message) = self.next(&mut stream).await? {
            if !message.not_modified {
                intake.take(message)?;
                continue;
            }
            let alone = intake.messages == 0 && message.offers.is_empty();
            if etag.is_empty() || !alone || self.next(&mut stream).await?.is_some() {
                return Err(Failure::lasting(
                    "it says not_modified where that means nothing: it must be the only message of \
                     an answer to a request with an etag",
                ));
            }
            return Ok(Fetched::Unchanged);
        }
        // Offers of which none can be used are more likely in another format than none.
        let worst = intake.offers.intake.worst();
        if let Some(worst) = worst.filter(|_| intake.offers.is_empty()) {
            return Err(Failure::lasting(format!(
                "none of its offers can be used: {worst}"
            )));
        }
        Ok(Fetched::Offers(Box::new(Offers {
            snapshot: intake.offers.finish(),
            validator: described.validator(&intake.etag),
            live_capacity: described.live_capacity,
        })))
    }

    async fn next(
        &self,
        stream: &mut Streaming<pb::FetchOffersResponse>,
    ) -> Result<Option<pb::FetchOffersResponse>, Failure> {
        let next = stream.message().await;
        next.map_err(|status| self.failed(&status))
    }

    fn failed(&self, status: &tonic::Status) -> Failure {
        called("it", &self.endpoints, status)
    }
}

/// The messages of one answer.
struct Intake {
    offers: Builder,
    etag: String,
    messages: usize,
    bytes: usize,
}

impl Intake {
    fn new(offers: Builder) -> Self {
        Self {
            offers,
            etag: String::new(),
            messages: 0,
            bytes: 0,
        }
    }

    fn take(&mut self, message: pb::FetchOffersResponse) -> Result<(), Failure> {
        self.messages += 1;
        self.bytes += message.encoded_len();
        let rows = self.offers.intake.rows as usize + message.offers.len();
        let bounds = [
            (self.messages, MAX_MESSAGES, "messages"),
            (rows, MAX_OFFERS, "offers"),
            (self.bytes, MAX_BYTES, "bytes"),
        ];
        if let Some((_, most, what)) = bounds.iter().find(|(have, most, _)| have > most) {
            return Err(Failure::lasting(format!(
                "it sends more than {most} {what}"
            )));
        }
        // One that is too long names no state, and so the next fetch brings all.
        if !message.etag.is_empty() {
            self.etag = Some(message.etag)
                .filter(|etag| etag.len() <= MAX_ETAG)
                .unwrap_or_default();
        }
        for offer in &message.offers {
            self.offers.intake.rows += 1;
            let number = self.offers.intake.rows;
            let place = || format!("offer {number}");
            match convert::parse_backend_offer(offer) {
                Ok(parsed) => {
                    let fields = offer.raw.iter();
                    let raw = self
                        .offers
                        .raw(fields.map(|(key, value)| (key.as_str(), value.as_str())));
                    let added = self.offers.add(&parsed.draft(offer), raw);
                    self.offers.tally(Some(added), place);
                }
                Err(reason) => self.offers.intake.skip(reason, place),
            }
        }
        Ok(())
    }
}

/// What calls to it carry: its own token and never ours.
fn credential(spec: &Spec) -> Credential {
    let credential = Credential::none();
    if let Some(secret) = spec.secret() {
        let header = secret.bearer();
        let token = header.to_str().unwrap_or_default();
        // A key that is known can stand in a header.
        let _ = credential.set(token.trim_start_matches("Bearer "));
    }
    credential
}

/// What it calls itself, for the log.
fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(100)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_of_offers_that_were_read_the_same_way() {
        let [live, list] = [true, false].map(|live_capacity| Described { live_capacity });
        let validator = live.validator("e");
        assert_eq!(live.etag(&validator), "e");
        assert_eq!(list.etag(&validator), "");
        let before = validator.replace(env!("CARGO_PKG_VERSION"), "0.0.0");
        assert_eq!(live.etag(&before), "", "another version of ours");
        assert_eq!(live.validator(""), "");
    }
}
