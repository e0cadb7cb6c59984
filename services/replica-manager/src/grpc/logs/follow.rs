//! Output as it comes: of each attempt while it runs, then of those that follow it, and of replicas that
//! come. It ends when nothing more will come. An agent that goes away is asked again until it is back, or
//! its attempt is over, and then goes on where it was.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{StreamExt as _, TryStreamExt as _};
use muster_proto::agents::v1 as agents;
use muster_proto::replicas::v1 as wire;
use muster_runtime::backoff::{Backoff, Policy};
use muster_runtime::watch::Filter;
use tonic::{Code, Status, Streaming};

use super::{Source, Target};
use crate::domain::replica::Replica;
use crate::domain::replica::attempt::Attempt;
use crate::domain::service::{Intent, Service};
use crate::grpc::Api;
use crate::grpc::watches::Stream;

/// From one try to reach an agent to the next.
const AGAIN: Policy = Policy::doubling(Duration::from_millis(200), Duration::from_secs(5));

/// From the end of an agent's answer until it is asked for the rest.
const REST: Duration = Duration::from_millis(100);

/// So many failures in a row are told: the first may be a connection that has become too old.
const TOLD: u32 = 2;

/// Follows a target's output.
pub(super) fn follow(
    api: Api,
    target: Target,
    asked: wire::StreamLogsRequest,
    service: &Service,
) -> Result<Stream<wire::StreamLogsResponse>, Status> {
    let header = &service.header;
    let (project, name, uid) = (&header.project, &header.name, header.uid.clone());
    let replicas = Filter::all().prefix(format!("{project}/{name}/{uid}/"));
    let replicas = api.hubs.replicas.watch("", replicas)?;
    let services = Filter::all().prefix(format!("{project}/{name}"));
    let services = services.durable(move |service: &wire::Service| service.uid == uid);
    let services = api.hubs.services.watch("", services)?;
    let wakes = stream::select(replicas.map_ok(drop), services.map_ok(drop)).boxed();
    let following = Following {
        api,
        target,
        asked,
        begun: BTreeMap::new(),
        is_first: true,
        is_over: false,
        reading: SelectAll::new(),
        wakes,
    };
    let told = stream::unfold(following, |mut following| async move {
        let told = following.next().await?;
        Some((told, following))
    });
    Ok(told.boxed())
}

/// A target that is followed.
struct Following {
    api: Api,
    target: Target,
    asked: wire::StreamLogsRequest,
    /// The last attempt of each replica that is read, or was.
    begun: BTreeMap<u32, u32>,
    /// Nothing was taken up yet.
    is_first: bool,
    /// No attempt will come.
    is_over: bool,
    reading: SelectAll<BoxStream<'static, wire::StreamLogsResponse>>,
    /// When the service or one of its replicas has changed.
    wakes: Stream<()>,
}

impl Following {
    async fn next(&mut self) -> Option<Result<wire::StreamLogsResponse, Status>> {
        while !(self.is_over && self.reading.is_empty()) {
            tokio::select! {
                // With the end of the last one it may be over.
                told = self.reading.next(), if !self.reading.is_empty() => {
                    if let Some(told) = told {
                        return Some(Ok(told));
                    }
                }
                wake = self.wakes.next() => match wake? {
                    Ok(()) => self.take_up(),
                    Err(status) => {
                        (self.is_over, self.reading) = (true, SelectAll::new());
                        return Some(Err(status));
                    }
                },
            }
        }
        None
    }

    /// Begins to read what has come, and looks whether more will.
    fn take_up(&mut self) {
        let Some(stored) = self.api.engine.parts().view.get(&self.target.uid) else {
            self.is_over = true;
            return;
        };
        let service = &stored.service;
        for replica in self.target.replicas(service) {
            for attempt in self.unread(service, replica) {
                let Some(source) = Source::of(service, replica, attempt) else {
                    continue;
                };
                let request = source.request(&self.asked);
                self.begun.insert(replica.ordinal, attempt.number);
                self.reading
                    .push(Output::stream(self.api.clone(), source, request));
            }
        }
        // What comes from now on is told whole.
        self.is_first = false;
        (self.asked.tail, self.asked.after) = (None, BTreeMap::new());
        // One that rests may be the only target: then nothing comes but by a decision.
        let rests =
            self.target.only.is_some() && self.target.replicas(service).all(Replica::at_rest);
        self.is_over = service.header.intent != Intent::Run || rests;
    }

    /// The attempts of a replica that have come since. At the start that is the last; for who goes on, what is
    /// not known to have been read.
    fn unread<'a>(&self, service: &Service, replica: &'a Replica) -> Vec<&'a Attempt> {
        let begun = self.begun.get(&replica.ordinal).copied().unwrap_or(0);
        let attempts = [replica.previous.as_ref(), replica.attempt.as_ref()];
        let placed = |attempt: &&Attempt| attempt.allocation.is_some() && attempt.number > begun;
        let mut attempts: Vec<_> = attempts.into_iter().flatten().filter(placed).collect();
        let Some(last) = attempts.last().copied().filter(|_| self.is_first) else {
            return attempts;
        };
        let after = &self.asked.after;
        let is_known = |attempt: &Attempt| {
            let id = service.attempt_id(replica.ordinal, attempt.number);
            after.contains_key(&id)
        };
        if after.is_empty() {
            attempts = vec![last];
        } else if is_known(last) {
            attempts.retain(|attempt| is_known(attempt));
        }
        attempts
    }
}

/// The output of one attempt.
struct Output {
    api: Api,
    source: Source,
    request: agents::StreamLogsRequest,
    open: Option<Streaming<agents::StreamLogsResponse>>,
    /// After this answer nothing more is asked for: the attempt had ended before, or its agent names no
    /// positions.
    is_last: bool,
    backoff: Backoff,
}

impl Output {
    fn stream(
        api: Api,
        source: Source,
        request: agents::StreamLogsRequest,
    ) -> BoxStream<'static, wire::StreamLogsResponse> {
        let seed = u64::from(source.ordinal);
        let output = Self {
            api,
            source,
            request,
            open: None,
            is_last: false,
            backoff: Backoff::new(AGAIN, seed),
        };
        stream::unfold(Some(output), |output| async { output?.next().await }).boxed()
    }

    /// What comes next, and what is left then.
    async fn next(mut self) -> Option<(wire::StreamLogsResponse, Option<Self>)> {
        loop {
            match self.read().await {
                Ok(Some(message)) => {
                    self.backoff.reset();
                    self.is_last |= message.position.is_empty();
                    self.request.after.clone_from(&message.position);
                    return Some((self.source.told(message), Some(self)));
                }
                Ok(None) if self.is_last => return None,
                Ok(None) => {
                    self.open = None;
                    tokio::time::sleep(REST).await;
                }
                Err(status) => {
                    self.open = None;
                    let delay = self.backoff.next_delay();
                    let failures = self.backoff.failures();
                    let ends = failures >= TOLD || self.request.after.is_empty();
                    if is_final(status.code()) || self.is_last && ends {
                        return Some((self.source.failed(&status), None));
                    }
                    // An agent may hear of an attempt after we do.
                    if failures == TOLD && status.code() != Code::NotFound {
                        return Some((self.source.failed(&status), Some(self)));
                    }
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    async fn read(&mut self) -> Result<Option<agents::StreamLogsResponse>, Status> {
        let messages = match &mut self.open {
            Some(messages) => messages,
            None => {
                self.is_last = self.has_ended();
                let opened = self.api.open(&self.source, self.request.clone()).await?;
                self.open.insert(opened)
            }
        };
        messages.message().await
    }

    fn has_ended(&self) -> bool {
        let stored = self.api.engine.parts().view.get(&self.source.uid);
        let stored = stored.as_ref();
        let replica = stored.and_then(|stored| stored.service.replicas.get(&self.source.ordinal));
        let attempt = replica.and_then(|replica| replica.attempt.as_ref());
        let current = attempt.filter(|attempt| attempt.number == self.source.number);
        current.is_none_or(|attempt| attempt.end.is_some())
    }
}

/// Whether a call that failed like this fails again.
fn is_final(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::Unimplemented)
}
