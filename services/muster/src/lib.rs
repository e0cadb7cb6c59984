//! The `muster` package: laid out, filled by the commits that follow.
