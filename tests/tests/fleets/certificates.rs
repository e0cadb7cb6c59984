//! `muster certs init`, and a stack that speaks nothing but TLS with what it made.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use muster_tests::fleet::{self, Process};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_component"))
}

/// The command line, with `home` for its configuration.
fn muster(home: &Path, args: &[&str]) -> Output {
    let mut command = fleet::command(&program(), "muster");
    command.env("XDG_CONFIG_HOME", home).args(args);
    command.output().unwrap()
}

fn init(folder: &Path, more: &[&str]) -> (Option<i32>, String) {
    let at = format!("--dir={}", folder.display());
    let output = muster(folder, &[&["certs", "init", &at], more].concat());
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn files(folder: &Path) -> BTreeMap<String, (Vec<u8>, u32)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            let name = entry.file_name().into_string().unwrap();
            (name, (fs::read(entry.path()).unwrap(), mode))
        })
        .collect()
}

#[test]
fn what_is_there_is_kept_unless_it_is_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let at = &folder.path().join("deep/certs");
    let (code, text) = init(at, &["--agent=w1"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("w1.agent.muster"), "{text}");
    let first = files(at);
    assert_eq!(first.len(), 2 * 8 + 5, "{:?}", first.keys());
    for (name, (_, mode)) in &first {
        let expected = if name.ends_with(".key") { 0o600 } else { 0o644 };
        assert_eq!(*mode, expected, "{name}");
    }

    let (code, text) = init(at, &["--agent=w1"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("ca.crt is in") && text.contains("--if-absent"),
        "{text}"
    );
    assert_eq!(files(at), first);

    let (code, text) = init(at, &["--if-absent", "--agent=w1", "--agent=w2"]);
    assert_eq!(code, Some(0), "{text}");
    let mut second = files(at);
    for name in ["agent-w2.crt", "agent-w2.key", "agent-w2.toml"] {
        assert!(second.remove(name).is_some(), "{name}");
    }
    assert_eq!(second, first);

    fs::remove_file(at.join("agent-w2.key")).unwrap();
    let (code, text) = init(at, &["--if-absent", "--agent=w2"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("agent-w2.crt") && text.contains("without"),
        "{text}"
    );

    let (code, text) = init(at, &["--force", "--agent=w1"]);
    assert_eq!(code, Some(0), "{text}");
    let forced = files(at);
    for name in ["ca.crt", "ca.key", "admin.crt", "agent-w1.key"] {
        assert_ne!(forced[name], first[name], "{name}");
    }
    for bad in [
        &["--host=http://x"][..],
        &["--agent=W"],
        &["--force", "--if-absent"],
    ] {
        assert_eq!(init(at, bad).0, Some(2), "{bad:?}");
    }
}

/// A stack of processes that take TLS alone.
struct Secure {
    folder: tempfile::TempDir,
    running: BTreeMap<&'static str, Process>,
}

impl Secure {
    fn certs(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    fn address(&self, name: &str) -> SocketAddr {
        self.running[name].address
    }

    /// The component under the configuration that was made for it, and `args`.
    async fn start(&mut self, name: &'static str, file: &str, args: &[String]) {
        let config = self.certs().join(file);
        let mut all = vec![format!("--config={}", config.display())];
        all.extend_from_slice(args);
        let at = self.folder.path();
        let process = fleet::start(&program(), at, name, fleet::free_port(), &all, &[]).await;
        self.running.insert(name, process);
    }

    fn at(&self, flag: &str, name: &str) -> String {
        format!("--{flag}=https://localhost:{}", self.address(name).port())
    }

    /// What `muster` says with these arguments, with `context` or none.
    fn muster(&self, context: Option<&str>, args: &[&str]) -> (Option<i32>, String) {
        let addresses = [
            self.at("offers-addr", "offers-gateway"),
            self.at("workers-addr", "worker-registry"),
            self.at("replicas-addr", "replica-manager"),
        ];
        let ca = self.certs().join("ca.crt").display().to_string();
        let context = context.map_or(["--ca".to_owned(), ca], |name| {
            ["--context".to_owned(), name.to_owned()]
        });
        let mut all: Vec<&str> = args.to_vec();
        all.extend(addresses.iter().chain(&context).map(String::as_str));
        let output = muster(self.folder.path(), &all);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    /// Asks until the answer holds `wanted`.
    async fn until(&self, context: &str, args: &[&str], wanted: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let (_, text) = self.muster(Some(context), args);
            if text.contains(wanted) {
                return;
            }
            assert!(Instant::now() < end, "{args:?} never says {wanted}: {text}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn secure() -> Secure {
    let folder = tempfile::tempdir().unwrap();
    let certs = folder.path().join("certs");
    let (code, text) = init(&certs, &["--agent=w1"]);
    assert_eq!(code, Some(0), "{text}");
    let home = folder.path().join("muster");
    fs::create_dir(&home).unwrap();
    fs::copy(certs.join("contexts.toml"), home.join("config.toml")).unwrap();
    let mut stack = Secure {
        folder,
        running: BTreeMap::new(),
    };
    stack
        .start("offers-gateway", "offers-gateway.toml", &[])
        .await;
    let memory = "--store=memory:".to_owned();
    stack
        .start(
            "worker-registry",
            "worker-registry.toml",
            std::slice::from_ref(&memory),
        )
        .await;
    let workers = stack.at("workers-addr", "worker-registry");
    let offers = stack.at("offers-addr", "offers-gateway");
    let manager = [memory, workers.clone(), offers];
    stack
        .start("replica-manager", "replica-manager.toml", &manager)
        .await;
    let data = stack.folder.path().join("w1");
    let agent = [
        "--name=w1".to_owned(),
        format!("--data={}", data.display()),
        "--advertise=localhost".to_owned(),
        workers,
        stack.at("replicas-addr", "replica-manager"),
    ];
    stack.start("worker-agent", "agent-w1.toml", &agent).await;
    stack
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_serves_by_tls_alone_and_roles_are_who_the_certificate_says() {
    let stack = secure().await;
    // The agent joins with its certificate: no token was made.
    stack.until("viewer", &["workers"], "ACTIVE").await;
    let (code, text) = stack.muster(Some("viewer"), &["drain", "w1", "--detach"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("viewer:viewer may not call"), "{text}");
    let (code, text) = stack.muster(Some("operator"), &["token", "create"]);
    assert_eq!(code, Some(1), "{text}");
    let (code, text) = stack.muster(Some("admin"), &["token", "create"]);
    assert_eq!(code, Some(0), "{text}");

    let (code, text) = stack.muster(None, &["workers"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no credential"), "{text}");
    let (code, text) = stack.muster(None, &["health"]);
    assert_eq!(code, Some(0), "health needs no certificate: {text}");

    // The output comes from the agent through the manager, which has to speak TLS to it.
    let spec = stack.folder.path().join("hello.yaml");
    let text = "name: hello\nrun:\n  command: [sh, -c, 'echo from the replica; sleep 600']\n";
    fs::write(&spec, text).unwrap();
    let spec = spec.display().to_string();
    let (code, text) = stack.muster(Some("operator"), &["apply", "-f", &spec, "--wait"]);
    assert_eq!(code, Some(0), "{text}");
    stack
        .until("viewer", &["logs", "hello"], "from the replica")
        .await;
    let (code, text) = stack.muster(Some("viewer"), &["ps", "hello"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("hello/0"), "{text}");
    // A name that is mistyped is told apart from a service that has no replica.
    for more in [&["ps", "helo"][..], &["ps", "helo", "--watch"]] {
        let (code, text) = stack.muster(Some("viewer"), more);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("there is no service \"helo\""), "{text}");
    }
    // Two specs are two explanations in one document.
    let two = stack.folder.path().join("two.yaml");
    let text = ["a", "b"].map(|name| format!("name: {name}\nrun:\n  command: [sleep, '600']\n"));
    fs::write(&two, text.join("---\n")).unwrap();
    let two = two.display().to_string();
    let (code, text) = stack.muster(Some("viewer"), &["explain", "-f", &two]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("a:\na has not been applied\n"), "{text}");
    assert!(text.contains("\n\nb:\nb has not been applied\n"), "{text}");
    let (code, text) = stack.muster(Some("viewer"), &["explain", "-f", &two, "-o", "json"]);
    assert_eq!(code, Some(0), "{text}");
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document.as_array().map(Vec::len), Some(2), "{text}");
    let (code, text) = stack.muster(Some("operator"), &["rm", "hello", "-y", "--wait"]);
    assert_eq!(code, Some(0), "{text}");
}
