//! The members of an etcd and which of them is spoken to: one at a time, and the next one when it fails. The
//! library's own balancing counts a dead member as a good one.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error};
use tokio::time::timeout;

use super::super::Fault;

/// How long connecting to one member may take.
const CONNECT: Duration = Duration::from_secs(1);

/// How often an idle-looking connection is tested, and how long the answer may take. etcd cuts off who asks
/// more often than every 5 s.
const PING: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(2));

pub(super) struct Members {
    list: Vec<Member>,
    options: Box<Options>,
    /// Which one is spoken to, modulo their number.
    current: AtomicUsize,
}

/// Makes what each new connection is opened with: files of certificates may have changed.
type Options = dyn Fn() -> Result<ConnectOptions, String> + Send + Sync;

struct Member {
    endpoint: String,
    client: Mutex<Option<Box<Client>>>,
}

/// Which member a stream is with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn(usize);

impl Members {
    pub(super) fn new(
        endpoints: &[String],
        options: impl Fn() -> Result<ConnectOptions, String> + Send + Sync + 'static,
    ) -> Self {
        let member = |endpoint: &String| Member {
            endpoint: endpoint.clone(),
            client: Mutex::new(None),
        };
        Self {
            list: endpoints.iter().map(member).collect(),
            options: Box::new(options),
            current: AtomicUsize::new(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// One call of one member, answered within `limit`. A member that fails is not the next one asked.
    pub(super) async fn attempt<T, F: Future<Output = Result<T, Error>>>(
        &self,
        limit: Duration,
        call: impl FnOnce(Client) -> F,
    ) -> Result<T, Fault> {
        let turn = self.current.load(Ordering::Relaxed);
        let answer = async {
            let client = self.choose(turn).await?;
            call(*client).await
        };
        // The library's futures are large.
        match timeout(limit, Box::pin(answer)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.judge(turn, &error)),
            Err(_) => {
                self.pass_over(turn);
                let endpoint = self.member(turn).map_or("", |member| &member.endpoint);
                let millis = limit.as_millis();
                Err(Fault::Unavailable(format!(
                    "no answer from {endpoint} within {millis} ms"
                )))
            }
        }
    }

    /// A member to hold a stream with.
    pub(super) async fn chosen(&self) -> Result<(Turn, Box<Client>), Fault> {
        let turn = self.current.load(Ordering::Relaxed);
        match Box::pin(self.choose(turn)).await {
            Ok(client) => Ok((Turn(turn), client)),
            Err(error) => Err(self.judge(turn, &error)),
        }
    }

    /// The stream with this member failed.
    pub(super) fn judge_stream(&self, turn: Turn, error: &Error) -> Fault {
        self.judge(turn.0, error)
    }

    /// The stream with this member says nothing more.
    pub(super) fn silent(&self, turn: Turn) {
        self.pass_over(turn.0);
    }

    fn member(&self, turn: usize) -> Option<&Member> {
        self.list.get(turn % self.list.len().max(1))
    }

    async fn choose(&self, turn: usize) -> Result<Box<Client>, Error> {
        let member = self.member(turn);
        let member = member.ok_or_else(|| Error::InvalidArgs("no members".to_owned()))?;
        if let Some(client) = &*lock(&member.client) {
            return Ok(client.clone());
        }
        // Several may come here at once; the last connection is kept, and the others end with their calls.
        let options = (self.options)().map_err(Error::InvalidArgs)?;
        let options = options
            .with_connect_timeout(CONNECT)
            .with_keep_alive(PING.0, PING.1)
            .with_require_leader(true);
        let client = Box::new(Client::connect([&member.endpoint], Some(options)).await?);
        *lock(&member.client) = Some(client.clone());
        Ok(client)
    }

    fn judge(&self, turn: usize, error: &Error) -> Fault {
        let fault = fault(error);
        if matches!(fault, Fault::Unavailable(_)) && !refused(error) {
            self.pass_over(turn);
        }
        fault
    }

    /// Makes the next member the one that is spoken to, unless someone did already, and lets go of a
    /// connection that may be broken.
    fn pass_over(&self, turn: usize) {
        let order = Ordering::Relaxed;
        let next = self
            .current
            .compare_exchange(turn, turn.wrapping_add(1), order, order);
        if next.is_ok()
            && let Some(member) = self.member(turn)
        {
            *lock(&member.client) = None;
            tracing::debug!(endpoint = member.endpoint, "passed over a member of etcd");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fault(error: &Error) -> Fault {
    if let Error::LeaseKeepAliveError(reason) = error
        && reason == "lease not found"
    {
        return Fault::NoLease;
    }
    if let Error::GRpcStatus(status) = error {
        let message = status.message();
        if message.contains("required revision has been compacted") {
            return Fault::Compacted;
        }
        if message.contains("requested lease not found") {
            return Fault::NoLease;
        }
        return Fault::Unavailable(message.to_owned());
    }
    Fault::Unavailable(error.to_string())
}

/// Whether the member is well and said no: another would say the same.
fn refused(error: &Error) -> bool {
    let Error::GRpcStatus(status) = error else {
        return false;
    };
    // Said by number, since the library's version of the type is not ours to name: INVALID_ARGUMENT,
    // PERMISSION_DENIED, RESOURCE_EXHAUSTED and FAILED_PRECONDITION.
    matches!(status.code() as i32, 3 | 7 | 8 | 9)
}

impl fmt::Debug for Members {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints = self.list.iter().map(|member| &member.endpoint);
        formatter.debug_list().entries(endpoints).finish()
    }
}
