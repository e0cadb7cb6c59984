//! What the agent decides, without a clock, a file or a network: how attempts live and end, what
//! is asked of whom, and until when.

pub mod lease;
