//! A bare tonic server on as many threads as a component has, without any layer of ours: the floor of
//! our own `Health/Check`, which is the floor of everything else, and the limit of a page of offers and of a
//! registration.

mod page;
mod registration;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;

use anyhow::Context as _;
use futures_util::{Stream, stream};
use muster_proto::health::v1::health_check_response::ServingStatus;
use muster_proto::health::v1::health_server::{Health, HealthServer};
use muster_proto::health::v1::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use tonic::{Request, Response, Status};

use super::say;
use page::Page;
use registration::Registrations;

const THREADS: usize = 2;

/// Serves on the address after `--listen=`, with the page in the file after `--page=` and the answer to
/// registrations in the one after `--registered=` if there are any (kept in a store at `--keep=`), until it is
/// killed.
pub(super) fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> anyhow::Result<()> {
    let address: SocketAddr = flag("--listen=").context("--listen is missing")?.parse()?;
    let page = match flag("--page=") {
        Some(file) => Some(Page::read(Path::new(&file))?),
        None => None,
    };
    let registrations = match flag("--registered=") {
        Some(file) => {
            let store = flag("--keep=").map(PathBuf::from);
            Some(Registrations::open(Path::new(&file), store.as_deref())?)
        }
        None => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut server = tonic::transport::Server::builder().tcp_nodelay(true);
        let routes = server
            .add_service(HealthServer::new(Bare))
            .add_optional_service(page)
            .add_optional_service(registrations);
        routes.serve(address).await
    })?;
    Ok(())
}

fn flag(name: &str) -> Option<String> {
    std::env::args().find_map(|arg| arg.strip_prefix(name).map(str::to_owned))
}

struct Bare;

#[tonic::async_trait]
impl Health for Bare {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = ServingStatus::Serving.into();
        Ok(Response::new(HealthCheckResponse { status }))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        Ok(Response::new(HealthListResponse::default()))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(Box::pin(stream::empty())))
    }
}
