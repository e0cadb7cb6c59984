//! The `replica-manager` package: laid out, filled by the commits that follow.
