//! What the worker-registry decides, without a network, a clock, randomness or a disk.
//!
//! In reading order: [`state`] (the table of states), [`worker`], [`gpus`], [`machine`], [`allocation`], [`drain`]
//! and [`token`] (the records), [`room`] (what is free on a worker), [`fleet`] (all records),
//! [`placement`] (where an allocation goes), [`book`] (what decisions look at), [`decide`] (one decision
//! for each call), [`liveness`] (who is there) and [`event`] (what is told of it).

pub mod allocation;
pub mod book;
pub mod common;
pub mod decide;
pub mod drain;
pub mod event;
pub mod fleet;
pub mod gpus;
pub mod liveness;
pub mod machine;
pub mod placement;
pub mod room;
mod sorted;
pub mod state;
pub mod text;
pub mod token;
pub mod worker;

#[cfg(test)]
pub(crate) mod fixture;
