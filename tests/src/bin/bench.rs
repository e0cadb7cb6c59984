//! The bench program: `bench NAME [--json] [--smoke]`. As a child of itself, it is one of the
//! components that it measures.

use std::process::ExitCode;

use muster_tests::bench;

fn main() -> ExitCode {
    bench::component::main_if_child().unwrap_or_else(bench::program::main)
}
