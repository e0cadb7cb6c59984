//! Which program this is, by the name that it is called by: every component, the
//! agent and the probe are in this one, so that an image needs one program and
//! links to it. Decides nothing else.

use std::{ffi::OsStr, path::Path, process::ExitCode};

use crate::probe;

/// A program that this one can be.
type Program = fn() -> ExitCode;

/// Every program beside the command line itself.
const PROGRAMS: [(&str, Program); 5] = [
    ("offers-gateway", offers_gateway::main),
    ("worker-registry", worker_registry::main),
    ("replica-manager", replica_manager::main),
    ("worker-agent", worker_agent::main),
    (probe::NAME, probe::program),
];

/// The program of that name or path; `None` for the command line.
pub(crate) fn program(called: &OsStr) -> Option<Program> {
    let name = Path::new(called).file_name()?;
    let mut programs = PROGRAMS.iter();
    let found = programs.find(|(known, _)| name == *known);
    found.map(|(_, program)| *program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_its_name_or_path() {
        for (name, _) in PROGRAMS {
            assert!(program(OsStr::new(name)).is_some(), "{name}");
            let path = format!("/usr/local/bin/{name}");
            assert!(program(OsStr::new(&path)).is_some(), "{path}");
        }
        for name in ["muster", "", "/", "offers-gateway/muster", "worker"] {
            assert!(program(OsStr::new(name)).is_none(), "{name}");
        }
    }
}
