//! Every component and the command line in one program, by the name that it is
//! started under: what the end-to-end tests start, so that it is always what was
//! built with them.

use std::process::ExitCode;

fn main() -> ExitCode {
    muster::main()
}
