//! The program.

fn main() -> std::process::ExitCode {
    replica_manager::main()
}
