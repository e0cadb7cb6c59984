//! What decides: specs, failure policy, states, statuses and the planner. Pure: no clock, randomness,
//! I/O, and no word of the wire or the store. `now` is always an argument.

pub mod endpoints;
pub mod events;
pub mod failure;
mod hash;
pub mod plan;
pub mod replica;
pub mod rollout;
pub mod scaling;
pub mod service;
pub mod spec;
pub mod status;
pub mod time;
pub mod world;
