//! Reads a body, and unpacks it on the way, without ever holding more than the limit: one that is
//! too large is refused when the limit is reached, not when it has arrived.

use std::io::{self, Write};

use bytes::Buf as _;
use flate2::write::GzDecoder;
use http::Response;
use http::header::CONTENT_ENCODING;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::super::Failure;
use super::deepest;
use crate::spec::Url;

/// Why a body is not whole.
#[derive(Debug)]
pub(super) enum Broken {
    /// It is larger than is read.
    TooLarge { limit: usize },
    /// The connection ended before it did.
    Off { bytes: u64, cause: String },
    /// What was packed cannot be unpacked.
    Packed(String),
}

impl Broken {
    pub(super) fn of(self, url: &Url) -> Failure {
        match self {
            Self::TooLarge { limit } => Failure::lasting(format!(
                "the answer of {url} is larger than {}: it was not read further",
                size(limit)
            )),
            Self::Off { bytes, cause } => Failure::passing(format!(
                "the answer of {url} broke off after {bytes} bytes: {cause}"
            )),
            Self::Packed(why) => {
                Failure::passing(format!("the answer of {url} cannot be unpacked: {why}"))
            }
        }
    }
}

/// Reads the body whole. `count` is told the bytes that have come, as they come.
pub(super) async fn read(
    response: Response<Incoming>,
    limit: usize,
    count: impl Fn(u64),
) -> Result<Vec<u8>, Broken> {
    let mut sink = Sink::of(&response, limit)?;
    let mut body = response.into_body();
    let said = body.size_hint().lower();
    if usize::try_from(said).is_ok_and(|said| said > limit) {
        return Err(Broken::TooLarge { limit });
    }
    let mut bytes = 0u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Broken::Off {
            bytes,
            cause: deepest(&error),
        })?;
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        bytes = bytes.saturating_add(data.remaining() as u64);
        count(bytes);
        // Packed, it has to be no larger either: what unpacks to nothing could go on for ever.
        if usize::try_from(bytes).map_or(true, |bytes| bytes > limit) {
            return Err(Broken::TooLarge { limit });
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            let length = chunk.len();
            sink.write(chunk)?;
            data.advance(length);
        }
    }
    sink.finish()
}

/// Where a body goes as it comes.
enum Sink {
    Plain(Bounded),
    Gzip(Box<GzDecoder<Bounded>>),
}

impl Sink {
    fn of(response: &Response<Incoming>, limit: usize) -> Result<Self, Broken> {
        let encoding = response.headers().get(CONTENT_ENCODING);
        let encoding = encoding.map_or("", |encoding| encoding.to_str().unwrap_or("unreadable"));
        let bounded = Bounded {
            bytes: Vec::new(),
            limit,
            full: false,
        };
        match encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Plain(bounded)),
            "gzip" | "x-gzip" => Ok(Self::Gzip(Box::new(GzDecoder::new(bounded)))),
            _ => Err(Broken::Packed(format!(
                "it is packed as {encoding}, not as gzip"
            ))),
        }
    }

    fn write(&mut self, chunk: &[u8]) -> Result<(), Broken> {
        match self {
            Self::Plain(sink) => {
                let written = sink.write_all(chunk);
                sink.explain(written)
            }
            Self::Gzip(packed) => {
                let written = packed.write_all(chunk);
                packed.get_ref().explain(written)
            }
        }
    }

    fn finish(self) -> Result<Vec<u8>, Broken> {
        match self {
            Self::Plain(sink) => Ok(sink.bytes),
            Self::Gzip(mut packed) => {
                let ended = packed.try_finish();
                packed.get_ref().explain(ended)?;
                Ok(std::mem::take(&mut packed.get_mut().bytes))
            }
        }
    }
}

/// Bytes up to a limit.
#[derive(Debug)]
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    full: bool,
}

impl Bounded {
    fn explain(&self, written: io::Result<()>) -> Result<(), Broken> {
        written.map_err(|error| {
            if self.full {
                Broken::TooLarge { limit: self.limit }
            } else {
                Broken::Packed(error.to_string())
            }
        })
    }
}

impl Write for Bounded {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        if chunk.len() > self.limit - self.bytes.len() {
            self.full = true;
            return Err(io::Error::other("too large"));
        }
        self.bytes.extend_from_slice(chunk);
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn size(bytes: usize) -> String {
    let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
    if mib == 0 {
        format!("{bytes} bytes")
    } else {
        muster_model::quantity::memory::print(mib)
    }
}
