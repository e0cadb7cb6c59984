//! Which of several endpoints a call goes to: the one that the last went to, as long as it does
//! well, so that page tokens and connections last; then the next in turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::rt::Executor as _;
use hyper_util::rt::TokioExecutor;
use tokio::time::sleep;

use super::Endpoint;
use super::connection::Connection;
use super::link::Link;
use super::probe::{self, Health};
use crate::backoff::{self, Backoff};

/// Between health checks of an endpoint that is out of service.
const PROBE: backoff::Policy =
    backoff::Policy::doubling(Duration::from_millis(100), Duration::from_secs(2));

/// The endpoints of a channel, at least one.
pub(super) struct Pool {
    links: Vec<Arc<Link>>,
    current: AtomicUsize,
}

impl Pool {
    /// `first` chooses where calls go first, so that many clients spread over the endpoints.
    pub(super) fn new(links: Vec<Arc<Link>>, first: usize) -> Self {
        let current = AtomicUsize::new(first % links.len().max(1));
        Self { links, current }
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// An endpoint that is not among `tried`: one in service if there is any.
    pub(super) fn pick(&self, tried: &[usize]) -> Option<(usize, &Arc<Link>)> {
        let current = self.current.load(Ordering::Relaxed);
        let in_turn = (0..self.links.len()).map(|step| (current + step) % self.links.len());
        let mut untried = in_turn.filter(|index| !tried.contains(index));
        let first = untried.clone().next()?;
        let index = untried
            .find(|index| !self.links[*index].is_ejected())
            .unwrap_or(first);
        if index != current {
            self.current.store(index, Ordering::Relaxed);
        }
        Some((index, &self.links[index]))
    }

    pub(super) fn endpoint(&self, index: usize) -> &Endpoint {
        self.links[index].endpoint()
    }

    /// An endpoint has failed a call: the next goes elsewhere until it says that it serves. The
    /// only one stays in service: there is no elsewhere.
    pub(super) fn note_failure(&self, index: usize) {
        if self.links.len() > 1 {
            take_out(&self.links[index]);
        }
    }

    /// A call on a connection has run out of time: if the peer does not answer a health check
    /// either, it is not only the call that takes long, and the endpoint has failed.
    pub(super) fn suspect(&self, index: usize, connection: Connection) {
        let link = Arc::clone(&self.links[index]);
        let elsewhere = self.links.len() > 1;
        if link.begins_suspicion() {
            TokioExecutor::new().execute(async move {
                if link.gives_up(connection).await && elsewhere {
                    take_out(&link);
                }
            });
        }
    }
}

/// Takes an endpoint out of service until it serves.
fn take_out(link: &Arc<Link>) {
    if !link.eject() {
        return;
    }
    tracing::warn!(endpoint = %link.endpoint(), "endpoint failed, out of service");
    let seed = backoff::seed(&link.endpoint().to_string());
    TokioExecutor::new().execute(watch_recovery(Arc::downgrade(link), seed));
}

/// Checks an endpoint until it serves, or nobody uses it any more.
async fn watch_recovery(link: Weak<Link>, seed: u64) {
    let mut delays = Backoff::new(PROBE, seed);
    loop {
        sleep(delays.next_delay()).await;
        let Some(link) = link.upgrade() else { return };
        let Ok(connection) = link.connection().await else {
            continue;
        };
        if probe::check(connection).await == Health::Serving {
            tracing::info!(endpoint = %link.endpoint(), "endpoint serves, back in service");
            link.restore();
            return;
        }
    }
}
