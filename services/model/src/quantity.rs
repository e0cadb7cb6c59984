//! Amounts as people write them: parsed exactly, printed so that they parse to the same, and
//! printed short for people (`human`). No amount is ever guessed: one without a unit is refused
//! where a unit matters.

pub mod cpu;
mod decimal;
pub mod duration;
pub mod memory;
pub mod money;

pub use money::MicroUsd;
