//! The program `worker-agent`, and, behind a hidden subcommand, the supervisor of each replica.

use std::process::ExitCode;

use worker_agent::supervisor;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args
        .next()
        .is_some_and(|word| word == supervisor::SUBCOMMAND)
    {
        return supervisor::main(args);
    }
    worker_agent::main()
}
