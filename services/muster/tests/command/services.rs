//! What is done to services, as a process against a replica-manager without any worker.

use std::{fs, process::Stdio};

use muster_runtime::{connect::Endpoints, context::Context, server::Listeners, shutdown::Cause};
use muster_store::Store;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::said::Said;

/// A replica-manager and the registry that it asks, and a folder for files.
struct Manager {
    registry: Context,
    manager: Context,
    url: String,
    folder: tempfile::TempDir,
}

impl Manager {
    async fn begin() -> Self {
        let registry = Context::for_tests("worker-registry");
        let listeners = Listeners::loopback().await.unwrap();
        let workers = format!("http://{}", listeners.grpc_address());
        let config = worker_registry::Config::default();
        let serving = worker_registry::serve(config, registry.clone(), Store::memory(), listeners);
        let _serving = registry
            .tasks
            .spawn("registry", async move { serving.await.unwrap() });

        let manager = Context::for_tests("replica-manager");
        let listeners = Listeners::loopback().await.unwrap();
        let url = format!("http://{}", listeners.grpc_address());
        // No gateway is there: offers are not what this is about.
        let workers: Endpoints = workers.parse().unwrap();
        let config = replica_manager::Serving::new(workers.clone(), workers);
        let serving = replica_manager::serve(config, manager.clone(), Store::memory(), listeners);
        let _serving = manager
            .tasks
            .spawn("manager", async move { serving.await.unwrap() });
        registry.health.until_ready().await;
        manager.health.until_ready().await;
        Self {
            registry,
            manager,
            url,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A file with a service that waits for a place for ever.
    fn file(&self, name: &str, service: &str) -> String {
        let file = self.folder.path().join(name);
        let spec = format!("name: {service}\nrun: {{command: exec sleep 1000}}\nretry: {{}}\n");
        fs::write(&file, spec).unwrap();
        file.display().to_string()
    }

    async fn muster(&self, words: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(["--replicas-addr", &self.url]).args(words);
        Said::from(command.output().await.unwrap())
    }

    async fn end(self) {
        for context in [self.manager, self.registry] {
            context.shutdown.begin(Cause::asked("the test is over"));
            context.shutdown.finished().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_files_are_applied_as_one() {
    let manager = Manager::begin().await;
    let (a, b) = (manager.file("a.yaml", "a"), manager.file("b.yaml", "b"));
    let again = manager.file("again.yaml", "a");
    let twice = manager
        .muster(&["apply", "-f", &a, "-f", &b, "-f", &again])
        .await;
    assert_eq!((twice.code, &*twice.stdout), (Some(2), ""), "{twice:?}");
    assert!(
        twice.stderr.contains("again.yaml: a is there twice"),
        "{twice:?}"
    );
    let applied = manager
        .muster(&["apply", "-f", &a, "-f", &b, "-o", "name"])
        .await;
    assert_eq!(applied.stdout, "a\nb\n", "{applied:?}");
    manager.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_services_are_named_at_once() {
    let manager = Manager::begin().await;
    for name in ["a", "b"] {
        let applied = manager
            .muster(&["apply", "-f", &manager.file(name, name)])
            .await;
        assert_eq!(applied.code, Some(0), "{applied:?}");
    }
    // Nothing is done to the first if another is not there.
    for change in ["stop", "restart", "rm"] {
        let said = manager.muster(&[change, "a", "nosuch"]).await;
        assert_eq!((said.code, &*said.stdout), (Some(1), ""), "{said:?}");
        assert!(said.stderr.contains("nosuch"), "{said:?}");
    }
    let a = manager.muster(&["services", "a", "-o", "json"]).await;
    assert!(a.stdout.contains("SERVICE_INTENT_RUN"), "{a:?}");
    let mixed = manager.muster(&["restart", "a", "b/0"]).await;
    assert_eq!(mixed.code, Some(2), "{mixed:?}");

    let stopped = manager.muster(&["stop", "a", "b", "--wait"]).await;
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    let listed = manager.muster(&["services"]).await.stdout;
    assert_eq!(listed.matches("STOPPED").count(), 2, "{listed}");
    let started = manager.muster(&["start", "a", "b", "-o", "json"]).await;
    let services: Value = serde_json::from_str(&started.stdout).unwrap();
    let names = services.as_array().unwrap().iter();
    let names: Vec<_> = names.map(|service| &service["name"]).collect();
    assert_eq!(names, ["a", "b"]);
    let soon = ["scale", "a", "2", "--wait", "--timeout"];
    let said = manager.muster(&[&soon[..], &["0s"]].concat()).await;
    assert_eq!(said.code, Some(4), "{said:?}");
    let words = "muster: gave up waiting after 0s; it goes on";
    assert!(said.stderr.contains(words), "{said:?}");
    assert!(!said.stderr.contains("goes on: \n"), "{said:?}");
    let said = manager.muster(&["ps", "a", "nosuch"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    let said = manager.muster(&["ps", "a", "b", "-o", "name"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let gone = manager.muster(&["rm", "a", "b", "--wait"]).await;
    assert_eq!(gone.stdout, "a is gone\nb is gone\n", "{gone:?}");
    manager.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_interrupts_a_wait_is_told_what_goes_on() {
    let manager = Manager::begin().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.args(["--replicas-addr", &manager.url, "apply", "--wait", "-f"]);
    command.arg(manager.file("a.yaml", "a")).kill_on_drop(true);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = said.next_line().await.unwrap().unwrap();
    assert!(first.starts_with("a PENDING "), "{first}");
    let id = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), Signal::INT).unwrap();
    let mut last = first;
    while let Some(line) = said.next_line().await.unwrap() {
        last = line;
    }
    assert_eq!(child.wait().await.unwrap().code(), Some(130), "{last}");
    let words = "muster: interrupted: what was begun goes on: a PENDING ";
    assert!(last.starts_with(words), "{last}");
    manager.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spec_of_what_is_applied_is_explained_as_such() {
    let manager = Manager::begin().await;
    let file = manager.file("a.yaml", "a");
    let explain = ["explain", "-f", &file];
    let before = manager.muster(&explain).await.stdout;
    assert!(before.starts_with("a has not been applied\n"), "{before}");
    manager.muster(&["apply", "-f", &file]).await;
    let after = manager.muster(&explain).await.stdout;
    let first = "a is applied, in version 1; this is about what the file says of it\n";
    assert!(after.starts_with(first), "{after}");
    manager.end().await;
}
