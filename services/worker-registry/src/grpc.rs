//! The contract on the wire. Handlers parse, call the registry once and render; what is allowed and what
//! comes of it is decided elsewhere.

mod access;
mod agents;
pub(crate) mod convert;
mod events;
mod failure;
mod filter;
mod operators;
mod owners;
mod peer;
mod readers;
mod service;
mod tokens;

pub(crate) use access::{AgentVerifier, METHODS};
pub(crate) use peer::Peers;
pub(crate) use service::Workers;
