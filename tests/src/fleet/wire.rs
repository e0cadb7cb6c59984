//! The way from an agent to a component, which can be cut: what is sent then arrives when it is whole
//! again, and nobody is told that it is cut, as when a network drops packets.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::own;

/// A way that can be cut.
#[derive(Debug)]
pub struct Wire {
    cut: watch::Sender<bool>,
    /// Where it begins.
    pub address: SocketAddr,
}

impl Wire {
    /// A whole one, to `target`, which need not be there.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = watch::Sender::new(false);
        let state = cut.subscribe();
        own(async move {
            while let Ok((near, _)) = listener.accept().await {
                own(join(near, target, state.clone()));
            }
        });
        Self { cut, address }
    }

    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.cut.send_replace(false);
    }
}

async fn join(near: TcpStream, target: SocketAddr, mut state: watch::Receiver<bool>) {
    if whole(&mut state).await
        && let Ok(far) = TcpStream::connect(target).await
    {
        let (near_reads, near_writes) = near.into_split();
        let (far_reads, far_writes) = far.into_split();
        // An end of one direction ends both, as a killed process ends its connections.
        tokio::select! {
            () = carry(near_reads, far_writes, state.clone()) => {}
            () = carry(far_reads, near_writes, state) => {}
        }
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        // The end of a connection is not heard through a cut wire either.
        if !whole(&mut state).await || read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Waits until the wire is whole; false if it is gone.
async fn whole(state: &mut watch::Receiver<bool>) -> bool {
    state.wait_for(|cut| !cut).await.is_ok()
}
