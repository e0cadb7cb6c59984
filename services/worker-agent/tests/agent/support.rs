//! What stands beside the agent in its tests.

pub(crate) mod driver;
pub(crate) mod engine;
pub(crate) mod fleet;
