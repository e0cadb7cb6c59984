//! One page of offers, encoded anew for each call: the least that a server can do to answer with it.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use muster_proto::offers::v1::{ListOffersRequest, ListOffersResponse};
use prost::Message as _;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// Answers every call of OffersService with the same page.
#[derive(Debug, Clone)]
pub(super) struct Page(Arc<ListOffersResponse>);

impl Page {
    /// The encoded answer in a file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let page = ListOffersResponse::decode(std::fs::read(path)?.as_slice())?;
        Ok(Self(Arc::new(page)))
    }
}

impl NamedService for Page {
    const NAME: &'static str = "muster.offers.v1.OffersService";
}

impl Service<http::Request<Body>> for Page {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = Answer(Arc::clone(&self.0));
        let codec = ProstCodec::<ListOffersResponse, ListOffersRequest>::default();
        Box::pin(async move { Ok(Grpc::new(codec).unary(answer, request).await) })
    }
}

struct Answer(Arc<ListOffersResponse>);

impl UnaryService<ListOffersRequest> for Answer {
    type Response = ListOffersResponse;
    type Future = Ready<Result<Response<ListOffersResponse>, Status>>;

    fn call(&mut self, _: Request<ListOffersRequest>) -> Self::Future {
        ready(Ok(Response::new(ListOffersResponse::clone(&self.0))))
    }
}
