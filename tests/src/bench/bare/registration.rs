//! The least that a server can do for a registration: it reads the message, and answers as the registry did.
//! With a store it also does what no registry can leave out, and no more: it signs a credential, and keeps the
//! message, before it answers.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::anyhow;
use aws_lc_rs::signature::Ed25519KeyPair;
use bytes::Bytes;
use muster_proto::workers::v1::RegisterWorkerRequest;
use muster_store::{Options, Outcome, Store, Transaction};
use prost::Message as _;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};

use super::super::raw::Raw;

/// Answers every call of WorkersService with the same bytes.
#[derive(Debug, Clone)]
pub(super) struct Registrations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    answer: Bytes,
    keeper: Option<Keeper>,
}

/// What makes a registration last.
#[derive(Debug)]
struct Keeper {
    pair: Ed25519KeyPair,
    store: Store,
}

impl Registrations {
    /// The encoded answer in a file; with a store that is made at `store`, if that is given.
    pub(super) fn open(answer: &Path, store: Option<&Path>) -> anyhow::Result<Self> {
        let answer = std::fs::read(answer)?.into();
        let keeper = store.map(Keeper::open).transpose()?;
        Ok(Self(Arc::new(Inner { answer, keeper })))
    }
}

impl Keeper {
    fn open(store: &Path) -> anyhow::Result<Self> {
        let pair = Ed25519KeyPair::generate().map_err(|_| anyhow!("no key can be made"))?;
        let store = Store::embedded(store, Options::default())?;
        Ok(Self { pair, store })
    }

    async fn keep(&self, name: &str, message: Bytes) -> Result<(), Status> {
        let _signature = self.pair.sign(name.as_bytes());
        let kept = Transaction::new().put(format!("workers/{name}"), message);
        match self.store.commit(kept).await {
            Ok(Outcome::Committed(_)) => Ok(()),
            Ok(Outcome::Conflict { .. }) => Err(Status::aborted("a conflict without a condition")),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }
}

impl NamedService for Registrations {
    const NAME: &'static str = "muster.workers.v1.WorkersService";
}

impl Service<http::Request<Body>> for Registrations {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let registrations = self.clone();
        Box::pin(async move { Ok(Grpc::new(Raw).unary(registrations, request).await) })
    }
}

impl UnaryService<Bytes> for Registrations {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let message = request.into_inner();
            let read = RegisterWorkerRequest::decode(message.clone())
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            if let Some(keeper) = &inner.keeper {
                keeper.keep(&read.name, message).await?;
            }
            Ok(Response::new(inner.answer.clone()))
        })
    }
}
