//! The replicas' processes as the machine knows them, whatever anybody says of them.

use std::{collections::BTreeMap, fs, path::Path};

/// The process of a replica.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) pid: i32,
    /// Its supervisor, if that is its parent.
    pub(super) supervisor: Option<i32>,
    pub(super) attempt: String,
    /// What its version of the spec is known by.
    pub(super) tag: String,
}

/// The variable that says of which version a replica is.
pub(super) const TAG: &str = "TAG";

/// The processes of all witnesses in a folder.
pub(super) fn running(folder: &Path) -> Vec<Running> {
    let folder = folder.to_string_lossy();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| witness(&entry.path(), &folder))
        .collect()
}

fn witness(process: &Path, folder: &str) -> Option<Running> {
    let words = fs::read(process.join("cmdline")).ok()?;
    if !String::from_utf8_lossy(&words).contains(folder) {
        return None;
    }
    let environment = fs::read(process.join("environ")).ok()?;
    let environment = String::from_utf8_lossy(&environment);
    let variables: BTreeMap<_, _> = environment
        .split('\0')
        .filter_map(|variable| variable.split_once('='))
        .collect();
    let attempt = variables.get("MUSTER_ATTEMPT")?;
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let pid: i32 = stat.split(' ').next()?.parse().ok()?;
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
    let state = rest.next()?;
    let parent = rest.next()?.parse().ok()?;
    let supervisor = fs::read(format!("/proc/{parent}/cmdline")).is_ok_and(|words| {
        let words = String::from_utf8_lossy(&words).into_owned();
        words.contains("\0supervise\0run\0") && words.contains(folder)
    });
    let group: i32 = rest.next()?.parse().ok()?;
    // What it forks is for a moment like itself.
    (state != "Z" && state != "X" && group == pid).then(|| Running {
        pid,
        supervisor: supervisor.then_some(parent),
        attempt: (*attempt).to_owned(),
        tag: variables.get(TAG).copied().unwrap_or_default().to_owned(),
    })
}
