//! The program: laid out, filled by the commits that follow.

fn main() {}
