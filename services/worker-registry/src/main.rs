//! The program.

fn main() -> std::process::ExitCode {
    worker_registry::main()
}
