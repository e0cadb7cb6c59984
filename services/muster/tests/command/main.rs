//! `muster` as a process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backup;
mod demo;
mod offers;
mod output;
mod probe;
mod said;
mod services;
