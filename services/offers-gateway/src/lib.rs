//! offers-gateway: what machines could be had, where, at what price, and how sure we are.
//!
//! It answers from snapshots that tasks of their own keep fresh, one per backend, so that no
//! backend can slow, blind or mislead it: what a backend does costs the caller at most that
//! backend's offers, and the caller is told. It launches nothing.
//!
//! In reading order: [`domain`] decides; [`spec`] and [`config`] say which backends there are;
//! [`source`] asks one; [`refresher`] keeps one fresh and [`keeper`] keeps its offers on disk;
//! [`roster`] runs them, and [`reload`] changes which; [`board`] is the state they share, with its [`history`]; [`outcomes`] keeps what launches have
//! taught, [`metrics`] what is counted; [`gather`], [`pages`] and [`grpc`] answer calls.

pub mod board;
pub mod builtin;
pub mod config;
pub mod domain;
pub mod gather;
pub mod grpc;
pub mod history;
pub mod keeper;
pub mod metrics;
pub mod outcomes;
pub mod pages;
pub mod refresher;
pub mod reload;
pub mod roster;
mod serve;
pub mod source;
pub mod spec;

pub use config::Config;
pub use serve::{Gateway, main, serve};
