//! `muster logs -f` with every part a process of its own: over attempts, replicas, and components that
//! go and come back.

use std::{
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use muster_proto::replicas::v1::ServicePhase;
use muster_tests::fleet::{Fleet, command, retry, spec::service};
use tokio::time::{Instant, sleep};

const PROGRAM: &str = env!("CARGO_BIN_EXE_component");

const PATIENCE: Duration = Duration::from_secs(60);

/// Counts for ever, fifty lines a second.
const COUNTS: &str = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done";

/// `muster logs -f` in the background.
struct Following {
    child: Child,
    out: std::path::PathBuf,
    err: std::path::PathBuf,
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Following {
    fn start(fleet: &Fleet, target: &str, more: &[&str]) -> Self {
        let name = target.replace('/', "-");
        let [out, err] = ["out", "err"].map(|kind| fleet.path().join(format!("{name}.{kind}")));
        let [to_out, to_err] = [&out, &err].map(|file| std::fs::File::create(file).unwrap());
        let manager = format!("http://{}", fleet.manager.address);
        let child = command(Path::new(PROGRAM), "muster")
            .args(["--replicas-addr", &manager, "logs", "-f", target])
            .args(more)
            .stdin(Stdio::null())
            .stdout(to_out)
            .stderr(to_err)
            .spawn()
            .unwrap();
        Self { child, out, err }
    }

    /// The numbers of the lines of a replica, as they came.
    fn counted(&self, replica: &str) -> Vec<u64> {
        let start = format!("{replica}  line ");
        let out = std::fs::read_to_string(&self.out).unwrap();
        // The last may be half written.
        let whole = out
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        let counted = whole.filter_map(|line| line.strip_prefix(&start)?.trim().parse().ok());
        counted.collect()
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap()
    }

    async fn until(&self, what: &str, seen: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !seen() {
            let said = self.said();
            assert!(Instant::now() < end, "no {what}\n{said}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until so many more lines of a replica were shown.
    async fn until_more(&self, replica: &str, count: usize) {
        let before = self.counted(replica).len();
        let what = format!("more of {replica}");
        self.until(&what, || self.counted(replica).len() >= before + count)
            .await;
    }

    async fn ended(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "it does not end\n{}", self.said());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn run(fleet: &Fleet, words: &[&str]) {
    let mut muster = command(Path::new(PROGRAM), "muster");
    let manager = format!("http://{}", fleet.manager.address);
    muster.args(["--replicas-addr", &manager]).args(words);
    let output = tokio::task::spawn_blocking(move || muster.output().unwrap());
    let output = output.await.unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_goes_on_with_the_next_attempts_and_with_replicas_that_come() {
    let fleet = Fleet::start(PROGRAM, 1).await;
    fleet.apply(service("chat", 1, COUNTS, retry())).await;
    // There may be no attempt yet.
    let mut all = Following::start(&fleet, "chat", &[]);
    let mut one = Following::start(&fleet, "chat/0", &[]);
    all.until_more("chat/0", 5).await;

    fleet.until("chat", ServicePhase::Healthy, PATIENCE).await;
    let processes = fleet.processes("chat").await;
    fleet.end(&processes).await;
    for following in [&all, &one] {
        let note = "chat/0 goes on with attempt 2";
        following
            .until(note, || following.said().contains(note))
            .await;
    }
    let is_again = || {
        all.counted("chat/0")
            .iter()
            .filter(|line| **line == 3)
            .count()
            == 2
    };
    all.until("line of the second attempt", is_again).await;

    run(&fleet, &["scale", "chat", "2"]).await;
    all.until_more("chat/1", 5).await;
    run(&fleet, &["scale", "chat", "0"]).await;
    // Of that one nothing more comes; of the service something may.
    assert_eq!(one.ended().await, Some(0), "{}", one.said());
    run(&fleet, &["scale", "chat", "1"]).await;
    all.until_more("chat/2", 5).await;
    run(&fleet, &["stop", "chat", "--wait"]).await;
    assert_eq!(all.ended().await, Some(0), "{}", all.said());
    assert_eq!(all.said(), "chat/0 goes on with attempt 2\n");
    assert_eq!(all.counted("chat/1")[..3], [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_is_told_once_while_agent_and_manager_go_and_come() {
    let mut fleet = Fleet::start(PROGRAM, 1).await;
    fleet.apply(service("chat", 1, COUNTS, retry())).await;
    fleet.until("chat", ServicePhase::Healthy, PATIENCE).await;
    let mut all = Following::start(&fleet, "chat", &["--tail", "3"]);
    all.until_more("chat/0", 5).await;

    fleet.agent("w1").kill();
    let is_told = || all.said().contains("chat/0: the agent of w1: ");
    all.until("word of the agent", is_told).await;
    fleet.agent("w1").start().await;
    all.until_more("chat/0", 5).await;

    fleet.manager.kill();
    let away = "the replica-manager cannot be reached, and is tried again: ";
    all.until(away, || all.said().contains(away)).await;
    fleet.manager.start().await;
    all.until("word of its return", || {
        all.said().contains("the replica-manager is back")
    })
    .await;
    all.until_more("chat/0", 5).await;

    // One of a connection that has become too old is not even told.
    run(&fleet, &["rm", "-y", "chat", "--wait"]).await;
    assert_eq!(all.ended().await, Some(0), "{}", all.said());
    let told = all.counted("chat/0");
    let expected: Vec<u64> = (told[0]..).take(told.len()).collect();
    assert_eq!(told, expected);
}
