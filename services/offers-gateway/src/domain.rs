//! What the gateway decides, pure: no clock, no randomness, no I/O, no wire types.
//!
//! In reading order: [`offer`] (what is offered) and [`id`] (what it is called); [`intake`] and
//! [`builder`] (rows become a [`snapshot`]); [`csv`], [`skypilot`], [`gcp`], [`gpu_info`] and
//! [`gpuhunt`] (how files are read); [`query`] and [`selection`] (what answers a question, and in
//! which order), [`group`]; [`outcome`] (what launches have taught); [`breaker`] (when a backend
//! is asked again).

pub mod arch;
pub mod archive;
pub mod backend;
pub mod breaker;
pub mod builder;
pub mod csv;
pub mod diff;
pub mod gcp;
pub mod gpu_info;
pub mod group;
pub mod id;
pub mod intake;
pub mod market;
pub mod number;
pub mod offer;
pub mod outcome;
pub mod query;
pub mod report;
pub mod selection;
pub mod skypilot;
pub mod snapshot;
