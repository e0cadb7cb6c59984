//! Each decision in the cases that matter; what holds over all of them is tested by the model.

mod allocations;
mod drains;
mod joining;
mod restored;
