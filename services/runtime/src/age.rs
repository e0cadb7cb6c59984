//! How old what is read here is, where a component has lost touch with its store: answers carry it, so
//! that nobody takes what was for what is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header of an answer that may be out of date: for how many seconds.
pub const AGE: HeaderName = HeaderName::from_static("muster-age");

/// Nothing while reads show what is. Cheap to clone; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Age(Arc<AtomicU64>);

impl Age {
    /// Reads show what was `age` ago.
    pub fn set(&self, age: Duration) {
        // Below a second it still counts as out of date.
        let seconds = match age.is_zero() {
            true => 0,
            false => age.as_secs().max(1),
        };
        self.0.store(seconds, Ordering::Relaxed);
    }

    /// Says it in an answer, if there is something to say.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let seconds = self.0.load(Ordering::Relaxed);
        if seconds > 0 {
            headers.insert(AGE, HeaderValue::from(seconds));
        }
    }
}
