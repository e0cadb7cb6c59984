//! A stretch of network for tests: forwards TCP to a target, until it is told not to.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Who may pass.
#[derive(Clone, Copy, PartialEq)]
struct State {
    /// Nothing gets through, and nobody is told.
    partitioned: bool,
    /// Connections of a former count are closed.
    cuts: u32,
}

pub(super) struct Wire {
    pub(super) address: SocketAddr,
    state: watch::Sender<State>,
}

impl Wire {
    pub(super) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, seen) = watch::channel(State {
            partitioned: false,
            cuts: 0,
        });
        super::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                super::spawn(carry(client, target, seen.clone()));
            }
        });
        Self { address, state }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn partition(&self, on: bool) {
        self.state.send_modify(|state| state.partitioned = on);
    }

    /// Closes every connection of now.
    pub(super) fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

async fn carry(client: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let cuts = state.borrow().cuts;
    let _ = state.wait_for(|state| !state.partitioned).await;
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = copy(from_client, to_server, state.clone()) => {}
        () = copy(from_server, to_client, state.clone()) => {}
        _ = state.wait_for(|state| state.cuts != cuts) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        if state.wait_for(|state| !state.partitioned).await.is_err() {
            return;
        }
        let Ok(count @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let _ = state.wait_for(|state| !state.partitioned).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
