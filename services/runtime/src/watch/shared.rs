//! One state of a resource, shared by all that are told of it, together with its encoding, which
//! is made by the first that needs it.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::Resource;

/// A resource as a hub's state holds it: with its size, and without an encoding, which would
/// outlive its use.
pub(super) struct Held<T> {
    resource: Arc<T>,
    size: usize,
}

impl<T: Resource> Held<T> {
    pub(super) fn new(resource: Arc<T>) -> Self {
        let size = resource.encoded_len();
        Self { resource, size }
    }
}

impl<T> Held<T> {
    pub(super) fn resource(&self) -> &T {
        &self.resource
    }

    /// The resource, shared.
    pub(super) fn handle(&self) -> Arc<T> {
        Arc::clone(&self.resource)
    }

    /// To be told in one event.
    pub(super) fn share(self) -> Shared<T> {
        let Self { resource, size } = self;
        Shared(Arc::new(Inner {
            resource,
            size,
            encoded: OnceLock::new(),
        }))
    }
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self {
            resource: Arc::clone(&self.resource),
            size: self.size,
        }
    }
}

/// One state of a resource, as one event tells it. Clones share it.
pub struct Shared<T>(Arc<Inner<T>>);

struct Inner<T> {
    resource: Arc<T>,
    size: usize,
    /// The event as it goes on the wire; empty if it is not told.
    encoded: OnceLock<Bytes>,
}

impl<T> Shared<T> {
    pub(super) fn size(&self) -> usize {
        self.0.size
    }

    /// The encoded event; `encode` is called by the first of all watchers.
    pub(super) fn encoded(&self, encode: impl FnOnce() -> Bytes) -> Bytes {
        self.0.encoded.get_or_init(encode).clone()
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.resource
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
