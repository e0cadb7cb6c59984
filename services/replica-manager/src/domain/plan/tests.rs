//! The planner against a scripted world under a virtual clock: every case of what must come out, and
//! properties that hold whatever happens.

mod clocks;
mod draining;
mod failing;
mod harness;
mod losing;
mod properties;
mod restoring;
mod retrying;
mod scaling;
mod showing;
mod updating;
