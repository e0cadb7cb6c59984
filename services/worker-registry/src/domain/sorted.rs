//! Records by their text: found by hash, walked in order. A tree alone would compare some twenty texts, each
//! somewhere else in memory, to find one of a hundred thousand.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use super::text::Text;

/// Values by text.
#[derive(Clone, Debug)]
pub(super) struct Sorted<V> {
    // Callers choose the keys, so the hash has to be one that they cannot foresee.
    values: HashMap<Text, V>,
    /// The same keys.
    order: BTreeSet<Text>,
}

impl<V> Sorted<V> {
    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&V> {
        self.values.get(key)
    }

    /// The value of a key, to be changed.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        self.values.get_mut(key)
    }

    /// Puts a value; answers the one that was there.
    pub(super) fn insert(&mut self, key: &Text, value: V) -> Option<V> {
        let before = self.values.insert(Text::clone(key), value);
        if before.is_none() {
            self.order.insert(Text::clone(key));
        }
        before
    }

    /// Removes a value; answers it.
    pub(super) fn remove(&mut self, key: &str) -> Option<V> {
        let gone = self.values.remove(key)?;
        self.order.remove(key);
        Some(gone)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// All, in order of key.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.order.iter().filter_map(|key| self.values.get(key))
    }

    /// Those after a key, in order.
    pub(super) fn after(&self, key: &str) -> impl Iterator<Item = &V> {
        let after = (Bound::Excluded(key), Bound::Unbounded);
        let keys = self.order.range::<str, _>(after);
        keys.filter_map(|key| self.values.get(key))
    }
}

impl<V> Default for Sorted<V> {
    fn default() -> Self {
        Self {
            values: HashMap::new(),
            order: BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::proptest;

    use super::*;

    proptest! {
        /// It does what a tree does.
        #[test]
        fn it_is_a_map_in_order(steps in vec((0_u8..30, proptest::option::of(0_u32..9)), 0..200)) {
            let mut sorted = Sorted::default();
            let mut tree = BTreeMap::new();
            for (key, value) in steps {
                let key = Text::from(key.to_string());
                let (left, right) = match value {
                    Some(value) => (sorted.insert(&key, value), tree.insert(key.clone(), value)),
                    None => (sorted.remove(&key), tree.remove(&key)),
                };
                assert_eq!(left, right);
                assert_eq!(sorted.get(&key), tree.get(&key));
                assert_eq!(sorted.len(), tree.len());
                assert!(sorted.values().eq(tree.values()));
                let after = (Bound::Excluded(&key), Bound::Unbounded);
                let later = tree.range::<Text, _>(after).map(|(_, value)| value);
                assert!(sorted.after(&key).eq(later));
            }
        }
    }
}
