//! The hub behind every `WatchX` stream: it keeps the current state and a bounded history of one
//! kind of resource, and tells any number of watchers of each change.
//!
//! It decides what a watcher is sent and when a watcher is cut off. It never waits for a watcher:
//! each pulls from the shared history at its own pace, so a slow one costs nobody else anything
//! and holds no queue of its own. It never reads a store: whoever follows one publishes here.
//!
//! A handler asks [`Hub::watch`] and answers with [`respond`]: a change is then rendered and encoded
//! once, however many are told of it.
//!
//! What a watcher may rely on:
//! - first the current state at one revision, then `synced`, then every change, in order, once;
//! - all changes of a revision are in one message, or in consecutive ones of which only the last
//!   carries a resume token; a token is never older than the one before it;
//! - a token comes at least every 30 s; a watch resumed from it misses nothing and repeats nothing
//!   durable (the latest in-memory facts are sent again);
//! - a watcher that has been behind for too long is ended with RESOURCE_EXHAUSTED
//!   (WATCHER_TOO_SLOW) and may resume; one whose next change is no longer kept, with OUT_OF_RANGE
//!   (HISTORY_CHANGED) and has to list again; at shutdown all end UNAVAILABLE with RetryInfo.

mod bell;
mod common;
mod filter;
mod history;
mod hub;
mod observed;
mod packer;
mod seat;
mod shared;
mod snapshot;
mod subscription;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use tonic::Status;

pub use filter::Filter;
pub use hub::Hub;
pub use shared::Shared;
pub use wire::respond;
pub(crate) use wire::{hand_over, handed_over};

/// What a watch carries.
pub trait Resource: Send + Sync + 'static {
    /// The bytes that it takes in a message; about, and rather more than less.
    fn encoded_len(&self) -> usize;
}

impl<M: prost::Message + 'static> Resource for M {
    fn encoded_len(&self) -> usize {
        prost::Message::encoded_len(self)
    }
}

/// A durable change to publish: the resource under `key` is now `value`, or gone.
#[derive(Debug)]
pub struct Update<T> {
    /// Unique among the hub's resources, and the order of the current state.
    pub key: Arc<str>,
    /// The whole resource, or `None` when it was deleted.
    pub value: Option<Arc<T>>,
}

impl<T> Update<T> {
    /// The resource is now `value`.
    pub fn put(key: impl Into<Arc<str>>, value: impl Into<Arc<T>>) -> Self {
        Self {
            key: key.into(),
            value: Some(value.into()),
        }
    }

    /// The resource is gone.
    pub fn delete(key: impl Into<Arc<str>>) -> Self {
        Self {
            key: key.into(),
            value: None,
        }
    }
}

/// One change as a watcher is told it.
#[derive(Debug)]
pub enum Event<T> {
    /// The resource as it is now.
    Put(Shared<T>),
    /// The resource is gone, or has left the filter; its last state.
    Deleted(Shared<T>),
    /// The same resource with new in-memory facts, at no revision.
    Observed(Shared<T>),
}

impl<T> Event<T> {
    /// The resource that the event carries.
    pub fn resource(&self) -> &Shared<T> {
        match self {
            Self::Put(resource) | Self::Deleted(resource) | Self::Observed(resource) => resource,
        }
    }
}

impl<T> Clone for Event<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Put(resource) => Self::Put(resource.clone()),
            Self::Deleted(resource) => Self::Deleted(resource.clone()),
            Self::Observed(resource) => Self::Observed(resource.clone()),
        }
    }
}

/// One message of a watch, to be rendered as the service's `WatchXResponse`.
#[derive(Debug)]
pub struct Message<T> {
    /// At most [`Options::chunk`] changes; empty in a bookmark.
    pub changes: Vec<Event<T>>,
    /// Set once every change up to this position has been sent; else empty.
    pub resume_token: String,
    /// Whether the watcher has the whole current state.
    pub synced: bool,
}

/// A watch as a handler returns it, once mapped to its own response type.
pub type Messages<T> = BoxStream<'static, Result<Message<T>, Status>>;

/// The bounds of a hub.
#[derive(Debug, Clone)]
pub struct Options {
    /// Revisions kept for those that resume.
    pub history_revisions: usize,
    /// How long a revision is kept at most.
    pub history_age: Duration,
    /// Encoded bytes kept at most; the history of large resources is shorter.
    pub history_bytes: usize,
    /// Changes in one message at most.
    pub chunk: usize,
    /// A message with no change is sent after this long without a token.
    pub bookmark: Duration,
    /// How long a watcher that was up to date may be behind.
    pub max_lag: Duration,
    /// Watchers at most; more are refused with RESOURCE_EXHAUSTED.
    pub max_watchers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history_revisions: 100_000,
            history_age: Duration::from_secs(600),
            history_bytes: 64 << 20,
            chunk: 1_000,
            // The contract says 30 s at least; the rest is for the way.
            bookmark: Duration::from_secs(25),
            max_lag: Duration::from_secs(30),
            max_watchers: 200_000,
        }
    }
}
