//! The contract's generated Rust: laid out, filled by the commits that follow.
