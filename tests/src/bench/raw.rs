//! Calls with messages as bytes: the request is encoded once, and answers are taken off the wire whole
//! but not decoded, so that a server is measured without what decoding costs a client in its language.

use super::connection::Connection;
use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};

/// Calls one method.
#[derive(Debug, Clone)]
pub(super) struct RawClient {
    grpc: Grpc<Connection>,
    path: PathAndQuery,
}

impl RawClient {
    /// Calls the method at `path`, such as `/muster.offers.v1.OffersService/ListOffers`.
    pub(super) fn new(channel: Connection, path: &'static str) -> Self {
        Self {
            grpc: Grpc::new(channel),
            path: PathAndQuery::from_static(path),
        }
    }

    /// The encoded answer to an encoded request.
    pub(super) async fn call(&mut self, request: Bytes) -> anyhow::Result<Bytes> {
        self.grpc.ready().await?;
        let request = Request::new(request);
        let answer = self.grpc.unary(request, self.path.clone(), Raw).await?;
        Ok(answer.into_inner())
    }
}

/// Leaves messages as they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
