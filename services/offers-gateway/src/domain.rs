//! What the gateway decides, pure: no clock, no randomness, no I/O, no wire types.
//!
//! In reading order: [`offer`] (what is offered) and [`id`] (what it is called); [`intake`] and
//! [`builder`] (rows become a [`snapshot`]); [`csv`], [`skypilot`], [`gcp`], [`gpu_info`] and
//! [`gpuhunt`] (how files are read); [`json`], [`rows`] and a file for each provider (how answers of
//! live APIs are read); [`fleet`] (what of our own is idle); [`query`] and [`selection`] (what
//! answers a question, and in which order), [`group`]; [`outcome`] (what launches have taught); [`breaker`] (when a backend
//! is asked again).

pub mod arch;
pub mod archive;
pub mod backend;
pub mod breaker;
pub mod builder;
pub mod csv;
pub mod diff;
pub mod digitalocean;
pub mod excerpt;
pub mod fleet;
pub mod gcp;
pub mod gpu_info;
pub mod gpuhunt;
pub mod group;
pub mod id;
pub mod intake;
pub mod json;
pub mod lambda;
pub mod market;
pub mod number;
pub mod offer;
pub mod outcome;
pub mod query;
pub mod report;
pub mod retry_after;
pub mod rows;
pub mod runpod;
pub mod selection;
pub mod skypilot;
pub mod snapshot;
pub mod vastai;
pub mod vultr;
