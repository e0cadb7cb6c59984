//! The agent on the wire: what it serves, and how the contract's messages become the domain's words
//! and back.

pub(crate) mod agents;
pub mod convert;
