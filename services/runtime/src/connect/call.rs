//! One call: its time, its tries, and what it comes to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Status;
use tonic::body::Body;

use super::body::{Bounds, ResponseBody};
use super::channel::Shared;
use super::connection::{Connection, SendFailed};
use super::failure;
use super::link::Link;
use super::observe::Observation;
use super::retry;
use crate::deadline::{self, Deadline};

/// What is known of a call before it is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// By when the whole of it must be over; `None` for a stream that is to stay open.
    deadline: Option<Instant>,
    /// By when the answer must have begun.
    answer_by: Instant,
    /// How long the answer may be silent.
    silence: Option<Duration>,
    /// Whether it may be executed twice.
    idempotent: bool,
}

impl Plan {
    /// From the request's own deadline, or that of the inbound call it belongs to, whichever comes
    /// first; else by the kind of its method.
    pub(super) fn of(request: &Request<Body>, shared: &Shared, now: Instant) -> Self {
        let options = &shared.options;
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let own = deadline::read(request.headers())
            .ok()
            .flatten()
            .map(|timeout| now + timeout);
        let carried = request
            .extensions()
            .get::<Deadline>()
            .map(|deadline| deadline.instant());
        let given = own.into_iter().chain(carried).min();
        let is_watch = retry::begins_with_word(method, "Watch");
        let stays_open = is_watch || retry::begins_with_word(method, "Stream");
        let default = now + options.default_deadline;
        Self {
            deadline: given.or((!stays_open).then_some(default)),
            answer_by: given.unwrap_or(default),
            silence: is_watch.then_some(options.watch_silence),
            idempotent: options.idempotent.includes(method),
        }
    }
}

/// A try that brought no usable answer.
struct Failure {
    /// What the caller is told if it was the last.
    outcome: Result<Response<Incoming>, Status>,
    /// Whether the peer may have executed it.
    sent: bool,
    /// The delay that the peer asked for.
    wish: Option<Duration>,
}

/// Makes the call, as often as it takes and is allowed.
pub(super) async fn make(
    shared: &Shared,
    plan: Plan,
    request: Request<Body>,
    mut observation: Observation,
) -> Result<Response<ResponseBody>, Status> {
    match answer(shared, plan, request, &observation).await {
        Ok((link, response)) => {
            observation.end_if_said(response.headers());
            let endpoint = link.endpoint().clone();
            let bounds = Bounds {
                deadline: plan.deadline,
                silence: plan.silence,
            };
            Ok(response.map(|body| ResponseBody::new(body, endpoint, bounds, observation)))
        }
        Err(status) => {
            observation.end(status.code());
            Err(status)
        }
    }
}

/// The answer's beginning, in time.
async fn answer(
    shared: &Shared,
    plan: Plan,
    request: Request<Body>,
    observation: &Observation,
) -> Result<(Arc<Link>, Response<Incoming>), Status> {
    let mut in_use = None;
    let tries = tries(shared, plan, request, observation, &mut in_use);
    if let Ok(answered) = timeout_at(plan.answer_by, tries).await {
        return answered;
    }
    let Some(InUse { index, connection }) = in_use else {
        return Err(failure::out_of_time("before there was a connection"));
    };
    let endpoint = shared.pool.endpoint(index);
    Err(match connection {
        Some(connection) => {
            shared.pool.suspect(index, connection);
            failure::out_of_time(&format!("before {endpoint} answered"))
        }
        None => {
            // Whoever accepts connections and says nothing would have every call wait for it again.
            shared.pool.note_failure(index);
            failure::out_of_time(&format!("before there was a connection to {endpoint}"))
        }
    })
}

/// What a call waits for.
struct InUse {
    /// Of the endpoint.
    index: usize,
    /// None while it is opened.
    connection: Option<Connection>,
}

async fn tries(
    shared: &Shared,
    plan: Plan,
    request: Request<Body>,
    observation: &Observation,
    in_use: &mut Option<InUse>,
) -> Result<(Arc<Link>, Response<Incoming>), Status> {
    let mut request = Repeatable::new(request, plan.idempotent).await?;
    let mut tried = Vec::new();
    let mut retries = 0;
    loop {
        let Some((index, link)) = shared.pool.pick(&tried) else {
            return Err(nowhere());
        };
        let InUse { connection, .. } = in_use.insert(InUse {
            index,
            connection: None,
        });
        let failure = match one_try(link, plan, &mut request, connection).await {
            Ok(response) => {
                shared.budget.deposit();
                return Ok((Arc::clone(link), response));
            }
            Err(failure) => failure,
        };
        shared.pool.note_failure(index);
        tried.push(index);
        let elsewhere = tried.len() < shared.pool.len();
        let delay = match again(shared, plan, &failure, elsewhere, retries) {
            Some(delay) if Instant::now() + delay < plan.answer_by && request.is_there() => delay,
            Some(_) | None => return failure.outcome.map(|response| (Arc::clone(link), response)),
        };
        if !elsewhere {
            retries += 1;
            tried.clear();
        }
        observation.retried();
        sleep(delay).await;
    }
}

/// The delay before another try; `None` if there must be none.
fn again(
    shared: &Shared,
    plan: Plan,
    failure: &Failure,
    elsewhere: bool,
    retries: u32,
) -> Option<Duration> {
    let options = &shared.options;
    let harmless = plan.idempotent || !failure.sent;
    if elsewhere && harmless && (!failure.sent || shared.budget.withdraw(Instant::now())) {
        return Some(Duration::ZERO);
    }
    if elsewhere || !plan.idempotent || retries >= options.max_retries {
        return None;
    }
    let ours = options.backoff.delay(retries, shared.next_seed());
    let delay = retry::delay(ours, failure.wish, options.max_retry_delay)?;
    shared.budget.withdraw(Instant::now()).then_some(delay)
}

async fn one_try(
    link: &Arc<Link>,
    plan: Plan,
    request: &mut Repeatable,
    opened: &mut Option<Connection>,
) -> Result<Response<Incoming>, Failure> {
    let unsent = |status| Failure {
        outcome: Err(status),
        sent: false,
        wish: None,
    };
    let connection = link
        .connection()
        .await
        .map_err(|failed| unsent(failed.into()))?;
    let Some(mut outgoing) = request.take() else {
        return Err(unsent(nowhere()));
    };
    set_timeout(&mut outgoing, plan);
    *opened = Some(connection.clone());
    match link.send(connection, outgoing).await {
        Ok(mut response) => {
            failure::drop_malformed_details(response.headers_mut());
            match failure::unavailable_wish(response.headers()) {
                None => Ok(response),
                Some(wish) => Err(Failure {
                    outcome: Ok(response),
                    sent: true,
                    wish,
                }),
            }
        }
        Err(SendFailed {
            status,
            unsent: back,
        }) => {
            let sent = back.is_none();
            request.put_back(back);
            Err(Failure {
                outcome: Err(status),
                sent,
                wish: None,
            })
        }
    }
}

/// What is left of the call's time, as the peer is told it.
fn set_timeout(request: &mut Request<Body>, plan: Plan) {
    if let Some(deadline) = plan.deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        let name = HeaderName::from_static(deadline::HEADER);
        request
            .headers_mut()
            .insert(name, deadline::header_value(left));
    }
}

/// A pool is never empty and a request is put back when it did not leave: this is never seen.
fn nowhere() -> Status {
    crate::status::internal()
}

/// A request that can be sent again: always if it is idempotent, else only while it has not left.
enum Repeatable {
    Copied { parts: Box<Parts>, body: Bytes },
    Once(Option<Request<Body>>),
}

impl Repeatable {
    async fn new(request: Request<Body>, copied: bool) -> Result<Self, Status> {
        if !copied {
            return Ok(Self::Once(Some(request)));
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Self::Copied {
            parts: Box::new(parts),
            body,
        })
    }

    fn is_there(&self) -> bool {
        match self {
            Self::Copied { .. } => true,
            Self::Once(request) => request.is_some(),
        }
    }

    fn take(&mut self) -> Option<Request<Body>> {
        match self {
            Self::Copied { parts, body } => {
                let body = Body::new(Full::new(body.clone()));
                Some(Request::from_parts(Parts::clone(parts), body))
            }
            Self::Once(request) => request.take(),
        }
    }

    fn put_back(&mut self, unsent: Option<Request<Body>>) {
        if let Self::Once(request) = self {
            *request = unsent;
        }
    }
}

/// What every call of a channel says of its caller.
pub(super) fn introduce(
    request: &mut Request<Body>,
    user_agent: &HeaderValue,
    credential: Option<HeaderValue>,
) {
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, user_agent.clone());
    if let Some(credential) = credential {
        headers.entry(header::AUTHORIZATION).or_insert(credential);
    }
}
