//! What `muster apply` and the commands after it say and end with, with every part a process of its own.

use std::{path::Path, time::Duration};

use muster_tests::fleet::{Fleet, command};

const PROGRAM: &str = env!("CARGO_BIN_EXE_component");

const RUNS: &str = "run: {command: exec sleep 1000}";
const ENDS: &str = "run: {command: exit 9}";

/// What a command ended with, and said.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the command line against a fleet's manager.
async fn muster(fleet: &Fleet, words: &[&str]) -> Said {
    let mut muster = command(Path::new(PROGRAM), "muster");
    let manager = format!("http://{}", fleet.manager.address);
    muster.args(["--replicas-addr", &manager]).args(words);
    let output = tokio::task::spawn_blocking(move || muster.output().unwrap());
    let output = tokio::time::timeout(Duration::from_secs(90), output).await;
    let output = output.expect("it does not end").unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Applies services, each a name and what follows it, until they are up.
async fn apply(fleet: &Fleet, services: &[(&str, &str)]) -> Said {
    let documents = services
        .iter()
        .map(|(name, rest)| format!("name: {name}\n{rest}\n"));
    let file = fleet.path().join("services.yaml");
    std::fs::write(&file, documents.collect::<Vec<_>>().join("---\n")).unwrap();
    let file = file.display().to_string();
    muster(fleet, &["apply", "-f", &file, "--wait", "--timeout", "60s"]).await
}

async fn remove(fleet: &Fleet, services: &[&str]) {
    for name in services {
        let gone = muster(fleet, &["rm", "-y", name, "--wait"]).await;
        assert_eq!(gone.code, Some(0), "{}", gone.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_none_is_applied_if_one_is_refused() {
    let fleet = Fleet::start(PROGRAM, 1).await;
    let refused = format!("min_healthy: 5\n{RUNS}");
    let said = apply(&fleet, &[("one", RUNS), ("two", &refused), ("three", RUNS)]).await;
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(1), ""),
        "{}",
        said.err
    );
    assert!(
        said.err.starts_with("muster: two: spec.min_healthy "),
        "{}",
        said.err
    );
    let listed = muster(&fleet, &["services", "-o", "name"]).await;
    assert_eq!(listed.out, "");

    let said = apply(&fleet, &[("one", RUNS), ("one", RUNS)]).await;
    assert_eq!(said.code, Some(2), "{}", said.err);
    assert!(said.err.contains("one is there twice"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_are_waited_for_together() {
    let fleet = Fleet::start(PROGRAM, 1).await;
    // The first never finds a place; the second fails at once.
    let placeless = format!("retry: {{}}\nresources: {{gpu: \"B200:1\"}}\n{RUNS}");
    let said = apply(
        &fleet,
        &[("one", &placeless), ("two", ENDS), ("three", RUNS)],
    )
    .await;
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(
        said.err.contains("muster: two has FAILED: "),
        "{}",
        said.err
    );
    assert!(
        said.out.contains("not waited for any more: one PENDING "),
        "{}",
        said.out
    );

    let said = apply(&fleet, &[("two", RUNS), ("three", RUNS)]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    remove(&fleet, &["one", "two", "three"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_rolled_back_can_be_scaled() {
    let fleet = Fleet::start(PROGRAM, 1).await;
    let spec = |run: &str| format!("retry: {{}}\n{run}");
    let said = apply(&fleet, &[("chat", &spec(RUNS))]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    let said = apply(&fleet, &[("chat", &spec(ENDS))]).await;
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("muster: chat was rolled back: "),
        "{}",
        said.err
    );

    let scaled = muster(&fleet, &["scale", "chat", "2", "--wait"]).await;
    assert_eq!(scaled.code, Some(0), "{}", scaled.err);
    // What is asked for is still not what runs.
    let said = apply(&fleet, &[("chat", &spec(ENDS))]).await;
    assert_eq!(said.code, Some(1), "{}", said.err);

    let restarted = muster(&fleet, &["restart", "chat", "--wait"]).await;
    assert_eq!(restarted.code, Some(1), "{}", restarted.err);
    let words = "`muster rollback chat 1` restarts it in version 1\n";
    assert!(restarted.out.contains(words), "{}", restarted.out);
    let back = muster(&fleet, &["rollback", "chat", "1", "--wait"]).await;
    assert_eq!(back.code, Some(0), "{}", back.err);
    let words = "chat runs version 1 already, since ";
    assert!(back.out.starts_with(words), "{}", back.out);
    remove(&fleet, &["chat"]).await;
}
