//! The replica-manager's program.

use std::process::ExitCode;

use muster_runtime::process;
use replica_manager::ReplicaManager;

fn main() -> ExitCode {
    process::main::<ReplicaManager>()
}
