//! Watch messages on the wire. Every `WatchXResponse` has the same three fields, so a change is
//! rendered and encoded once, by the first watcher that is told it, and copied for all others.
//!
//! A handler answers with [`respond`]. Behind a server of ours the encoded messages are handed over
//! to the connection as they are ([`hand_over`]); called without one, the handler's stream gives
//! the same messages decoded.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _, stream};
use http_body::Frame;
use prost::encoding::{self, WireType, encoded_len_varint, key_len};
use tonic::body::Body;
use tonic::{Response, Status};

use super::{Event, Message, Messages, Resource};
use crate::layers::trailers;

/// The fields of every `WatchXResponse`.
const CHANGES: u32 = 1;
const RESUME_TOKEN: u32 = 2;
const SYNCED: u32 = 3;

/// What gRPC puts before each message: no compression, and the length.
const PREFIX: usize = 5;

type Encoded = BoxStream<'static, Result<Bytes, Status>>;

/// A watch's answer: `render` makes the contract's `XChange` of an event, or nothing where the
/// event is not told. All watchers of a hub are told the same, so `render` must depend on nothing
/// but the event. `R` is the contract's `WatchXResponse`.
pub fn respond<T, C, R>(
    messages: Messages<T>,
    render: impl Fn(&Event<T>) -> Option<C> + Send + 'static,
) -> Response<BoxStream<'static, Result<R, Status>>>
where
    T: Resource,
    C: prost::Message,
    R: prost::Message + Default + 'static,
{
    let encoded = messages.map(move |message| Ok(encode(&message?, &render)));
    let handed = HandedOver(Arc::new(Mutex::new(Some(encoded.boxed()))));
    let mut response = Response::new(decoded(handed.clone()).boxed());
    response.extensions_mut().insert(handed);
    response
}

/// Puts the encoded messages of a watch in the place of the body that would encode them again.
/// Other responses are left as they are.
pub(crate) fn hand_over(mut response: http::Response<Body>) -> http::Response<Body> {
    let handed = response.extensions_mut().remove::<HandedOver>();
    match handed.and_then(|handed| handed.take()) {
        Some(encoded) => response.map(|_| Body::new(EncodedBody(Some(encoded)))),
        None => response,
    }
}

/// The messages, for whichever of connection and handler's stream comes first.
#[derive(Clone)]
struct HandedOver(Arc<Mutex<Option<Encoded>>>);

impl HandedOver {
    fn take(&self) -> Option<Encoded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn decoded<R>(handed: HandedOver) -> impl Stream<Item = Result<R, Status>> + Send
where
    R: prost::Message + Default + 'static,
{
    let messages = stream::once(async move { handed.take() });
    messages
        .flat_map(|taken| taken.unwrap_or_else(|| stream::empty().boxed()))
        .map(|message| R::decode(&message?[PREFIX..]).map_err(|_| crate::status::internal()))
}

/// A message with gRPC's prefix.
fn encode<T, C: prost::Message>(
    message: &Message<T>,
    render: impl Fn(&Event<T>) -> Option<C>,
) -> Bytes {
    let changes: Vec<&Bytes> = message
        .changes
        .iter()
        .map(|event| event.resource().encoded(|| encode_change(render(event))))
        .collect();
    let (token, synced) = (&message.resume_token, message.synced);
    let token_len = match token.is_empty() {
        true => 0,
        false => encoding::string::encoded_len(RESUME_TOKEN, token),
    };
    let synced_len = if synced {
        encoding::bool::encoded_len(SYNCED, &synced)
    } else {
        0
    };
    let size = changes.iter().map(|change| change.len()).sum::<usize>() + token_len + synced_len;
    let mut buffer = BytesMut::with_capacity(PREFIX + size);
    buffer.put_u8(0);
    // A message is 2 MiB or a single item; one of 4 GiB was refused long before.
    buffer.put_u32(u32::try_from(size).unwrap_or(u32::MAX));
    for change in changes {
        buffer.put_slice(change);
    }
    if !token.is_empty() {
        encoding::string::encode(RESUME_TOKEN, token, &mut buffer);
    }
    if synced {
        encoding::bool::encode(SYNCED, &synced, &mut buffer);
    }
    buffer.freeze()
}

/// A change as one entry of `changes`; empty if it is not told.
fn encode_change(change: Option<impl prost::Message>) -> Bytes {
    let Some(change) = change else {
        return Bytes::new();
    };
    let size = change.encoded_len();
    let varint = encoded_len_varint(u64::try_from(size).unwrap_or(u64::MAX));
    let mut buffer = BytesMut::with_capacity(key_len(CHANGES) + varint + size);
    encoding::encode_key(CHANGES, WireType::LengthDelimited, &mut buffer);
    // The buffer has room: it was made for exactly this.
    let _ = change.encode_length_delimited(&mut buffer);
    buffer.freeze()
}

/// Encoded messages, then the status in the trailers.
struct EncodedBody(Option<Encoded>);

impl http_body::Body for EncodedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(messages) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let status = match std::task::ready!(messages.poll_next_unpin(context)) {
            Some(Ok(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.0 = None;
        Poll::Ready(Some(Ok(trailers::frame(&status))))
    }
}
