//! A status as the end of a body that has begun, and as a whole response.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use tonic::{Code, Status};

const GRPC_STATUS: &str = "grpc-status";

/// The last frame of a body that ends with `status`.
pub(crate) fn frame(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::with_capacity(3);
    if status.add_header(&mut trailers).is_err() {
        // Only a message or detail that fits no header gets here; the code always does.
        trailers.clear();
        trailers.insert(GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    Frame::trailers(trailers)
}

/// A response that is nothing but `status`.
pub(crate) fn response<B: Default>(status: Status) -> Response<B> {
    status.into_http()
}

/// The status code in response headers or trailers, if it stands there.
pub(crate) fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers
        .get(GRPC_STATUS)
        .map(|code| Code::from_bytes(code.as_bytes()))
}
