//! The program.

fn main() -> std::process::ExitCode {
    offers_gateway::main()
}
