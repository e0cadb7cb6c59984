//! One endpoint: the connection to it if there is one, and how it has done lately. However many
//! calls want to, only one connects at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::rt::Executor as _;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::body::Body;

use super::connection::{Connection, Keepalive, SendFailed};
use super::failure::ConnectFailed;
use super::probe::{self, Health};
use super::transport::Dialer;
use super::{Endpoint, Options};
use crate::backoff::{self, Backoff};

/// Between tries to connect: calls in between fail at once with the last error. Half a second at
/// most, so that a component that comes back is found within a second.
const RECONNECT: backoff::Policy =
    backoff::Policy::doubling(Duration::from_millis(20), Duration::from_millis(500));

/// Between health checks of a connection that calls run out of time on.
const SUSPECT_AGAIN: Duration = Duration::from_secs(1);

/// An endpoint with its connection.
pub(super) struct Link {
    endpoint: Endpoint,
    dialer: Dialer,
    options: Arc<Options>,
    keepalive: Arc<Keepalive>,
    state: Mutex<State>,
    ejected: AtomicBool,
}

struct State {
    connection: Slot,
    failures: Backoff,
    suspected: Option<Instant>,
}

enum Slot {
    Empty,
    /// No try before the time.
    Failed {
        again_at: Instant,
        error: ConnectFailed,
    },
    Opening(Opening),
    Open(Connection),
}

type Opening = watch::Receiver<Option<Result<Connection, ConnectFailed>>>;

impl Link {
    pub(super) fn new(endpoint: Endpoint, dialer: Dialer, options: Arc<Options>) -> Self {
        let seed = backoff::seed(&endpoint.to_string());
        Self {
            endpoint,
            dialer,
            keepalive: Arc::new(Keepalive::new(options.keepalive_interval)),
            options,
            state: Mutex::new(State {
                connection: Slot::Empty,
                failures: Backoff::new(RECONNECT, seed),
                suspected: None,
            }),
            ejected: AtomicBool::new(false),
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    #[cfg(test)]
    pub(super) fn keepalive_interval(&self) -> Duration {
        self.keepalive.interval()
    }

    /// Whether calls should go elsewhere.
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Takes it out of service; `true` for the call that did.
    pub(super) fn eject(&self) -> bool {
        !self.ejected.swap(true, Ordering::Relaxed)
    }

    /// Takes it back into service.
    pub(super) fn restore(&self) {
        self.ejected.store(false, Ordering::Relaxed);
    }

    /// An open connection, opened now if there is none.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<Connection, ConnectFailed> {
        let mut opening = {
            let mut state = self.lock();
            match &state.connection {
                Slot::Open(connection) if !connection.is_closed() => return Ok(connection.clone()),
                Slot::Failed { again_at, error } if Instant::now() < *again_at => {
                    return Err(error.clone());
                }
                Slot::Opening(opening) => opening.clone(),
                Slot::Empty | Slot::Failed { .. } | Slot::Open(_) => self.start(&mut state),
            }
        };
        let opened = opening
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|opened| opened.clone());
        opened.unwrap_or_else(|| {
            let reason = "the process is stopping".to_owned();
            Err(ConnectFailed {
                endpoint: self.endpoint.clone(),
                reason,
            })
        })
    }

    /// Sends a request. One that finds its connection closed before anything has left is sent once
    /// more, over a new one.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut connection: Connection,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, SendFailed> {
        set_origin(&self.endpoint, &mut request);
        match connection.send(request).await {
            Err(SendFailed {
                unsent: Some(request),
                ..
            }) => {
                self.forget(&connection);
                match self.connection().await {
                    Ok(mut fresh) => fresh.send(request).await,
                    Err(failed) => Err(SendFailed {
                        status: failed.into(),
                        unsent: Some(request),
                    }),
                }
            }
            sent => sent,
        }
    }

    /// Whether it is time for another health check, since a call has run out of time.
    pub(super) fn begins_suspicion(&self) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let is_due = state.suspected.is_none_or(|at| now >= at + SUSPECT_AGAIN);
        if is_due {
            state.suspected = Some(now);
        }
        is_due
    }

    /// Gives a connection up whose peer does not answer a health check; the next call opens another. Whether
    /// it did.
    pub(super) async fn gives_up(&self, connection: Connection) -> bool {
        let is_silent = probe::check(connection.clone()).await == Health::Silent;
        if is_silent {
            tracing::warn!(endpoint = %self.endpoint, "connection does not answer, given up");
            self.forget(&connection);
            connection.cut();
        }
        is_silent
    }

    fn start(self: &Arc<Self>, state: &mut State) -> Opening {
        let (opened, opening) = watch::channel(None);
        state.connection = Slot::Opening(opening.clone());
        let link = Arc::clone(self);
        // Apart from the call that wants it: another may wait for the same connection when that
        // call is given up. It ends within the connect timeout.
        TokioExecutor::new().execute(async move {
            let result =
                Connection::open(&link.endpoint, &link.dialer, &link.options, &link.keepalive)
                    .await;
            link.note(&result);
            opened.send_replace(Some(result));
        });
        opening
    }

    fn note(&self, result: &Result<Connection, ConnectFailed>) {
        let mut state = self.lock();
        state.connection = match result {
            Ok(connection) => {
                if state.failures.failures() > 0 {
                    tracing::info!(endpoint = %self.endpoint, "connected again");
                }
                state.failures.reset();
                Slot::Open(connection.clone())
            }
            Err(error) => {
                if state.failures.failures() == 0 {
                    tracing::warn!(endpoint = %self.endpoint, reason = error.reason, "cannot connect");
                }
                let again_at = Instant::now() + state.failures.next_delay();
                Slot::Failed {
                    again_at,
                    error: error.clone(),
                }
            }
        };
    }

    fn forget(&self, connection: &Connection) {
        let mut state = self.lock();
        if matches!(&state.connection, Slot::Open(open) if open.is(connection)) {
            state.connection = Slot::Empty;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Completes a request's URI with where it goes.
pub(super) fn set_origin(endpoint: &Endpoint, request: &mut Request<Body>) {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if endpoint.is_tls() {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    });
    parts.authority = Authority::try_from(endpoint.authority()).ok();
    parts
        .path_and_query
        .get_or_insert(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}
