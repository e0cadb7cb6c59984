//! Serves OffersService, with pages of offers sent in the bytes in which they are kept. ListOffers
//! takes a way of its own past the generated server, whose answers would be taken apart into
//! messages first; every other method goes through it.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes};
use http::Request as HttpRequest;
use muster_proto::offers::v1::offers_service_server::OffersServiceServer;
use muster_proto::offers::v1::{ListOffersRequest, ListOffersResponse};
use prost::Message as _;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstDecoder;

use super::service::Offers;

/// The path that is served without the generated server.
const LIST_OFFERS: &str = "/muster.offers.v1.OffersService/ListOffers";

/// A page: its offers as they are on the wire, and everything else.
#[derive(Debug)]
pub(super) struct Page {
    /// Offers, each with its key and length.
    pub(super) offers: Bytes,
    /// The answer without offers.
    pub(super) rest: ListOffersResponse,
}

impl Page {
    /// The page as a message.
    pub(super) fn into_message(self) -> Result<ListOffersResponse, prost::DecodeError> {
        let mut message = self.rest;
        message.merge(self.offers)?;
        Ok(message)
    }
}

/// OffersService, ready to be served.
#[derive(Clone, Debug)]
pub struct OffersServer {
    offers: Arc<Offers>,
    generated: OffersServiceServer<Offers>,
}

impl OffersServer {
    /// Serves `offers`.
    pub fn new(offers: Offers) -> Self {
        let offers = Arc::new(offers);
        Self {
            generated: OffersServiceServer::from_arc(Arc::clone(&offers)),
            offers,
        }
    }
}

impl NamedService for OffersServer {
    const NAME: &'static str = <OffersServiceServer<Offers> as NamedService>::NAME;
}

impl Service<HttpRequest<Body>> for OffersServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        if request.uri().path() != LIST_OFFERS {
            return self.generated.call(request);
        }
        let list = ListOffers(Arc::clone(&self.offers));
        Box::pin(async move { Ok(Grpc::new(PageCodec).unary(list, request).await) })
    }
}

struct ListOffers(Arc<Offers>);

impl UnaryService<ListOffersRequest> for ListOffers {
    type Response = Page;
    type Future = BoxFuture<Response<Page>, Status>;

    fn call(&mut self, request: Request<ListOffersRequest>) -> Self::Future {
        let offers = Arc::clone(&self.0);
        Box::pin(async move { offers.list(request).await.map(Response::new) })
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct PageCodec;

impl Codec for PageCodec {
    type Encode = Page;
    type Decode = ListOffersRequest;
    type Encoder = PageEncoder;
    type Decoder = ProstDecoder<ListOffersRequest>;

    fn encoder(&mut self) -> Self::Encoder {
        PageEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::default())
    }
}

#[derive(Clone, Copy, Debug)]
struct PageEncoder;

impl Encoder for PageEncoder {
    type Item = Page;
    type Error = Status;

    fn encode(&mut self, page: Page, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(page.offers.len() + page.rest.encoded_len());
        to.put_slice(&page.offers);
        // Fields of one message may come in any order, so the two parts are one message.
        page.rest
            .encode(to)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
