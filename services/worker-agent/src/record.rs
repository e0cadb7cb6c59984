//! What the agent keeps of an attempt in the attempt's folder, so that its next process finds it
//! again: the assignment as it came, the ports it got, how ready it was, and whether anyone still
//! has to hear of it. It decides nothing.

use std::fs;
use std::io;
use std::time::SystemTime;

use muster_proto::replicas::v1::Assignment;
use prost::Message as _;

use crate::attempt_dir::AttemptDir;
use crate::domain::attempt::Readiness;
use crate::files::{self, Durability};
use crate::plan::Port;

/// Keeps the assignment; on disk when it returns.
pub fn set_assignment(dir: &AttemptDir, assignment: &Assignment) -> io::Result<()> {
    files::replace(
        &dir.path().join("assignment.pb"),
        &assignment.encode_to_vec(),
        Durability::Disk,
    )
}

/// The assignment; nothing if there is none.
pub fn assignment(dir: &AttemptDir) -> io::Result<Option<Assignment>> {
    let Some(bytes) = files::read(&dir.path().join("assignment.pb"))? else {
        return Ok(None);
    };
    Assignment::decode(bytes.as_slice())
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Keeps the ports.
pub fn set_ports(dir: &AttemptDir, ports: &[Port]) -> io::Result<()> {
    files::replace_json(&dir.path().join("ports.json"), &ports, Durability::Kernel)
}

/// The ports; none if they cannot be read.
pub fn ports(dir: &AttemptDir) -> Vec<Port> {
    files::read_json(&dir.path().join("ports.json"))
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// Keeps how ready it is.
pub fn set_readiness(dir: &AttemptDir, readiness: &Readiness) -> io::Result<()> {
    files::replace_json(
        &dir.path().join("ready.json"),
        readiness,
        Durability::Kernel,
    )
}

/// How ready it was; nothing if it never was.
pub fn readiness(dir: &AttemptDir) -> Option<Readiness> {
    files::read_json(&dir.path().join("ready.json"))
        .ok()
        .flatten()
}

/// Notes that nobody has to hear of it any more: from now on it is only its output.
pub fn set_forgotten(dir: &AttemptDir) -> io::Result<()> {
    fs::write(dir.path().join("forgotten"), b"")
}

/// Since when it is only its output; absent while anyone has to hear of it.
pub fn forgotten_time(dir: &AttemptDir) -> Option<SystemTime> {
    let marked = fs::metadata(dir.path().join("forgotten"));
    marked.and_then(|mark| mark.modified()).ok()
}
