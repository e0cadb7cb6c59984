//! A process that writes is killed at random instants: what it was told is written is there, whole.
//! And one whose file may not grow any more: it says so, and what it was told is there too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test stops at the first fault"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use muster_store::{Error, HistoryLimits, Options, Outcome, Store, Transaction};
use tokio::task::JoinSet;

/// Names the store's file to the child, which is this same program.
const CHILD: &str = "MUSTER_STORE_CRASH_CHILD";

const WRITERS: u64 = 16;

fn rounds() -> u64 {
    let soak = std::env::var("MUSTER_SOAK").is_ok_and(|value| value == "1");
    if soak { 200 } else { 8 }
}

/// The child: writers that put their number into three keys at once, and say what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(path) = std::env::var(CHILD) else {
        return;
    };
    let store = Store::embedded(path, Options::default()).unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(store.clone(), writer));
    }
    let error = writers.join_next().await.unwrap().unwrap();
    say(&format!("error {error}"));
    assert_eq!(Error::Failed(store.failed().await), error);
}

async fn write(store: Store, writer: u64) -> Error {
    let mut number = numbers(&store, writer).await.unwrap();
    loop {
        number += 1;
        let value = format!(
            "{number}:{}",
            "x".repeat(usize::try_from(number * writer % 2_000).unwrap())
        );
        let mut transaction = Transaction::new();
        for part in ["a", "m", "z"] {
            transaction = transaction.put(format!("{part}/{writer}"), value.clone());
        }
        match store.commit(transaction).await {
            Ok(Outcome::Committed(revision)) => say(&format!("ack {writer} {number} {revision}")),
            Ok(conflict) => panic!("{conflict:?}"),
            Err(error) => return error,
        }
    }
}

/// One write a line, so that a line is there whole or not at all.
fn say(line: &str) {
    std::io::stdout()
        .write_all(format!("\n{line}\n").as_bytes())
        .unwrap();
}

/// The number in the three keys of a writer, which must be the same; 0 if they are not there.
async fn numbers(store: &Store, writer: u64) -> Result<u64, Error> {
    let mut found = Vec::new();
    for part in ["a", "m", "z"] {
        let record = store.get(&format!("{part}/{writer}")).await?;
        let number = record.map_or(0, |record| {
            let text = str::from_utf8(&record.value).unwrap();
            text.split_once(':').unwrap().0.parse().unwrap()
        });
        found.push(number);
    }
    assert!(
        found.iter().all(|number| *number == found[0]),
        "torn: {found:?}"
    );
    Ok(found[0])
}

/// Reads what a child says until its end, so that it never waits for us.
fn listen(child: &mut Child) -> JoinHandle<String> {
    let mut stdout = child.stdout.take().unwrap();
    thread::spawn(move || {
        let mut said = String::new();
        stdout.read_to_string(&mut said).unwrap();
        said
    })
}

/// What the children were told, over all rounds.
#[derive(Default)]
struct Told {
    numbers: BTreeMap<u64, u64>,
    revision: u64,
    error: Option<String>,
}

impl Told {
    fn hear(&mut self, said: &str) {
        // A line without its end was cut by the kill.
        let whole = said.rfind('\n').map_or("", |end| &said[..end]);
        for line in whole.lines() {
            if let Some(error) = line.strip_prefix("error ") {
                self.error = Some(error.to_owned());
            }
            let Some(acknowledged) = line.strip_prefix("ack ") else {
                continue;
            };
            let fields: Vec<u64> = acknowledged
                .split(' ')
                .map(|field| field.parse().unwrap())
                .collect();
            let last = self.numbers.insert(fields[0], fields[1]);
            assert!(
                last.is_none_or(|last| last < fields[1]),
                "it went back: {line}"
            );
            self.revision = self.revision.max(fields[2]);
        }
    }

    async fn check(&self, path: &Path) {
        let options = Options {
            history: HistoryLimits::default(),
            ..Options::default()
        };
        let store = Store::embedded(path, options).unwrap();
        assert!(
            store.revision().await.unwrap().0 > self.revision,
            "revisions went back"
        );
        for writer in 0..WRITERS {
            let number = numbers(&store, writer).await.unwrap();
            let told = self.numbers.get(&writer).copied().unwrap_or(0);
            assert!(
                number >= told,
                "writer {writer} was told {told}, but {number} is there"
            );
        }
        store.close().await;
    }
}

fn this_program(path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["child", "--exact", "--nocapture"])
        .env(CHILD, path);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_it_was_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("crash.db");
    let mut told = Told::default();
    for round in 0..rounds() {
        let mut child = this_program(&path).spawn().unwrap();
        let said = listen(&mut child);
        // From before it has opened the file to after some thousand transactions.
        let wait = (round * 7_919) % 250;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        told.hear(&said.join().unwrap());
        told.check(&path).await;
    }
    assert!(
        told.revision > 100,
        "only {} revisions were written",
        told.revision
    );
}

#[tokio::test]
async fn a_file_that_cannot_grow_fails_the_store_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("full.db");
    let program = this_program(&path);
    // A limit in blocks of 512 bytes (dash) or 1 KiB (bash): 6 to 12 MiB. Without the signal it is an error.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 12000; exec \"$@\"", "sh"]);
    shell.arg(program.get_program()).args(program.get_args());
    shell
        .env(CHILD, &path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let Ok(mut child) = shell.spawn() else {
        println!("SKIPPED: there is no sh to set a limit with");
        return;
    };
    let mut told = Told::default();
    told.hear(&listen(&mut child).join().unwrap());
    child.wait().unwrap();
    let error = told.error.clone().expect("it never failed");
    assert!(error.contains("the store failed: cannot write"), "{error}");
    told.check(&path).await;
    assert!(told.revision > 100);
}
