//! The worker-agent: `worker_agent` as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args
        .next()
        .is_some_and(|word| word == worker_agent::supervisor::SUBCOMMAND)
    {
        return worker_agent::supervisor::main(args);
    }
    ExitCode::from(2)
}
