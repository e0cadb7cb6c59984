//! The one way in which a source asks over HTTP: every wait, redirect and body is bounded, and
//! what went wrong is told in words. A key never leaves the host that it is for.

mod body;
mod connect;
mod proxy;
mod refusal;
mod request;

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Pool;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use super::Failure;
use crate::domain::report::seconds;
use crate::spec::{Provider, Secret, Url};
use connect::{connector, not_sent, pool, with_tls};
use proxy::{Connector, Proxies};
use request::{redirect, request};

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(5);

/// Redirects that are followed at most.
const REDIRECTS: usize = 5;

/// How long a connection is kept for the next request of the same refresh.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// Asks for one backend.
#[derive(Debug)]
pub(super) struct Client {
    proxies: Arc<Proxies>,
    plain: Pool<Connector, Full<Bytes>>,
    /// Made when it is first needed: it reads the system's certificate authorities.
    tls: OnceCell<Pool<HttpsConnector<Connector>, Full<Bytes>>>,
    /// Until when the server asked to be left alone.
    quiet_until: Mutex<Option<Instant>>,
}

/// The requests of one refresh, which have to be answered together until a deadline.
#[derive(Debug)]
pub(super) struct Session<'a> {
    client: &'a Client,
    patience: Duration,
    until: Instant,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Ask<'a> {
    /// Where.
    pub(super) url: &'a Url,
    /// Whose API it is; none for a list that anyone may read.
    pub(super) provider: Option<Provider>,
    /// The key to show to this host, and to no other.
    pub(super) key: Option<&'a Secret>,
    /// JSON to send; none to get.
    pub(super) post: Option<Bytes>,
    /// What is expected back.
    pub(super) expected: Expected,
    /// Names what is at hand already.
    pub(super) known: Known<'a>,
    /// The largest body in bytes, when unpacked.
    pub(super) limit: usize,
}

/// What is expected to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// JSON, said to be so.
    Json,
    /// A file of another format.
    File,
}

/// The state of a file that is at hand, in its server's words; empty where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known<'a> {
    /// Its `ETag`.
    pub(super) etag: &'a str,
    /// Its `Last-Modified`.
    pub(super) modified: &'a str,
}

/// What came back.
#[derive(Debug)]
pub(super) enum Answer {
    /// What is at hand still holds.
    Unchanged,
    /// This.
    Body(Body),
}

/// A body, whole and unpacked.
#[derive(Debug)]
pub(super) struct Body {
    /// Itself.
    pub(super) bytes: Vec<u8>,
    /// Its `ETag`, or empty.
    pub(super) etag: String,
    /// Its `Last-Modified`, or empty.
    pub(super) modified: String,
}

/// How far a request has come, for when time runs out.
#[derive(Debug, Default)]
struct Progress {
    bytes: AtomicU64,
    /// The proxy that the last request went through, if one did.
    proxy: Mutex<Option<String>>,
}

impl Progress {
    fn goes_through(&self, proxy: Option<String>) {
        *self.proxy.lock().unwrap_or_else(PoisonError::into_inner) = proxy;
    }

    /// Says by which proxy it went: it may be the one to blame.
    fn names_proxy(&self, mut failure: Failure) -> Failure {
        let proxy = self.proxy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(proxy) = &*proxy {
            let by_way = format!(" (by way of the proxy {proxy})");
            failure.fault.message.push_str(&by_way);
        }
        failure
    }
}

impl Client {
    pub(super) fn new() -> Self {
        let proxies = Arc::new(Proxies::of_environment());
        Self {
            plain: pool().build(connector(&proxies)),
            proxies,
            tls: OnceCell::new(),
            quiet_until: Mutex::new(None),
        }
    }

    /// Requests that end `patience` from now. Fails at once while the server asked for quiet.
    pub(super) fn session(&self, patience: Duration) -> Result<Session<'_>, Failure> {
        let now = Instant::now();
        let quiet = *self.quiet();
        if let Some(left) = quiet.and_then(|until| until.checked_duration_since(now))
            && !left.is_zero()
        {
            let left = Duration::from_secs(left.as_secs().max(1));
            return Err(Failure {
                retry_after: Some(left),
                ..Failure::passing(format!(
                    "not asked: it asked to be left alone, for another {} now",
                    seconds(left)
                ))
            });
        }
        Ok(Session {
            client: self,
            patience,
            until: now + patience,
        })
    }

    async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        tls: bool,
        progress: &Progress,
    ) -> Result<Response<Incoming>, Failure> {
        let authority = request.uri().authority().map(ToString::to_string);
        let proxy = self.proxies.to(request.uri())?;
        progress.goes_through(proxy.as_ref().map(ToString::to_string));
        let sent = if tls {
            let pool = self.tls.get_or_try_init(|| with_tls(&self.proxies));
            pool.await?.request(request).await
        } else {
            // A proxy is told so by every request that it passes on.
            if let Some(credential) = proxy.as_ref().and_then(proxy::Proxy::credential) {
                let headers = request.headers_mut();
                headers.insert(http::header::PROXY_AUTHORIZATION, credential.clone());
            }
            self.plain.request(request).await
        };
        sent.map_err(|error| not_sent(&authority.unwrap_or_default(), &error))
    }

    // A duration alone is guarded: a panic elsewhere leaves it whole.
    fn quiet(&self) -> MutexGuard<'_, Option<Instant>> {
        self.quiet_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session<'_> {
    /// Asks, follows redirects, and takes the body.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Failure> {
        let progress = Progress::default();
        let answer = timeout_at(self.until, self.follow(ask, &progress)).await;
        let answer = answer.unwrap_or_else(|_| Err(self.late(ask, &progress)));
        answer.map_err(|failure| self.blame(ask, progress.names_proxy(failure)))
    }

    /// The body that answers a request that knows nothing yet.
    pub(super) async fn body(&self, ask: &Ask<'_>) -> Result<Vec<u8>, Failure> {
        match self.ask(ask).await? {
            Answer::Body(body) => Ok(body.bytes),
            Answer::Unchanged => Err(unasked(ask.url)),
        }
    }

    async fn follow(&self, ask: &Ask<'_>, progress: &Progress) -> Result<Answer, Failure> {
        let mut seen = vec![ask.url.clone()];
        loop {
            let url = &seen[seen.len() - 1];
            let response = self
                .client
                .send(request(ask, url), url.is_tls(), progress)
                .await?;
            let Some(next) = redirect(ask, url, &response)? else {
                return take(ask, url, response, progress).await;
            };
            if seen.contains(&next) {
                return Err(Failure::passing(format!(
                    "its redirects lead in a circle: {url} leads to {next}, which was asked already"
                )));
            }
            if seen.len() > REDIRECTS {
                return Err(Failure::passing(format!(
                    "more than {REDIRECTS} redirects, the last to {next}"
                )));
            }
            seen.push(next);
        }
    }

    fn late(&self, ask: &Ask<'_>, progress: &Progress) -> Failure {
        let patience = seconds(self.patience);
        let url = ask.url;
        Failure::late(match progress.bytes.load(Ordering::Relaxed) {
            0 => format!("no answer from {url} within {patience}"),
            bytes => {
                format!("the answer of {url} was not whole within {patience}: {bytes} bytes came")
            }
        })
    }

    /// Remembers for how long to be quiet, and sees to it that no key is told.
    fn blame(&self, ask: &Ask<'_>, mut failure: Failure) -> Failure {
        if let Some(wait) = failure.retry_after {
            *self.client.quiet() = Some(Instant::now() + wait);
        }
        if let Some(key) = ask.key {
            failure.fault.message = key.blot(&failure.fault.message);
        }
        failure
    }
}

async fn take(
    ask: &Ask<'_>,
    url: &Url,
    response: Response<Incoming>,
    progress: &Progress,
) -> Result<Answer, Failure> {
    if response.status() == StatusCode::NOT_MODIFIED {
        let asked = ask.known != Known::default();
        return asked
            .then_some(Answer::Unchanged)
            .ok_or_else(|| unasked(url));
    }
    if !response.status().is_success() {
        return Err(refusal::read(ask, url, response).await);
    }
    if response.status() == StatusCode::PARTIAL_CONTENT {
        return Err(Failure::passing(format!(
            "{url} answers with a part (206), where all was asked for"
        )));
    }
    let header = |name| {
        let value = response.headers().get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let (etag, modified) = (
        header(http::header::ETAG),
        header(http::header::LAST_MODIFIED),
    );
    if let Some(odd) = refusal::odd_type(ask.expected, &response) {
        return Err(refusal::of_odd_type(url, &odd, response).await);
    }
    let count = |bytes: u64| progress.bytes.store(bytes, Ordering::Relaxed);
    let bytes = body::read(response, ask.limit, count).await;
    let bytes = bytes.map_err(|broken| broken.of(url))?;
    Ok(Answer::Body(Body {
        bytes,
        etag,
        modified,
    }))
}

/// Nobody can tell since when nothing would have changed.
fn unasked(url: &Url) -> Failure {
    Failure::lasting(format!(
        "{url} says that nothing changed, but was not asked that"
    ))
}

/// What is at the bottom of an error, which is what people know how to mend.
fn deepest(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
