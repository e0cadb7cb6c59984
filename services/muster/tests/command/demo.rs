//! The demo as it is interrupted: nothing that it began is left.

use std::{fs, path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(120);

/// Whether any process was started with a path in this folder.
fn is_in_use(folder: &Path) -> bool {
    let folder = folder.to_string_lossy();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut words = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    words.any(|words| String::from_utf8_lossy(&words).contains(&*folder))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_it_leaves_neither_processes_nor_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_muster"))
        .arg("demo")
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let told = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("HEALTHY, 3 of 3 ready") {
                return;
            }
        }
        panic!("the demo has ended before it had a service");
    };
    timeout(PATIENCE, told).await.unwrap();
    assert!(is_in_use(folder.path()));

    let pid = Pid::from_raw(demo.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    // It goes on telling until it ends.
    let rest = async { while let Some(_line) = lines.next_line().await.unwrap() {} };
    let (status, ()) = timeout(PATIENCE, async { tokio::join!(demo.wait(), rest) })
        .await
        .unwrap();
    assert_eq!(status.unwrap().code(), Some(130));
    assert!(!is_in_use(folder.path()), "something runs on");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
