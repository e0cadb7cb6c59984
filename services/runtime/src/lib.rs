//! The `runtime` package: laid out, filled by the commits that follow.

pub mod backoff;
mod check;
pub mod deadline;
pub mod page;
pub mod resume;
pub mod status;
pub mod watch;
