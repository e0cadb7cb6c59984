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

/// A piece of a message, made when the connection takes it: large enough for few writes, small
/// enough that memory is used again and not asked of the system each time.
const PIECE: usize = 64 << 10;

type Encoded = BoxStream<'static, Result<Pieces, Status>>;

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
        Some(encoded) => response.map(|_| {
            Body::new(EncodedBody {
                messages: Some(encoded),
                pieces: None,
            })
        }),
        None => response,
    }
}

/// One message, encoded already, to be handed over to the connection as the whole answer.
pub(crate) fn handed_over(message: Vec<u8>) -> impl Clone + Send + Sync + 'static {
    let pieces = Pieces::of(vec![Bytes::new(), message.into()]);
    let messages = stream::once(std::future::ready(Ok(pieces))).boxed();
    HandedOver(Arc::new(Mutex::new(Some(messages))))
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
    let messages = messages.flat_map(|taken| taken.unwrap_or_else(|| stream::empty().boxed()));
    messages.map(|pieces| {
        let message: Vec<u8> = pieces?.flatten().collect();
        R::decode(&message[PREFIX..]).map_err(|_| crate::status::internal())
    })
}

/// An encoded message with gRPC's prefix, piece by piece.
struct Pieces {
    parts: std::vec::IntoIter<Bytes>,
    left: usize,
}

impl Pieces {
    /// A message in parts, of which the first is empty: the prefix, once the size is known.
    fn of(mut parts: Vec<Bytes>) -> Self {
        let size = parts.iter().map(Bytes::len).sum::<usize>();
        let mut prefix = [0; PREFIX];
        // A message is 2 MiB or a single item; one of 4 GiB was refused long before.
        prefix[1..].copy_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
        parts[0] = Bytes::copy_from_slice(&prefix);
        Self {
            parts: parts.into_iter(),
            left: PREFIX + size,
        }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let first = self.parts.next()?;
        if first.len() >= PIECE {
            self.left -= first.len();
            return Some(first);
        }
        let mut piece = BytesMut::with_capacity(PIECE.min(self.left));
        piece.put_slice(&first);
        while let Some(part) = self.parts.as_slice().first() {
            if piece.len() + part.len() > PIECE {
                break;
            }
            piece.put_slice(part);
            self.parts.next();
        }
        self.left -= piece.len();
        Some(piece.freeze())
    }
}

fn encode<T, C: prost::Message>(
    message: &Message<T>,
    render: impl Fn(&Event<T>) -> Option<C>,
) -> Pieces {
    let mut parts = Vec::with_capacity(message.changes.len() + 2);
    parts.push(Bytes::new());
    let changes = message.changes.iter();
    parts.extend(changes.map(|event| event.resource().encoded(|| encode_change(render(event)))));
    parts.push(encode_rest(&message.resume_token, message.synced));
    Pieces::of(parts)
}

/// What follows the changes.
fn encode_rest(resume_token: &String, synced: bool) -> Bytes {
    let mut buffer = BytesMut::new();
    if !resume_token.is_empty() {
        encoding::string::encode(RESUME_TOKEN, resume_token, &mut buffer);
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
struct EncodedBody {
    messages: Option<Encoded>,
    /// What is left of a message.
    pieces: Option<Pieces>,
}

impl http_body::Body for EncodedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(piece) = self.pieces.as_mut().and_then(Iterator::next) {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Some(messages) = &mut self.messages else {
                return Poll::Ready(None);
            };
            let status = match std::task::ready!(messages.poll_next_unpin(context)) {
                Some(Ok(pieces)) => {
                    self.pieces = Some(pieces);
                    continue;
                }
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            self.messages = None;
            return Poll::Ready(Some(Ok(trailers::frame(&status))));
        }
    }
}
