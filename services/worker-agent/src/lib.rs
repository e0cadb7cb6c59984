//! The `worker-agent` package: laid out, filled by the commits that follow.
