//! Where a workload goes, and why it goes nowhere.
//!
//! It decides which worker takes an allocation: by fit, so that large groups of accelerators stay whole,
//! and by spread. It takes no room and writes nothing.

mod ask;
mod index;
mod refusal;
mod search;

pub use ask::{Ask, Taken};
pub use index::Index;
pub use refusal::{Refusal, Survey, summary};
pub use search::{Site, find};

#[cfg(test)]
mod tests;
