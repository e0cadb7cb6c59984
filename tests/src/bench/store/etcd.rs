//! The same on an etcd of one member, which this bench starts for itself where there is one on the PATH. There
//! are no targets: what etcd does in a second is etcd's.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use muster_store::{OpenError, Options, Store};
use tokio::time::{Instant, sleep};

use super::super::Setup;
use super::super::figure::{Figure, Report};
use super::super::load::{self, Window};
use super::super::statistics::{median, millis};
use super::{Writer, fan_out, recovery};

/// How long etcd may take to start.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
const OPENINGS: usize = 5;

pub(super) async fn run(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    if Command::new("etcd").arg("--version").output().is_err() {
        super::super::say("no etcd on the PATH: its figures are left out");
        return Ok(());
    }
    let folder = setup.temporary()?;
    let server = Server::start(folder.path())?;
    transactions(setup, &server, report).await?;
    let store = server.open("fan-out").await?;
    fan_out::measure("etcd-", &store, setup, report).await?;
    store.close().await;
    openings(setup, &server, report).await
}

async fn transactions(setup: &Setup, server: &Server, report: &mut Report) -> anyhow::Result<()> {
    for writers in [1, 16, 256] {
        let store = server.open(&format!("writers-{writers}")).await?;
        let mut clients = (0..writers).map(|n| Writer::new(&store, n)).collect();
        let rounds = setup.rounds();
        let mut windows = Vec::new();
        for _ in 0..rounds.count {
            windows.push(load::window(&mut clients, rounds.length).await?);
        }
        store.close().await;
        let of = |number: fn(&Window) -> f64| median(windows.iter().map(number).collect());
        let name = |what: &str| format!("etcd-transactions-{writers}-writers-{what}");
        report.add(Figure::new(name("rate"), of(Window::rate), "1/s"));
        report.add(Figure::new(name("p50"), of(Window::p50), "us"));
        report.add(Figure::new(name("p99"), of(Window::p99), "us"));
    }
    Ok(())
}

/// How long an instance takes to read all records anew.
async fn openings(setup: &Setup, server: &Server, report: &mut Report) -> anyhow::Result<()> {
    let each = setup.size(100_000, 2_000);
    let store = server.open("full").await?;
    recovery::fill(&store, each).await?;
    store.close().await;
    let mut times = Vec::new();
    for _ in 0..OPENINGS {
        let start = Instant::now();
        let store = server.open("full").await?;
        times.push(millis(start.elapsed()));
        let workers = store.list("workers/").await?.records.len();
        let replicas = store.list("replicas/").await?.records.len();
        ensure!(workers + replicas == 2 * each, "records are missing");
        store.close().await;
    }
    let name = format!("etcd-open-{each}-workers-{each}-replicas");
    report.add(Figure::new(name, median(times), "ms"));
    Ok(())
}

/// An etcd that ends with the bench.
struct Server {
    process: Child,
    client: String,
}

impl Server {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let (client, peer) = (free_address()?, free_address()?);
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        let process = Command::new("etcd")
            .args(["--name", "bench", "--data-dir"])
            .arg(folder.join("etcd"))
            .args(["--listen-client-urls", &client_url])
            .args(["--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url])
            .args(["--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("bench={peer_url}")])
            .args(["--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start etcd")?;
        Ok(Self { process, client })
    }

    async fn open(&self, prefix: &str) -> anyhow::Result<Store> {
        let address = format!("http://{}/{prefix}", self.client);
        let deadline = Instant::now() + STARTS_WITHIN;
        loop {
            match Store::etcd(&address, Options::default()).await {
                Err(OpenError::Unreachable { .. }) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(50)).await;
                }
                opened => return Ok(opened?),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that was free a moment ago.
fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
