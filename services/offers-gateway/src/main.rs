//! The program.

fn main() -> std::process::ExitCode {
    muster_runtime::process::main::<offers_gateway::Gateway>()
}
