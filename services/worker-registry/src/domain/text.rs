//! Short texts that many records share: names, actors, reasons. Cloning one copies no bytes.

use std::sync::Arc;

/// A shared, immutable text.
pub type Text = Arc<str>;

/// Who acts when no person, agent or owner did.
pub const SYSTEM: &str = "system";
