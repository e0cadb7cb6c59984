//! Which services to plan, and when. A wake-up carries no data: it says only that a service is to be
//! looked at. A service that nothing happens to costs nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::time::Time;
use crate::state::view::Uid;

/// The services that are to be planned. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wakes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    dirty: BTreeSet<Uid>,
    timers: BTreeSet<(Time, Uid)>,
    due: HashMap<Uid, Time>,
}

/// What a loop finds when it looks.
#[derive(Debug)]
pub(crate) struct Due {
    /// To be planned now.
    pub(crate) now: Vec<Uid>,
    /// When the next timer ends.
    pub(crate) next: Option<Time>,
}

impl Wakes {
    /// This service is to be planned.
    pub(crate) fn wake(&self, uid: &Uid) {
        if self.lock().dirty.insert(Arc::clone(uid)) {
            self.0.bell.notify_one();
        }
    }

    pub(crate) fn wake_all(&self, uids: impl IntoIterator<Item = Uid>) {
        self.lock().dirty.extend(uids);
        self.0.bell.notify_one();
    }

    /// These services are to be planned, and nothing of what was wished before.
    pub(crate) fn restart(&self, uids: impl IntoIterator<Item = Uid>) {
        *self.lock() = Inner {
            dirty: uids.into_iter().collect(),
            ..Inner::default()
        };
        self.0.bell.notify_one();
    }

    /// This service is to be planned again at that time, and not because of an earlier wish.
    pub(crate) fn set(&self, uid: &Uid, at: Option<Time>) {
        let mut inner = self.lock();
        let before = match at {
            Some(at) => inner.due.insert(Arc::clone(uid), at),
            None => inner.due.remove(uid),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            inner.timers.remove(&(before, Arc::clone(uid)));
        }
        if let Some(at) = at {
            let earliest = inner.timers.first().is_none_or(|(first, _)| at < *first);
            inner.timers.insert((at, Arc::clone(uid)));
            if earliest {
                self.0.bell.notify_one();
            }
        }
    }

    /// Takes what is to be planned by now.
    pub(crate) fn take(&self, now: Time) -> Due {
        let mut inner = self.lock();
        let mut taken = std::mem::take(&mut inner.dirty);
        while let Some((at, uid)) = inner.timers.first().cloned() {
            if at > now {
                break;
            }
            inner.timers.pop_first();
            inner.due.remove(&uid);
            taken.insert(uid);
        }
        Due {
            now: taken.into_iter().collect(),
            next: inner.timers.first().map(|(at, _)| *at),
        }
    }

    /// Resolves once something was added, or an earlier timer set.
    pub(crate) async fn rung(&self) {
        self.0.bell.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: u64) -> Time {
        Time::default() + Duration::from_secs(second)
    }

    fn names(due: &Due) -> Vec<&str> {
        due.now.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn a_later_wish_replaces_an_earlier_one() {
        let (wakes, a, b) = (Wakes::default(), Uid::from("a"), Uid::from("b"));
        wakes.set(&a, Some(at(5)));
        wakes.set(&a, Some(at(9)));
        wakes.set(&b, Some(at(7)));
        let due = wakes.take(at(6));
        assert_eq!(names(&due), Vec::<&str>::new());
        assert_eq!(due.next, Some(at(7)));
        wakes.set(&b, None);
        let due = wakes.take(at(9));
        assert_eq!(names(&due), ["a"]);
        assert_eq!(due.next, None);
    }

    #[test]
    fn a_restart_forgets_earlier_wishes() {
        let (wakes, a, b) = (Wakes::default(), Uid::from("a"), Uid::from("b"));
        wakes.wake(&a);
        wakes.set(&a, Some(at(5)));
        wakes.restart([Arc::clone(&b)]);
        let due = wakes.take(at(9));
        assert_eq!(names(&due), ["b"]);
        assert_eq!(due.next, None);
        wakes.set(&a, Some(at(5)));
        assert_eq!(names(&wakes.take(at(9))), ["a"]);
    }

    #[test]
    fn a_service_is_taken_once_however_often_it_was_woken() {
        let (wakes, a) = (Wakes::default(), Uid::from("a"));
        wakes.wake(&a);
        wakes.wake(&a);
        wakes.set(&a, Some(at(1)));
        assert_eq!(names(&wakes.take(at(1))), ["a"]);
        assert!(wakes.take(at(1)).now.is_empty());
    }
}
