//! Short texts that many records share: names, actors, reasons. Cloning one copies no bytes.

use std::sync::Arc;

use super::common::Common;

/// A shared, immutable text.
pub type Text = Arc<str>;

/// Who acts when no person, agent or owner did.
pub const SYSTEM: &str = "system";

/// Each of them once, in order.
pub fn each_once(mut texts: Vec<Text>) -> Vec<Text> {
    texts.sort_unstable();
    texts.dedup();
    texts
}

/// A text that other records are likely to have as well: a zone, a version, nothing.
pub fn common(text: &str) -> Text {
    static TEXTS: Common<str> = Common::new();
    TEXTS.share(text)
}
