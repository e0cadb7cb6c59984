//! One HTTP request to a port of this machine, with its answer. Probes and scrapes ask by it. It
//! follows no redirect, keeps no connection, and reads no more than it is told to.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A connection to a port of this machine.
pub(crate) async fn connect(port: u16) -> Result<TcpStream, String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let connected = TcpStream::connect(address).await;
    connected.map_err(|error| format!("port {port}: {error}"))
}

/// The status of `GET path`; its body is not read.
pub(crate) async fn status(port: u16, path: &str) -> Result<StatusCode, String> {
    get(port, path, None).await.map(|(status, _)| status)
}

/// The body of `GET path`, of at most `most` bytes, if the status is 200.
pub(crate) async fn body(port: u16, path: &str, most: usize) -> Result<Bytes, String> {
    match get(port, path, Some(most)).await? {
        (StatusCode::OK, body) => Ok(body),
        (status, _) => Err(format!("{path}: status {status}")),
    }
}

async fn get(port: u16, path: &str, most: Option<usize>) -> Result<(StatusCode, Bytes), String> {
    let stream = connect(port).await?;
    let failed = |error: hyper::Error| format!("port {port}: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let request = Request::get(path)
        .header(header::HOST, format!("127.0.0.1:{port}"))
        .header(header::USER_AGENT, "muster-agent")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("{path}: {error}"))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let Some(most) = most else {
            return Ok((status, Bytes::new()));
        };
        let body = Limited::new(answer.into_body(), most).collect().await;
        let body = body.map_err(|error| format!("port {port}: {error}"))?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        outcome = &mut exchange => outcome,
        // The connection has ended: what it has brought is all there is.
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(failed(error)),
        },
    }
}
