//! The `runtime` package: laid out, filled by the commits that follow.
