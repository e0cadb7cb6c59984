//! Idle capacity of our own workers, from a worker-registry that is played.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use muster_proto::offers::v1 as pb;
use muster_proto::types::v1 as types;
use muster_proto::workers::v1 as workers;
use offers_gateway::spec::{Kind, Spec};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};

use crate::support::{Running, catalog, config, gpu, ids, in_background, start};

/// A registry that knows only how to list workers, two on a page.
#[derive(Clone, Default)]
struct Registry {
    workers: Arc<Mutex<Vec<workers::Worker>>>,
    asked: Arc<Mutex<Option<workers::WorkerFilter>>>,
    away: Arc<Mutex<bool>>,
}

impl NamedService for Registry {
    const NAME: &'static str = "muster.workers.v1.WorkersService";
}

impl Service<http::Request<Body>> for Registry {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        assert!(request.uri().path().ends_with("/ListWorkers"));
        let list = self.clone();
        Box::pin(async move {
            let codec = tonic_prost::ProstCodec::default();
            Ok(Grpc::new(codec).unary(list, request).await)
        })
    }
}

impl UnaryService<workers::ListWorkersRequest> for Registry {
    type Response = workers::ListWorkersResponse;
    type Future = BoxFuture<Response<Self::Response>, Status>;

    fn call(&mut self, request: Request<workers::ListWorkersRequest>) -> Self::Future {
        let request = request.into_inner();
        *self.asked.lock().unwrap() = request.filter;
        if *self.away.lock().unwrap() {
            return Box::pin(async { Err(Status::unavailable("stopping")) });
        }
        let start: usize = request.page_token.parse().unwrap_or_default();
        let all = self.workers.lock().unwrap();
        let page: Vec<_> = all.iter().skip(start).take(2).cloned().collect();
        let next = start + page.len();
        let more = next < all.len();
        let answer = workers::ListWorkersResponse {
            workers: page,
            next_page_token: if more {
                next.to_string()
            } else {
                String::new()
            },
            ..Default::default()
        };
        Box::pin(async move { Ok(Response::new(answer)) })
    }
}

fn worker(name: &str, gpus: usize, given: i32) -> workers::Worker {
    let gpu = |number: usize| types::Gpu {
        uuid: format!("GPU-{name}-{number}"),
        name: "H100".to_owned(),
        memory_mib: 81_920,
        ..Default::default()
    };
    workers::Worker {
        name: name.to_owned(),
        capacity: Some(types::MachineCapacity {
            gpus: (0..gpus).map(gpu).collect(),
            cpu_milli: 64_000,
            memory_mib: 65_536,
            disk_mib: 1 << 20,
            ..Default::default()
        }),
        usage: Some(workers::WorkerUsage {
            gpus: given,
            cpu_milli: 1000 * given,
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn serve(registry: &Registry) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tonic::transport::Server::builder()
        .add_service(registry.clone())
        .serve_with_incoming(TcpListenerStream::new(listener));
    in_background(served);
    format!("http://{address}")
}

async fn gateway(folder: &tempfile::TempDir, registry: &str) -> Running {
    let mut fleet = Spec::new("fleet", Kind::Fleet(registry.parse().unwrap()));
    fleet.times.refresh_timeout = std::time::Duration::from_secs(4);
    let list = catalog(folder.path(), "list", "x,H100,8,96,1900,88,,us\n");
    start(config(vec![fleet, list])).await
}

async fn refresh(gateway: &Running) -> Result<(), Status> {
    let request = pb::RefreshBackendRequest {
        name: "fleet".to_owned(),
        force: true,
    };
    let answer = gateway.client.clone().refresh_backend(request).await;
    answer.map(drop)
}

#[tokio::test]
async fn what_is_idle_is_offered_first_and_changes_with_what_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::default();
    *registry.workers.lock().unwrap() = vec![
        worker("w1", 8, 0),
        worker("w2", 8, 8),
        workers::Worker {
            price: Some(types::Price {
                micro_usd_per_hour: 2_000_000,
            }),
            region: "lab".to_owned(),
            capacity_type: types::CapacityType::Spot.into(),
            ..worker("w3", 8, 4)
        },
    ];
    let gateway = gateway(&folder, &serve(&registry).await).await;
    let answer = gateway.list(pb::ListOffersRequest::default()).await;
    assert_eq!(
        ids(&answer.offers),
        [
            "fleet//w1/ondemand",
            "fleet/lab/w3/spot",
            "list/us/x/ondemand"
        ]
    );
    let first = &answer.offers[0];
    assert_eq!(first.price.unwrap().micro_usd_per_hour, 0, "known to be 0");
    assert_eq!(first.availability(), types::Availability::Idle);
    assert_eq!(first.availability_source(), pb::AvailabilitySource::Fleet);
    assert_eq!((first.gpus[0].count, first.cpu_milli), (8, Some(64_000)));
    assert_eq!(answer.offers[1].gpus[0].count, 4);
    let asked = registry.asked.lock().unwrap().clone().unwrap();
    assert_eq!(asked.states, [i32::from(workers::WorkerState::Active)]);
    assert_eq!(
        asked.livenesses,
        [i32::from(workers::WorkerLiveness::Alive)]
    );
    *registry.workers.lock().unwrap() = vec![worker("w1", 8, 8), worker("w2", 8, 0)];
    refresh(&gateway).await.unwrap();
    let answer = gateway
        .list(pb::ListOffersRequest {
            filter: gpu("H100", 8),
            ..Default::default()
        })
        .await;
    assert_eq!(
        ids(&answer.offers),
        ["fleet//w2/ondemand", "list/us/x/ondemand"]
    );
    let id = "fleet//w2/ondemand".to_owned();
    let one = pb::GetOfferRequest {
        id,
        ..Default::default()
    };
    gateway.client.clone().get_offer(one).await.unwrap();
    gateway.stop().await;
}

#[tokio::test]
async fn a_registry_that_is_away_is_told_in_words_and_costs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::default();
    *registry.workers.lock().unwrap() = vec![worker("w1", 8, 0)];
    let address = serve(&registry).await;
    let gateway = gateway(&folder, &address).await;
    gateway.list(pb::ListOffersRequest::default()).await;
    *registry.away.lock().unwrap() = true;
    let fault = refresh(&gateway).await.unwrap_err();
    let words = format!("the worker-registry cannot be reached at {address}");
    assert!(fault.message().contains(&words), "{fault:?}");
    let answer = gateway.list(pb::ListOffersRequest::default()).await;
    assert_eq!(answer.total_size, 2, "what it told before is shown");
    let report = &answer.backends[0];
    assert_eq!(report.refresh(), pb::BackendRefresh::Failed);
    assert!(report.error.contains(&words), "{report:?}");
    assert!(gateway.context.health.is_ready());
    gateway.stop().await;
}
