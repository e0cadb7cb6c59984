//! Values that many records have in common, held once: most workers of a fleet have the same accelerators,
//! labels and reasons.
//!
//! It decides nothing but what is held: equal values stay equal, however often they are shared.

use std::borrow::Borrow;
use std::hash::{BuildHasher as _, Hash};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxBuildHasher;

/// How many values are remembered. Each has one place, which it loses to the next that falls there, so
/// that whoever sends ever new values takes no more room than this.
const PLACES: usize = 1024;

/// The values that were shared lately.
pub struct Common<T: ?Sized>(Mutex<Vec<Option<Arc<T>>>>);

impl<T: ?Sized> Common<T> {
    /// None yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<T: ?Sized> Default for Common<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: ?Sized + Eq + Hash> Common<T> {
    /// The value as others hold it, if it was shared lately; else as others will.
    pub fn share<V: Borrow<T> + Into<Arc<T>>>(&self, value: V) -> Arc<T> {
        let hash = FxBuildHasher.hash_one(value.borrow());
        // The remainder is below `PLACES`, which a usize holds.
        let place = usize::try_from(hash % PLACES as u64).unwrap_or(0);
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if places.is_empty() {
            places.resize(PLACES, None);
        }
        let known = &mut places[place];
        if let Some(known) = known
            && **known == *value.borrow()
        {
            return Arc::clone(known);
        }
        let shared = value.into();
        *known = Some(Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_held_once_and_others_apart() {
        let common = Common::<str>::new();
        let (one, two) = (common.share("eu-1"), common.share("eu-1"));
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(&*common.share("eu-2"), "eu-2");
        assert_eq!(&*one, "eu-1");
    }

    #[test]
    fn ever_new_values_take_no_more_room_and_stay_what_they_are() {
        let common = Common::<str>::new();
        for number in 0..10 * PLACES {
            let text = number.to_string();
            assert_eq!(&*common.share(text.as_str()), text);
        }
        let places = common.0.lock().unwrap();
        assert!(places.len() == PLACES && places.iter().flatten().count() > PLACES / 2);
    }
}
