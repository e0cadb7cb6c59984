//! Against real servers over TCP.

mod peer;
mod wire;

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use hyper::rt::Executor as _;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use self::peer::{Peer, one};
use self::wire::Wire;
use super::*;
use crate::deadline::Deadline;
use crate::status::{self, Details, Violations};
use muster_proto::types::v1::ErrorReason;

fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    TokioExecutor::new().execute(work);
}

/// Options that fail faster than the defaults.
fn quick() -> Options {
    Options {
        connect_timeout: Duration::from_millis(500),
        default_deadline: Duration::from_secs(2),
        keepalive_interval: Duration::from_millis(500),
        keepalive_timeout: Duration::from_millis(500),
        ..Options::default()
    }
}

fn channel_to(urls: &str, options: Options) -> Channel {
    Connector::new(options).channel(&urls.parse().unwrap())
}

fn path(method: &str) -> http::uri::PathAndQuery {
    format!("/test.v1.Test/{method}").parse().unwrap()
}

async fn call_with(
    channel: &Channel,
    method: &str,
    request: Request<String>,
) -> Result<String, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec = ProstCodec::<String, String>::default();
    Ok(client
        .unary(request, path(method), codec)
        .await?
        .into_inner())
}

async fn call(channel: &Channel, method: &str) -> Result<String, Status> {
    call_with(channel, method, Request::new("hello".to_owned())).await
}

async fn open(channel: &Channel, method: &str) -> Result<Streaming<String>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec = ProstCodec::<String, String>::default();
    let request = Request::new("hello".to_owned());
    Ok(client
        .server_streaming(request, path(method), codec)
        .await?
        .into_inner())
}

/// UNAVAILABLE, as a server says it.
fn unavailable(after: Duration) -> Status {
    status::unavailable(ErrorReason::Overloaded, "too much to do", after).into_status()
}

mod deadlines;
mod endpoints;
mod faults;
mod identity;
mod observed;
mod retries;
