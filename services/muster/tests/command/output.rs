//! What `muster` writes, as a process against a registry: documents alone on stdout, and what is said
//! to people.

use std::{
    fs::File,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use muster_proto::{
    types::v1::{CpuArchitecture, MachineCapacity, Requirements},
    workers::v1::{
        ActivateWorkerRequest, AllocateRequest, AllocationSpec, CheckStatus,
        CreateJoinTokenRequest, OwnerTerm, RegisterWorkerRequest, WorkerCheck,
        workers_service_client::WorkersServiceClient,
    },
};
use muster_runtime::{context::Context, server::Listeners, shutdown::Cause};
use muster_store::Store;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};
use worker_registry::Config;

use crate::said::Said;

/// What every command has ended within.
const DEADLINE: Duration = Duration::from_secs(30);

/// A registry, and where it is.
struct Registry {
    context: Context,
    url: String,
    ops: String,
}

impl Registry {
    /// One that expects the worker `w1`, which is never heard.
    async fn begin() -> Self {
        let context = Context::for_tests("worker-registry");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listeners = Listeners::bind(any, Some(any)).await.unwrap();
        let url = format!("http://{}", listeners.grpc_address());
        let ops = format!("http://{}", listeners.ops_address().unwrap());
        let store = Store::memory();
        let config = Config {
            insecure_join: true,
            ..Config::default()
        };
        let serving = worker_registry::serve(config, context.clone(), store, listeners);
        let _serving = context
            .tasks
            .spawn("registry", async move { serving.await.unwrap() });
        context.health.until_ready().await;
        let registry = Self { context, url, ops };
        registry.expect_worker("w1").await;
        registry
    }

    /// Makes a token for a worker, and so its record.
    async fn expect_worker(&self, name: &str) {
        let mut client = WorkersServiceClient::connect(self.url.clone())
            .await
            .unwrap();
        let request = CreateJoinTokenRequest {
            worker_name: name.to_owned(),
            max_uses: Some(0),
            ..CreateJoinTokenRequest::default()
        };
        client.create_join_token(request).await.unwrap();
    }

    /// Registers and activates a worker, on which nothing runs.
    async fn join(&self, name: &str) {
        let mut client = WorkersServiceClient::connect(self.url.clone())
            .await
            .unwrap();
        let request = RegisterWorkerRequest {
            name: name.to_owned(),
            boot_id: "boot-1".to_owned(),
            capacity: Some(MachineCapacity {
                cpu_milli: 1000,
                memory_mib: 1024,
                architecture: CpuArchitecture::X8664.into(),
                ..MachineCapacity::default()
            }),
            ..RegisterWorkerRequest::default()
        };
        let answer = client.register_worker(request).await.unwrap().into_inner();
        let request = ActivateWorkerRequest {
            name: name.to_owned(),
            generation: answer.worker.unwrap().generation,
            checks: vec![WorkerCheck {
                name: "gpu-inventory".to_owned(),
                status: CheckStatus::Passed.into(),
                ..WorkerCheck::default()
            }],
        };
        client.activate_worker(request).await.unwrap();
    }

    /// Gives room on a worker to a replica.
    async fn occupy(&self) {
        let mut client = WorkersServiceClient::connect(self.url.clone())
            .await
            .unwrap();
        let spec = AllocationSpec {
            request_id: "1".to_owned(),
            subject: "chat/0".to_owned(),
            requirements: Some(Requirements::default()),
            ..AllocationSpec::default()
        };
        let request = AllocateRequest {
            owner: "manager".to_owned(),
            owner_term: Some(OwnerTerm {
                epoch: "000000000001-00000001".to_owned(),
                revision: 1,
            }),
            spec: Some(spec),
            validate_only: false,
        };
        client.allocate(request).await.unwrap();
    }

    /// Ends it as a process would.
    async fn end(self) {
        self.context
            .shutdown
            .begin(Cause::asked("the test is over"));
        self.context.shutdown.finished().await;
    }

    /// The command line, told where the registry is.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(["--workers-addr", &self.url]).args(words);
        command.kill_on_drop(true);
        command
    }

    /// What a command ends with.
    async fn muster(&self, words: &[&str]) -> Said {
        let output = timeout(DEADLINE, self.command(words).output()).await;
        Said::from(output.expect("it does not end").unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_stands_alone_on_stdout() {
    let registry = Registry::begin().await;
    registry.join("w2").await;
    let drained = registry
        .muster(&["drain", "w2", "--wait", "-o", "json"])
        .await;
    assert_eq!(drained.code, Some(0), "{drained:?}");
    let document: Value = serde_json::from_str(&drained.stdout).unwrap();
    assert_eq!(document["worker"]["name"], "w2");
    assert!(drained.stderr.ends_with("w2 is DISABLED\n"), "{drained:?}");

    let worker = registry.muster(&["workers", "w2"]).await.stdout;
    let last = worker.lines().find(|line| line.starts_with("last drain"));
    assert!(last.unwrap().contains("; ended "), "{worker}");
    let enabled = registry.muster(&["enable", "w2", "-o", "name"]).await;
    assert_eq!(enabled.stdout, "w2\n", "{enabled:?}");

    let tokens = registry.muster(&["token", "list", "-o", "json"]).await;
    let tokens: Value = serde_json::from_str(&tokens.stdout).unwrap();
    let id = tokens["joinTokens"][0]["id"].as_str().unwrap();
    let revoked = registry
        .muster(&["token", "revoke", id, "-o", "json"])
        .await;
    let document: Value = serde_json::from_str(&revoked.stdout).unwrap();
    assert!(document.is_object(), "{revoked:?}");
    registry.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_judged_by_what_is_not_by_what_was_a_moment_ago() {
    let registry = Registry::begin().await;
    for name in ["w2", "w3", "w4"] {
        registry.join(name).await;
    }
    for name in ["w2", "w3", "w4"] {
        let drained = registry.muster(&["drain", name, "--wait"]).await;
        assert_eq!(drained.code, Some(0), "{drained:?}");
    }
    registry.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_asked_for_again_without_terms_keeps_those_that_it_has() {
    let registry = Registry::begin().await;
    registry.join("w2").await;
    registry.occupy().await;
    let terms = [
        "--deadline",
        "1h",
        "--after-deadline",
        "force",
        "--reason",
        "new kernel",
    ];
    let drain = ["drain", "w2", "-o", "json"];
    let begun = registry.muster(&[&drain[..], &terms[..]].concat()).await;
    let begun: Value = serde_json::from_str(&begun.stdout).unwrap();
    assert_eq!(begun["worker"]["drain"]["reason"], "new kernel");

    let again = registry.muster(&drain).await;
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(again["worker"]["drain"], begun["worker"]["drain"]);
    let told = registry.muster(&["drain", "w2"]).await;
    assert_eq!(told.stdout, "w2 is DRAINING already\n", "{told:?}");

    let other = ["--max-parallel", "2"];
    let changed = registry.muster(&[&drain[..], &other[..]].concat()).await;
    let changed: Value = serde_json::from_str(&changed.stdout).unwrap();
    assert_eq!(changed["worker"]["drain"]["maxParallel"], 2, "{changed}");
    registry.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_forgotten_once_it_is_out_of_use() {
    let registry = Registry::begin().await;
    // One that only a token awaits cannot be drained.
    let awaited = registry.muster(&["delete-worker", "w1"]).await;
    let words = "only a disabled worker can be deleted; disable it first (";
    assert!(awaited.stderr.contains(words), "{awaited:?}");

    registry.join("w2").await;
    let refused = registry.muster(&["delete-worker", "w2"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("disable it first"), "{refused:?}");

    let disabled = registry.muster(&["disable", "w2"]).await;
    assert_eq!(disabled.code, Some(0), "{disabled:?}");
    let forgotten = registry.muster(&["delete-worker", "w2"]).await;
    assert_eq!(forgotten.code, Some(0), "{forgotten:?}");
    assert_eq!(forgotten.stdout, "w2 is forgotten\n");
    let left = registry.muster(&["workers", "-o", "name"]).await;
    assert_eq!(left.stdout, "w1\n");
    let twice = registry.muster(&["delete-worker", "w2"]).await;
    assert_eq!(twice.code, Some(1), "{twice:?}");
    registry.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_that_is_not_held_is_told_so() {
    let registry = Registry::begin().await;
    let said = registry.muster(&["release-mass-loss", "a"]).await;
    assert_eq!(said.stdout, "no worker of a was held\n", "{said:?}");
    registry.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_tokens_than_a_page_has_are_all_listed() {
    let registry = Registry::begin().await;
    let mut client = WorkersServiceClient::connect(registry.url.clone())
        .await
        .unwrap();
    for _ in 0..1_000 {
        let request = CreateJoinTokenRequest::default();
        client.create_join_token(request).await.unwrap();
    }
    let tokens = registry.muster(&["token", "list", "-o", "name"]).await;
    assert_eq!(tokens.stdout.lines().count(), 1_001);
    registry.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_not_watched() {
    let registry = Registry::begin().await;
    let said = registry.muster(&["workers", "nosuch", "-w"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("nosuch"), "{said:?}");
    registry.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_is_not_made_up() {
    let registry = Registry::begin().await;
    let worker = registry.muster(&["workers", "w1"]).await.stdout;
    assert!(worker.contains(", never heard\n"), "{worker}");
    assert!(!worker.contains("agent "), "{worker}");
    let none = registry.muster(&["workers", "-l", "a=b"]).await;
    assert_eq!(none.stdout, "no worker has a=b\n");

    let tokens = registry.muster(&["token", "list"]).await.stdout;
    assert!(tokens.contains("  any  "), "{tokens}");
    let ids = registry.muster(&["token", "list", "-o", "name"]).await;
    let id = tokens.lines().nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(ids.stdout, format!("{id}\n"));
    registry.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_and_it_ends_quietly() {
    let registry = Registry::begin().await;
    let certificates = tempfile::tempdir().unwrap();
    for words in [
        &["workers", "-w"][..],
        &["workers", "-w", "-o", "json"],
        &["completions", "bash"],
        &[
            "certs",
            "init",
            "--dir",
            certificates.path().to_str().unwrap(),
        ],
        &["health", "--probe", "-version"],
    ] {
        let mut command = registry.command(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = timeout(DEADLINE, child.wait_with_output()).await;
        let said = Said::from(output.expect("it does not end").unwrap());
        assert_eq!((said.code, &*said.stderr), (Some(0), ""), "{words:?}");
    }
    registry.end().await;
}

#[tokio::test]
async fn a_probe_that_nobody_reads_has_its_exit_code() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.args([
        "health",
        "--probe",
        "-addr=127.0.0.1:1",
        "-connect-timeout=100ms",
    ]);
    command.stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    drop(child.stderr.take());
    let status = timeout(DEADLINE, child.wait()).await.unwrap();
    assert_eq!(status.unwrap().code(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_variable_that_is_empty_is_as_one_that_is_not_set() {
    let registry = Registry::begin().await;
    let folder = tempfile::tempdir().unwrap();
    for words in [&["workers"][..], &["certs", "init"]] {
        let mut command = registry.command(words);
        command.current_dir(folder.path()).stdin(Stdio::null());
        let names = ["OUTPUT", "CA", "CERT", "KEY", "TOKEN_FILE", "CONTEXT"];
        for name in names.iter().chain(&["OFFERS_ADDR", "CERTS_DIR"]) {
            command.env(format!("MUSTER_{name}"), "");
        }
        let output = timeout(DEADLINE, command.output()).await;
        let said = Said::from(output.expect("it does not end").unwrap());
        assert_eq!((said.code, &*said.stderr), (Some(0), ""), "{said:?}");
    }
    assert!(folder.path().join("muster-certs/ca.crt").exists());
    // What is given on the command line is meant.
    let said = registry.muster(&["workers", "--output="]).await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("--output"), "{said:?}");
    registry.end().await;
}

#[tokio::test]
async fn a_file_without_its_flag_is_told_how_it_is_given() {
    for words in [
        &["apply", "chat.yaml"][..],
        &["apply", "-f", "a.yaml", "chat.yaml"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_muster"))
            .args(words)
            .output();
        let said = Said::from(timeout(DEADLINE, output).await.unwrap().unwrap());
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains("`-f chat.yaml`"), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_says_that_its_component_is_away() {
    let registry = Registry::begin().await;
    let mut command = registry.command(&["workers", "-w", "-o", "name"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = timeout(DEADLINE, shown.next_line()).await;
    assert_eq!(first.unwrap().unwrap().as_deref(), Some("w1"));

    registry.end().await;
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = timeout(DEADLINE, said.next_line()).await;
    let line = line.expect("nothing is said").unwrap().unwrap();
    assert!(
        line.starts_with("the worker-registry cannot be reached"),
        "{line}"
    );
    child.kill().await.unwrap();
    assert_eq!(said.next_line().await.unwrap(), None, "it is said once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_says_what_is_no_longer_listed() {
    let registry = Registry::begin().await;
    let watching = ["table", "json"].map(|format| {
        let mut command = registry.command(&["workers", "-w", "-o", format]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true).spawn().unwrap()
    });
    let [mut table, mut json] = watching;
    let mut shown = BufReader::new(table.stdout.take().unwrap()).lines();
    let mut documents = BufReader::new(json.stdout.take().unwrap()).lines();
    let mut said = BufReader::new(json.stderr.take().unwrap()).lines();
    let told = async {
        let mut line = shown.next_line().await.unwrap().unwrap();
        assert!(line.starts_with("NAME  "), "{line}");
        for _ in ["w1 is there", "and is disabled"] {
            line = shown.next_line().await.unwrap().unwrap();
            assert!(line.starts_with("w1  "), "{line}");
            documents.next_line().await.unwrap().unwrap();
            if !line.contains("DISABLED") {
                registry.muster(&["disable", "w1", "--force"]).await;
            }
        }
        registry.muster(&["delete-worker", "w1"]).await;
        while line.starts_with("w1  ") {
            line = shown.next_line().await.unwrap().unwrap();
        }
        assert_eq!(line, "w1 is no longer listed");
        let sentence = said.next_line().await.unwrap();
        assert_eq!(sentence.as_deref(), Some("w1 is no longer listed"));
    };
    timeout(DEADLINE, told).await.expect("it is told");
    registry.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_another_one_is_told_as_such() {
    let registry = Registry::begin().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.args(["workers", "--workers-addr", &registry.ops]);
    let said = Said::from(command.output().await.unwrap());
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(
        said.stderr.contains("speaks HTTP, and not gRPC (405 "),
        "{said:?}"
    );
    assert!(
        said.stderr.contains("(7411), in place of gRPC (7401)?"),
        "{said:?}"
    );

    let other = ["--replicas-addr", &registry.url];
    let said = registry.muster(&[&["ps"], &other[..]].concat()).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    let question = format!("is it the replica-manager that is at {}?", registry.url);
    assert!(said.stderr.contains(&question), "{said:?}");
    let said = registry
        .muster(&[&["health", "replica-manager"], &other[..]].concat())
        .await;
    assert_eq!(said.code, Some(1), "{said:?}");
    let words = format!(
        "at {} is the worker-registry, not the replica-manager",
        registry.url
    );
    assert!(said.stdout.contains(&words), "{said:?}");
    registry.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_workers_are_named_at_once() {
    let registry = Registry::begin().await;
    for name in ["w2", "w3"] {
        registry.join(name).await;
    }
    let drained = registry.muster(&["drain", "w2", "w3", "--wait"]).await;
    assert_eq!(drained.code, Some(0), "{drained:?}");
    for name in ["w2", "w3"] {
        let ends = format!("{name} is DISABLED\n");
        assert!(drained.stdout.contains(&ends), "{drained:?}");
    }
    let enabled = registry.muster(&["enable", "w2", "w3", "-o", "json"]).await;
    let workers: Value = serde_json::from_str(&enabled.stdout).unwrap();
    let names = workers.as_array().unwrap().iter();
    let names: Vec<_> = names.map(|worker| &worker["name"]).collect();
    assert_eq!(names, ["w2", "w3"]);

    // Nothing is done to the first if another is not there.
    for change in ["drain", "disable", "delete-worker"] {
        let said = registry.muster(&[change, "w2", "nosuch"]).await;
        assert_eq!((said.code, &*said.stdout), (Some(1), ""), "{said:?}");
        assert!(
            said.stderr.contains("there is no worker nosuch"),
            "{said:?}"
        );
    }
    let disabled = registry.muster(&["disable", "w2", "w3"]).await;
    assert_eq!(disabled.stdout, "w2 is DISABLED\nw3 is DISABLED\n");
    let resumed = registry.muster(&["resume", "w2", "w3"]).await;
    assert!(resumed.stderr.starts_with("muster: w2: "), "{resumed:?}");
    let forgotten = registry.muster(&["delete-worker", "w2", "w3"]).await;
    assert_eq!(forgotten.stdout, "w2 is forgotten\nw3 is forgotten\n");
    registry.end().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let folder = file.path().join("data");
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.args(["up", "--data"]).arg(&folder);
    let output = timeout(DEADLINE, command.kill_on_drop(true).output()).await;
    let said = Said::from(output.expect("it does not end").unwrap());
    assert_eq!(said.code, Some(1), "{said:?}");
    let place = folder.display().to_string();
    assert!(said.stderr.contains(&place), "{said:?}");
}

/// A terminal: what is written to it can be read, and what a command takes as its end.
fn terminal() -> (File, File) {
    let shown = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&shown).unwrap();
    unlockpt(&shown).unwrap();
    let name = ptsname(&shown, Vec::new()).unwrap();
    let end = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap());
    (File::from(shown), end.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_go_on_while_nothing_changes() {
    let registry = Registry::begin().await;
    let (mut shown, end) = terminal();
    let mut command = registry.command(&["workers", "-w"]);
    let mut child = command.stdout(end).spawn().unwrap();
    drop(command);
    let seen = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        let mut bytes = [0; 4096];
        // Reading fails once the other end is closed.
        while text.matches("w1 ").count() < 3 {
            match shown.read(&mut bytes) {
                Ok(read) => text.push_str(&String::from_utf8_lossy(&bytes[..read])),
                Err(_) => break,
            }
        }
        text
    });
    let seen = timeout(DEADLINE, seen).await;
    child.kill().await.unwrap();
    let seen = seen.expect("the times stand still").unwrap();
    assert_eq!(seen.matches("w1 ").count(), 3, "{seen:?}");
    registry.end().await;
}
