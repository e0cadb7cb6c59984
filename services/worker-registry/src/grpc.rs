//! The contract on the wire. Handlers parse, call the registry once and render; what is allowed and what
//! comes of it is decided elsewhere.

mod access;
pub(crate) mod convert;
mod events;
mod failure;
mod filter;
mod heartbeat;
mod operators;
mod owners;
mod peer;
pub(crate) mod peers;
mod readers;
pub(crate) mod refusals;
mod register;
mod service;
mod tokens;
pub(crate) mod wire;

pub(crate) use access::{AgentVerifier, METHODS};
pub(crate) use peer::Peers;
pub(crate) use service::Workers;

/// The handlers, for tests that need no wire.
#[cfg(test)]
pub(crate) mod calls {
    pub(crate) use super::heartbeat::heartbeat;
    pub(crate) use super::operators::{delete, disable, drain, enable, resume};
    pub(crate) use super::owners::{allocate, batch_allocate, release};
    pub(crate) use super::register::{activate, register};
}
