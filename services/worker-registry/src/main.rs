//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    muster_runtime::process::main::<worker_registry::WorkerRegistry>()
}
