//! The `worker-registry` package: laid out, filled by the commits that follow.
