//! Which resources a watcher sees. It decides by the resource alone, never by the watcher's past.

use std::fmt;

type Test<T> = Box<dyn Fn(&T) -> bool + Send + Sync>;

/// What a watcher asked to see.
///
/// Facts that are in memory only are tested apart ([`Filter::observed`]), since no history says
/// how they were: a watcher whose filter looks at them may be told that a resource has left its
/// filter which it had not been shown. It is never left with one that it should not have.
pub struct Filter<T> {
    prefix: String,
    durable: Option<Test<T>>,
    observed: Option<Test<T>>,
}

impl<T> Filter<T> {
    /// Everything.
    pub fn all() -> Self {
        Self {
            prefix: String::new(),
            durable: None,
            observed: None,
        }
    }

    /// Only keys that begin with `prefix`: cheaper than a test, since the current state is not
    /// searched but looked up.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Only resources of which `test` holds. It must look at nothing but durable facts.
    pub fn durable(mut self, test: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.durable = Some(Box::new(test));
        self
    }

    /// Only resources of whose in-memory facts `test` holds.
    pub fn observed(mut self, test: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.observed = Some(Box::new(test));
        self
    }

    pub(super) fn key_prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn covers(&self, key: &str) -> bool {
        key.starts_with(&self.prefix)
    }

    /// Whether the durable facts of a resource, whose key is covered, meet the filter.
    pub(super) fn may_see(&self, resource: &T) -> bool {
        self.durable.as_ref().is_none_or(|test| test(resource))
    }

    /// Whether a resource, whose key is covered, is seen.
    pub(super) fn sees(&self, resource: &T) -> bool {
        self.may_see(resource) && self.observed.as_ref().is_none_or(|test| test(resource))
    }
}

impl<T> fmt::Debug for Filter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("prefix", &self.prefix)
            .field("durable", &self.durable.is_some())
            .field("observed", &self.observed.is_some())
            .finish()
    }
}
