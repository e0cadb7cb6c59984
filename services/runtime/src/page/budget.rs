//! When a page or a watch message is full. It counts; it never holds an item.

use super::MAX_BYTES;

/// Bytes that a message spends on an item besides the item's own: its tag and its length.
const ITEM_OVERHEAD: usize = 6;

/// What is left of a page.
#[derive(Debug, Clone)]
pub struct Budget {
    items: usize,
    bytes: usize,
    empty: bool,
}

impl Budget {
    /// A page of at most `items` (at least 1) and [`MAX_BYTES`].
    pub fn new(items: usize) -> Self {
        Self::with_bytes(items, MAX_BYTES)
    }

    /// A page of at most `items` (at least 1) and `bytes`.
    pub fn with_bytes(items: usize, bytes: usize) -> Self {
        Self {
            items: items.max(1),
            bytes,
            empty: true,
        }
    }

    /// Whether one more item, of so many encoded bytes, belongs to the page. The first always
    /// does. After `false` the page is full.
    pub fn admit(&mut self, encoded_len: usize) -> bool {
        let size = encoded_len.saturating_add(ITEM_OVERHEAD);
        let fits = self.items > 0 && (self.empty || size <= self.bytes);
        if fits {
            self.items -= 1;
            self.bytes = self.bytes.saturating_sub(size);
            self.empty = false;
        } else {
            self.items = 0;
        }
        fits
    }

    /// Whether the page has its count of items already.
    pub fn is_full(&self) -> bool {
        self.items == 0
    }
}

/// The first page of `items`: as many as `size` and [`MAX_BYTES`] allow, and whether any is left.
/// `encoded_len` is asked once for each item.
pub fn cut<T>(
    items: impl IntoIterator<Item = T>,
    size: usize,
    mut encoded_len: impl FnMut(&T) -> usize,
) -> (Vec<T>, bool) {
    let mut budget = Budget::new(size);
    let mut page = Vec::new();
    for item in items {
        if budget.is_full() || !budget.admit(encoded_len(&item)) {
            return (page, true);
        }
        page.push(item);
    }
    (page, false)
}
