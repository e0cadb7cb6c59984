//! End-to-end tests: laid out, filled by the commits that follow.
