//! Every component and the command line in one program, by the name that it is
//! started under: what the end-to-end tests start, so that it is always what was
//! built with them.

use std::{ffi::OsStr, path::PathBuf, process::ExitCode};

use muster_runtime::process;
use worker_agent::supervisor;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let name = PathBuf::from(words.next().unwrap_or_default());
    if words
        .next()
        .is_some_and(|word| word == supervisor::SUBCOMMAND)
    {
        return supervisor::main(words);
    }
    match name.file_name().and_then(OsStr::to_str) {
        Some("offers-gateway") => process::main::<offers_gateway::Gateway>(),
        Some("worker-registry") => process::main::<worker_registry::WorkerRegistry>(),
        Some("replica-manager") => process::main::<replica_manager::ReplicaManager>(),
        Some("worker-agent") => process::main::<worker_agent::Program>(),
        Some("muster") => muster::main(),
        _ => ExitCode::from(2),
    }
}
