//! A manager under test: the real one on port 0 over a store of the test's, with a registry and agents
//! that are played.

pub(crate) mod agent;
pub(crate) mod registry;
pub(crate) mod sandbox;
pub(crate) mod several;
