//! The standard health protocol over gRPC, to the letter: Check of an unknown service is NOT_FOUND,
//! Watch of one says SERVICE_UNKNOWN and stays open, no status is sent twice. It answers from
//! memory and decides nothing.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use muster_proto::health::v1 as proto;
use muster_proto::health::v1::health_check_response::ServingStatus;
use muster_proto::health::v1::health_server::{Health as Rpc, HealthServer};
use muster_proto::types::v1::ErrorReason;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request, Response, Status};

use super::bounds::{self, Bounded};
use super::{Health, Verdict};
use crate::server::GrpcService;
use crate::shutdown::{Phase, Shutdown};
use crate::status;

/// Open Watches that one process takes.
pub const MAX_WATCHES: usize = 1000;

/// The most services that List may answer, by the protocol.
const MAX_LISTED: usize = 100;

/// Answers the health protocol.
#[derive(Debug, Clone)]
pub struct HealthService {
    health: Health,
    shutdown: Shutdown,
}

impl HealthService {
    /// Answers from `health`; Watches end when `shutdown` reaches [`Phase::Drain`]. It takes what
    /// probes may be told to send compressed, which no other service of ours does. Its answers are
    /// not: compressing their few bytes would cost more than all else of a call.
    pub fn server(health: &Health, shutdown: &Shutdown) -> impl GrpcService {
        let service = HealthServer::new(Self {
            health: health.clone(),
            shutdown: shutdown.clone(),
        });
        let service = service
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(bounds::LARGEST_REQUEST);
        Bounded::new(service, &health.0.waiting)
    }
}

#[tonic::async_trait]
impl Rpc for HealthService {
    async fn check(
        &self,
        request: Request<proto::HealthCheckRequest>,
    ) -> Result<Response<proto::HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.health.of(&service) {
            Some(well) => Ok(Response::new(render(serving(well)))),
            None => Err(unknown(&service)),
        }
    }

    async fn list(
        &self,
        _: Request<proto::HealthListRequest>,
    ) -> Result<Response<proto::HealthListResponse>, Status> {
        let verdict = self.health.verdict().borrow().clone();
        let statuses: BTreeMap<_, _> = verdict
            .all()
            .map(|(name, well)| (name.to_owned(), render(serving(well))))
            .collect();
        if statuses.len() > MAX_LISTED {
            return Err(Status::resource_exhausted(
                "more services than List may answer",
            ));
        }
        Ok(Response::new(proto::HealthListResponse { statuses }))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<proto::HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<proto::HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let place = Place::take(&self.health.0.watches)
            .ok_or_else(|| Status::resource_exhausted("too many health watches are open"))?;
        let watch = Watch {
            service: request.into_inner().service,
            verdict: self.health.verdict(),
            sent: None,
            ended: Box::pin(self.shutdown.reached(Phase::Drain)),
            over: false,
            _place: place,
        };
        let stream = futures_util::stream::unfold(watch, Watch::next);
        Ok(Response::new(Box::pin(stream)))
    }
}

/// One open Watch.
struct Watch {
    service: String,
    verdict: watch::Receiver<Verdict>,
    sent: Option<ServingStatus>,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    over: bool,
    _place: Place,
}

impl Watch {
    /// Waits until there is a status that was not sent last.
    async fn next(mut self) -> Option<(Result<proto::HealthCheckResponse, Status>, Self)> {
        if self.over {
            return None;
        }
        loop {
            let status = match self.verdict.borrow_and_update().of(&self.service) {
                Some(well) => serving(well),
                None => ServingStatus::ServiceUnknown,
            };
            if self.sent != Some(status) {
                self.sent = Some(status);
                return Some((Ok(render(status)), self));
            }
            tokio::select! {
                biased;
                () = &mut self.ended => {
                    self.over = true;
                    return Some((Err(Status::unavailable("the process is stopping")), self));
                }
                changed = self.verdict.changed() => changed.ok()?,
            }
        }
    }
}

/// One of the places that Watches have; given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(taken: &Arc<AtomicUsize>) -> Option<Self> {
        let before = taken.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(taken));
        (before < MAX_WATCHES).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serving(well: bool) -> ServingStatus {
    if well {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

fn unknown(service: &str) -> Status {
    let message = format!("unknown service {service:?}");
    status::error(Code::NotFound, ErrorReason::ResourceNotFound, message).into_status()
}

fn render(status: ServingStatus) -> proto::HealthCheckResponse {
    proto::HealthCheckResponse {
        status: status.into(),
    }
}
