//! A watch of an etcd: its events as whole revisions.
//!
//! etcd puts all events of one revision into one response. Its answers to a request for progress may overtake
//! events that are on their way (before 3.4.25 and 3.5.8), so they count as signs of life only; how far the
//! watch is, only an event says, and the mark is there to make one.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use etcd_client::{Event, EventType, KeyValue, WatchResponse, WatchStream};

use super::super::{Fault, Told};
use super::MARK_KEY;
use super::members::{Members, Turn};
use crate::record::{Record, Revision};

#[derive(Debug)]
pub(crate) struct Stream {
    members: Arc<Members>,
    turn: Turn,
    stream: Box<WatchStream>,
    prefix: Arc<str>,
    told: VecDeque<Told>,
}

impl Stream {
    pub(super) fn new(
        members: Arc<Members>,
        turn: Turn,
        stream: WatchStream,
        prefix: Arc<str>,
    ) -> Self {
        Self {
            members,
            turn,
            stream: Box::new(stream),
            prefix,
            told: VecDeque::new(),
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Told, Fault> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Ok(told);
            }
            match self.stream.message().await {
                Ok(Some(response)) => self.told = told(&self.prefix, &response)?,
                Ok(None) => {
                    self.members.silent(self.turn);
                    return Err(Fault::Unavailable("etcd ended the watch".to_owned()));
                }
                Err(error) => return Err(self.members.judge_stream(self.turn, &error)),
            }
        }
    }

    pub(crate) async fn ask(&mut self) -> Result<(), Fault> {
        let asked = self.stream.request_progress().await;
        asked.map_err(|error| self.members.judge_stream(self.turn, &error))
    }

    /// It says nothing any more, though it was asked.
    pub(crate) fn silent(&self) {
        self.members.silent(self.turn);
    }
}

fn told(prefix: &str, response: &WatchResponse) -> Result<VecDeque<Told>, Fault> {
    if response.compact_revision() > 0 {
        return Err(Fault::Compacted);
    }
    if response.canceled() {
        let reason = response.cancel_reason();
        return Err(Fault::Unavailable(format!(
            "etcd ended the watch: {reason}"
        )));
    }
    let mut revisions = VecDeque::new();
    for event in response.events() {
        add(&mut revisions, prefix, event);
    }
    let mut told: VecDeque<_> = revisions
        .into_iter()
        .map(
            |(revision, changes): (u64, Vec<_>)| match changes.is_empty() {
                true => Told::Progress(revision),
                false => Told::Changes { revision, changes },
            },
        )
        .collect();
    if told.is_empty() {
        told.push_back(Told::Alive);
    }
    Ok(told)
}

type Changes = Vec<(Arc<str>, Option<Record>)>;

/// Adds an event to its revision, which is the last one or a new one.
fn add(revisions: &mut VecDeque<(u64, Changes)>, prefix: &str, event: &Event) {
    let Some(pair) = event.kv() else {
        return;
    };
    let revision = u64::try_from(pair.mod_revision()).unwrap_or_default();
    if revisions.back().is_none_or(|(last, _)| *last != revision) {
        revisions.push_back((revision, Vec::new()));
    }
    let Some(key) = own_key(prefix, pair) else {
        return;
    };
    let record = match event.event_type() {
        EventType::Put => Some(record(Arc::clone(&key), pair)),
        EventType::Delete => None,
    };
    if let Some((_, changes)) = revisions.back_mut() {
        changes.push((key, record));
    }
}

/// The store's key; none for the mark, and for what is no text, which is not ours.
pub(super) fn own_key(prefix: &str, pair: &KeyValue) -> Option<Arc<str>> {
    let Ok(key) = pair.key_str() else {
        tracing::warn!("passed over a key under {prefix} that is no text");
        return None;
    };
    let key = key.strip_prefix(prefix)?;
    (key != MARK_KEY).then(|| key.into())
}

pub(super) fn record(key: Arc<str>, pair: &KeyValue) -> Record {
    let revision = |number: i64| Revision(u64::try_from(number).unwrap_or_default());
    Record {
        key,
        value: Bytes::copy_from_slice(pair.value()),
        created: revision(pair.create_revision()),
        modified: revision(pair.mod_revision()),
    }
}
