use std::collections::VecDeque;
use std::task::Waker;

use tokio::io::AsyncWriteExt as _;

use super::*;

/// Takes so many bytes a write as it is told, and then none until it is told again.
#[derive(Default)]
struct Peer {
    takes: VecDeque<io::Result<usize>>,
    writes: Vec<Vec<u8>>,
    flushes: usize,
    is_shut: bool,
}

impl AsyncWrite for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.takes.pop_front() {
            Some(Ok(most)) => {
                let count = most.min(data.len());
                self.writes.push(data[..count].to_vec());
                Poll::Ready(Ok(count))
            }
            Some(Err(error)) => Poll::Ready(Err(error)),
            None => Poll::Pending,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_shut = true;
        Poll::Ready(Ok(()))
    }
}

fn peer(takes: impl IntoIterator<Item = io::Result<usize>>) -> (Gathering<Peer>, Outlet<Peer>) {
    gather(Peer {
        takes: takes.into_iter().collect(),
        ..Peer::default()
    })
}

fn turn(outlet: &Outlet<Peer>) {
    outlet.send(&mut Context::from_waker(Waker::noop()));
}

fn sent(io: &Gathering<Peer>) -> Vec<usize> {
    io.lock().io.writes.iter().map(Vec::len).collect()
}

#[tokio::test]
async fn what_one_turn_writes_goes_out_in_one_write() {
    let (mut io, outlet) = peer([Ok(usize::MAX), Ok(usize::MAX)]);
    for part in [&b"headers"[..], &[7; 900], b"trailers"] {
        io.write_all(part).await.unwrap();
        io.flush().await.unwrap();
    }
    assert_eq!(sent(&io), [0; 0]);
    turn(&outlet);
    assert_eq!(sent(&io), [7 + 900 + 8]);
    assert_eq!(io.lock().io.flushes, 1);
    assert!(io.lock().written.capacity() <= KEPT);
    turn(&outlet);
    assert_eq!((sent(&io).len(), io.lock().io.flushes), (1, 1));
}

#[tokio::test]
async fn a_slow_peer_gets_every_byte_in_order() {
    let (mut io, outlet) = peer([Ok(3)]);
    io.write_all(b"abcdef").await.unwrap();
    turn(&outlet);
    assert_eq!(sent(&io), [3]);
    io.write_all(b"ghi").await.unwrap();
    io.lock().io.takes.extend([Ok(1), Ok(usize::MAX)]);
    turn(&outlet);
    let all: Vec<u8> = io.lock().io.writes.concat();
    assert_eq!(all, b"abcdefghi");
}

#[tokio::test]
async fn more_than_is_gathered_waits_for_the_peer() {
    let (mut io, outlet) = peer([]);
    let chunk = [1; 20 * 1024];
    io.write_all(&chunk).await.unwrap();
    let full = tokio::time::timeout(std::time::Duration::from_millis(10), io.write_all(&chunk));
    assert!(full.await.is_err());
    assert_eq!(io.lock().written.len(), chunk.len());
    io.lock().io.takes.extend([Ok(usize::MAX), Ok(usize::MAX)]);
    io.write_all(&chunk).await.unwrap();
    turn(&outlet);
    assert_eq!(sent(&io), [chunk.len(), chunk.len()]);
}

#[tokio::test]
async fn one_write_larger_than_the_room_is_not_copied() {
    let (mut io, outlet) = peer([Ok(usize::MAX), Ok(usize::MAX)]);
    io.write_all(b"first").await.unwrap();
    io.write_all(&[2; GATHERED + 1]).await.unwrap();
    assert_eq!(sent(&io), [5, GATHERED + 1]);
    turn(&outlet);
    assert_eq!(io.lock().io.flushes, 2, "each way out is flushed");
}

#[tokio::test]
async fn the_writer_is_told_why_nothing_could_be_sent() {
    let (mut io, outlet) = peer([Err(io::ErrorKind::BrokenPipe.into())]);
    io.write_all(b"lost").await.unwrap();
    turn(&outlet);
    let told = io.flush().await.unwrap_err();
    assert_eq!(told.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn the_end_sends_what_is_left_first() {
    let (mut io, _outlet) = peer([Ok(usize::MAX)]);
    io.write_all(b"goodbye").await.unwrap();
    io.shutdown().await.unwrap();
    assert_eq!(sent(&io), [7]);
    assert!(io.lock().io.is_shut);
}
