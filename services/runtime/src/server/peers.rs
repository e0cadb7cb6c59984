//! The other ends of all open connections, to find among them who is not let in any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustc_hash::FxHashMap;

use crate::auth::Access;
use crate::layers::Peer;

/// Those of one server.
#[derive(Debug, Default)]
pub(super) struct Peers(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    by_number: FxHashMap<u64, Weak<Peer>>,
}

impl Peers {
    /// Has `peer` among them until what this returns is dropped.
    pub(super) fn enter(&self, peer: &Arc<Peer>) -> Stay<'_> {
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        open.by_number.insert(number, Arc::downgrade(peer));
        Stay {
            peers: self,
            number,
        }
    }

    /// Ends the streams of every connection on which somebody is not who they were.
    pub(super) fn judge(&self, access: &Access) {
        let peers: Vec<_> = self
            .open()
            .by_number
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        let mut ended = 0;
        for peer in peers.iter().filter(|peer| !peer.still_holds(access)) {
            peer.last_call.cancel();
            ended += 1;
        }
        if ended > 0 {
            tracing::info!(
                connections = ended,
                "streams ended of callers who are gone or have another role"
            );
        }
    }

    /// Does so whenever those who are known change, for ever.
    pub(super) async fn follow(self: Arc<Self>, access: Arc<Access>) {
        let mut changes = access.changes();
        // What changed before this had begun.
        self.judge(&access);
        while changes.changed().await.is_ok() {
            self.judge(&access);
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time of one connection.
#[derive(Debug)]
pub(super) struct Stay<'a> {
    peers: &'a Peers,
    number: u64,
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.peers.open().by_number.remove(&self.number);
    }
}
