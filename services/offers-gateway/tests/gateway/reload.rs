//! The real process: its config file checked at the start, and read again on SIGHUP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_proto::offers::v1 as pb;
use muster_runtime::connect::{Connector, Options};
use tokio::time::{sleep, timeout};

use crate::services::{Play, Scripted, message, offer};
use crate::support::{Client, ids, write_catalog};

const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway in a process of its own, ended when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    pub(crate) client: Client,
    ops: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn command(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offers-gateway"));
    command
        .args(["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"])
        .args(["--log", "json", "--config"])
        .arg(config)
        .stdin(Stdio::null());
    for variable in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(variable);
        command.env_remove(variable.to_ascii_lowercase());
    }
    command
}

/// The value of a field of a JSON log line.
fn field(line: &str, name: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!("\"{name}\":\""))?;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

impl Process {
    async fn start(config: &Path) -> Self {
        Self::run(command(config)).await
    }

    pub(crate) async fn run(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let keep = |from: Box<dyn std::io::Read + Send>, log: Arc<Mutex<Vec<String>>>| {
            std::thread::spawn(move || {
                for line in BufReader::new(from).lines().map_while(Result::ok) {
                    log.lock().unwrap().push(line);
                }
            });
        };
        keep(Box::new(out), Arc::clone(&log));
        keep(Box::new(err), Arc::clone(&log));
        let find = |name: &str| {
            let log = log.lock().unwrap();
            let starting = log.iter().find(|line| line.contains("\"starting\""))?;
            field(starting, name)
        };
        let address = until("it starts", async || find("address")).await;
        let channel = Connector::new(Options::default())
            .channel(&format!("http://{address}").parse().unwrap());
        let ops = find("ops").unwrap();
        until("it serves", async || TcpStream::connect(&ops).ok()).await;
        Self {
            child,
            log,
            client: Client::new(channel),
            ops,
        }
    }

    fn hang_up(&self) {
        let sent = Command::new("kill")
            .args(["-HUP", &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    pub(crate) fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(&self.ops).unwrap();
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) async fn offers(&self) -> pb::ListOffersResponse {
        let mut client = self.client.clone();
        let answer = client.list_offers(pb::ListOffersRequest::default()).await;
        answer.unwrap().into_inner()
    }

    /// Waits until the configuration has been read again with this outcome, so often.
    async fn reloaded(&self, outcome: &str, times: u32) {
        let line = format!("muster_config_reloads_total{{outcome=\"{outcome}\"}} {times}");
        let seen = async || self.metrics().contains(&line).then_some(());
        until("it has read its configuration again", seen).await;
    }
}

pub(crate) async fn until<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let asked = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| panic!("not before long: {what}"))
}

fn backend(folder: &Path, name: &str, file: &str, more: &str) -> String {
    let path: PathBuf = folder.join(file);
    format!("[[backend]]\nname = {name:?}\nkind = \"catalog\"\npath = {path:?}\n{more}\n")
}

#[test]
fn every_error_of_the_file_is_told_before_anything_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    std::fs::write(
        &config,
        "[[backend]]\nname = \"a\"\nkind = \"catalg\"\nurl = 5\n[outcomes]\nhalf_lif = 1\n",
    )
    .unwrap();
    let ended = command(&config).output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    let words = String::from_utf8(ended.stderr).unwrap();
    for expected in [
        "gateway.toml: 2 errors",
        "line 3: backend \"a\": kind: there is no kind \"catalg\"; did you mean \"catalog\"?",
        "line 6: outcomes: unknown key half_lif; did you mean half_life?",
    ] {
        assert!(words.contains(expected), "{expected} is not in {words}");
    }
}

#[test]
fn a_folder_that_offers_cannot_be_kept_in_is_told_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    std::fs::write(&config, "").unwrap();
    let mut command = command(&config);
    // A file is in its place.
    command.args(["--store", "memory:", "--data"]).arg(&config);
    let ended = command.output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let log = String::from_utf8(ended.stdout).unwrap() + &String::from_utf8(ended.stderr).unwrap();
    assert!(log.contains("gateway.toml/offers"), "{log}");
}

#[tokio::test]
async fn a_good_file_is_taken_whole_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (file, price) in [("a.csv", 1), ("b.csv", 2), ("b2.csv", 3), ("c.csv", 4)] {
        write_catalog(&path.join(file), &format!("m,,,2,4,{price},,eu\n"));
    }
    let config = path.join("gateway.toml");
    let first =
        backend(path, "a", "a.csv", "refresh_interval = \"1h\"") + &backend(path, "b", "b.csv", "");
    std::fs::write(&config, &first).unwrap();
    let process = Process::start(&config).await;
    let before = process.offers().await;
    assert_eq!(ids(&before.offers), ["a/eu/m/ondemand", "b/eu/m/ondemand"]);
    std::fs::write(&config, first.replace("1h", "soon") + "[outcomez]\n").unwrap();
    process.hang_up();
    process.reloaded("refused", 1).await;
    let log = process.log.lock().unwrap().join("\n");
    assert!(log.contains("configuration refused"), "{log}");
    assert!(
        log.contains("refresh_interval: ") && log.contains("did you mean outcomes?"),
        "{log}"
    );
    assert_eq!(process.offers().await.offers, before.offers);
    let second = backend(path, "a", "a.csv", "refresh_interval = \"1h\"")
        + &backend(path, "b", "b2.csv", "")
        + &backend(path, "c", "c.csv", "");
    std::fs::write(&config, second).unwrap();
    process.hang_up();
    process.reloaded("taken", 1).await;
    let after = process.offers().await;
    let prices = crate::support::prices(&after.offers);
    assert_eq!(
        ids(&after.offers),
        ["a/eu/m/ondemand", "b/eu/m/ondemand", "c/eu/m/ondemand"]
    );
    assert_eq!(prices, [1_000_000, 3_000_000, 4_000_000]);
    assert_eq!(
        after.offers[0], before.offers[0],
        "its offers were not read again"
    );
    std::fs::write(&config, backend(path, "c", "c.csv", "")).unwrap();
    process.hang_up();
    process.reloaded("taken", 2).await;
    assert_eq!(ids(&process.offers().await.offers), ["c/eu/m/ondemand"]);
    let metrics = process.metrics();
    assert!(
        !metrics.contains("backend=\"a\"") && metrics.contains("backend=\"c\""),
        "{metrics}"
    );
}

#[tokio::test]
async fn callers_in_flight_are_not_disturbed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (file, price) in [("a.csv", 1), ("c.csv", 4)] {
        write_catalog(&path.join(file), &format!("m,,,2,4,{price},,eu\n"));
    }
    // It takes connections, and nobody ever says a word on them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let hanging = format!(
        "[[backend]]\nname = \"silent\"\nkind = \"grpc\"\naddress = \"http://{address}\"\n"
    );
    let (a, c) = (
        backend(path, "a", "a.csv", ""),
        backend(path, "c", "c.csv", ""),
    );
    let config = path.join("gateway.toml");
    std::fs::write(&config, format!("{a}{hanging}")).unwrap();
    let process = Process::start(&config).await;
    let mut client = process.client.clone();
    let mut request = tonic::Request::new(pb::ListOffersRequest {
        max_age: Some(prost_types::Duration::default()),
        backend_timeout: Some(prost_types::Duration {
            seconds: 30,
            nanos: 0,
        }),
        ..Default::default()
    });
    request.set_timeout(PATIENCE);
    let mut waiting = Box::pin(client.list_offers(request));
    std::fs::write(&config, format!("{a}{hanging}{c}")).unwrap();
    let asked = timeout(Duration::from_millis(200), &mut waiting).await;
    assert!(asked.is_err(), "it waits for the silent one");
    process.hang_up();
    process.reloaded("taken", 1).await;
    let asked = timeout(Duration::from_millis(50), &mut waiting).await;
    assert!(asked.is_err(), "it still does");
    std::fs::write(&config, format!("{a}{c}")).unwrap();
    process.hang_up();
    let answer = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(
        ids(&answer.into_inner().offers),
        ["a/eu/m/ondemand", "c/eu/m/ondemand"]
    );
}

#[tokio::test]
async fn a_list_that_is_being_replaced_loses_no_offers() {
    let folder = tempfile::tempdir().unwrap();
    let lists = folder.path().join("lists");
    for (name, price) in [("a", 1), ("b", 2)] {
        std::fs::create_dir_all(lists.join(name)).unwrap();
        let file = lists.join(name).join("vms.csv");
        write_catalog(&file, &format!("m,,,2,4,{price},,eu\n"));
    }
    let config = folder.path().join("gateway.toml");
    std::fs::write(&config, format!("catalog = {lists:?}\n")).unwrap();
    let process = Process::start(&config).await;
    let before = process.offers().await;
    assert_eq!(ids(&before.offers), ["a/eu/m/ondemand", "b/eu/m/ondemand"]);
    std::fs::remove_file(lists.join("a/vms.csv")).unwrap();
    for times in [1, 2] {
        process.hang_up();
        process.reloaded("taken", times).await;
        assert_eq!(process.offers().await.offers, before.offers);
    }
    std::fs::remove_dir(lists.join("a")).unwrap();
    process.hang_up();
    process.reloaded("taken", 3).await;
    assert_eq!(ids(&process.offers().await.offers), ["b/eu/m/ondemand"]);
}

#[tokio::test]
async fn what_takes_a_restart_is_said_and_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_catalog(&path.join("a.csv"), "m,,,2,4,1,,eu\n");
    let config = path.join("gateway.toml");
    let listed = backend(path, "a", "a.csv", "");
    std::fs::write(&config, &listed).unwrap();
    let process = Process::start(&config).await;
    let hash = "0".repeat(64);
    let auth = format!("[[auth]]\nname = \"a\"\nrole = \"admin\"\ntoken_sha256 = {hash:?}\n");
    let outcomes = "[outcomes]\nhalf_life = \"2h\"\n";
    std::fs::write(
        &config,
        format!("max_in_flight = 77\nbackend_timeout = \"4s\"\n{listed}{auth}{outcomes}"),
    )
    .unwrap();
    process.hang_up();
    process.reloaded("taken", 1).await;
    let said = async || {
        let log = process.log.lock().unwrap();
        let line = log.iter().find(|line| line.contains("take a restart"))?;
        Some(line.clone())
    };
    let said = until("it is said", said).await;
    assert!(
        said.contains("max_in_flight") && said.contains("outcomes"),
        "{said}"
    );
    for taken in ["auth", "backend"] {
        assert!(!said.contains(taken), "{taken}: {said}");
    }
    let mut client = process.client.clone();
    let refused = client.list_offers(pb::ListOffersRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn a_backend_whose_key_is_gone_has_nothing_to_show() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_catalog(&path.join("a.csv"), "m,,,2,4,1,,eu\n");
    let described = muster_proto::backend::v1::DescribeBackendResponse {
        live_capacity: true,
        ..Default::default()
    };
    let play = Play::Sends(vec![message(vec![offer("big", 2)], "")]);
    let (_scripted, address) = Scripted::serve(described, play).await;
    let (config, key) = (path.join("gateway.toml"), path.join("key"));
    std::fs::write(&key, "hush").unwrap();
    let keyed = format!(
        "[[backend]]\nname = \"own\"\nkind = \"grpc\"\naddress = \"http://{address}\"\nkey_file = {key:?}\n"
    );
    std::fs::write(&config, backend(path, "a", "a.csv", "") + &keyed).unwrap();
    let process = Process::start(&config).await;
    let before = process.offers().await;
    assert_eq!(
        ids(&before.offers),
        ["a/eu/m/ondemand", "own/eu/big/ondemand"]
    );
    std::fs::remove_file(&key).unwrap();
    process.hang_up();
    process.reloaded("taken", 1).await;
    let after = process.offers().await;
    assert_eq!(
        after.backends[1].refresh(),
        pb::BackendRefresh::Disabled,
        "nobody asks it, nor lets its offers grow old"
    );
    assert_eq!(after.backends[1].data(), pb::BackendData::None);
    assert_eq!(ids(&after.offers), ["a/eu/m/ondemand"]);
    std::fs::write(&key, "hush").unwrap();
    process.hang_up();
    process.reloaded("taken", 2).await;
    assert_eq!(process.offers().await.offers.len(), 2);
}

#[tokio::test]
async fn what_a_reporter_was_told_takes_no_place_of_the_log_s_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_catalog(&path.join("a.csv"), "m,,,2,4,1,,eu\n");
    let config = path.join("gateway.toml");
    std::fs::write(&config, backend(path, "a", "a.csv", "")).unwrap();
    let process = Process::start(&config).await;
    let told = pb::ReportOfferRequest {
        offer_id: "a/eu/m/ondemand".to_owned(),
        outcome: pb::OfferOutcome::NoCapacity.into(),
        message: "come back later".to_owned(),
        ..Default::default()
    };
    process.client.clone().report_offer(told).await.unwrap();
    let logged = async || {
        let log = process.log.lock().unwrap();
        let line = log.iter().find(|line| line.contains("come back later"))?;
        Some(line.clone())
    };
    let line = until("it is logged", logged).await;
    assert_eq!(line.matches("\"message\":").count(), 1, "{line}");
    assert!(line.contains("outcome of an offer told"), "{line}");
}
