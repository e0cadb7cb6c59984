//! Logs and traces of a process: where they go and what belongs to them. It decides nothing about
//! what is logged.

pub(crate) mod inbound;
