//! What is durable: the records, how they are kept in the store, and the view of them in memory, which is
//! a fold over what the store says has become durable.

pub(crate) mod hubs;
pub(crate) mod keys;
pub(crate) mod record;
pub(crate) mod view;
