//! What `-w` of the command line shows of offers and their backends: changes as they come, whatever
//! becomes of the gateway meanwhile.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use muster_proto::offers::v1::{RefreshBackendRequest, offers_service_client::OffersServiceClient};
use muster_tests::fleet::{self, Process};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout},
    sync::watch,
    time::{Instant, sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_component"))
}

/// A gateway with one price list, of one machine.
struct Gateway {
    folder: tempfile::TempDir,
    process: Process,
}

impl Gateway {
    async fn start(dollars: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_list(folder.path(), dollars);
        let path = |name: &str| folder.path().join(name).display().to_string();
        let args = [
            format!("--data={}", path("gateway")),
            format!("--catalog={}", path("catalog")),
        ];
        let address = fleet::free_port();
        let at = folder.path();
        let process = fleet::start(&program(), at, "offers-gateway", address, &args, &[]).await;
        Self { folder, process }
    }

    /// The machine costs so much from now on, and the gateway has read it.
    async fn change(&self, dollars: u32) {
        write_list(self.folder.path(), dollars);
        let url = format!("http://{}", self.process.address);
        let mut client = OffersServiceClient::connect(url).await.unwrap();
        let request = RefreshBackendRequest {
            name: "one".to_owned(),
            force: true,
        };
        client.refresh_backend(request).await.unwrap();
    }

    /// Waits until so many streams are open and nothing else is asked, time and again: nobody has any who
    /// only asks from time to time.
    async fn until_streams(&self, count: u32) {
        let end = Instant::now() + PATIENCE;
        let mut in_a_row = 0;
        while in_a_row < 10 {
            let metrics = self.process.get("/metrics");
            let name = "rpc_server_active_calls ";
            let open = metrics.lines().find_map(|line| line.strip_prefix(name));
            let open = open.expect("it is exported");
            let same = open.parse::<f64>().unwrap().to_bits() == f64::from(count).to_bits();
            in_a_row = if same { in_a_row + 1 } else { 0 };
            assert!(Instant::now() < end, "{open} of {count} streams are open");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn write_list(folder: &Path, dollars: u32) {
    let list = folder.join("catalog/one/vms.csv");
    fs::create_dir_all(list.parent().unwrap()).unwrap();
    let header =
        "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region";
    // In one step, since the gateway may read it at any time.
    let new = folder.join("new.csv");
    fs::write(&new, format!("{header}\na,H100,8,96,1900,{dollars},,eu\n")).unwrap();
    fs::rename(new, list).unwrap();
}

/// A way to the gateway whose connections can be ended; none is made until it is mended.
struct Way {
    address: SocketAddr,
    whole: watch::Sender<bool>,
}

impl Way {
    async fn to(gateway: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let whole = watch::Sender::new(true);
        let mut state = whole.subscribe();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                if state.wait_for(|whole| *whole).await.is_err() {
                    return;
                }
                let mut far = TcpStream::connect(gateway).await.unwrap();
                let mut state = state.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.wait_for(|whole| !whole) => {}
                    }
                });
            }
        });
        Self { address, whole }
    }
}

/// `muster ... -w`, read line by line; killed when dropped.
struct Watching {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(gateway: SocketAddr, args: &[&str]) -> Self {
        let mut command = fleet::command(&program(), "muster");
        command
            .env("XDG_CONFIG_HOME", "/nowhere")
            .args(args)
            .arg("-w")
            .arg(format!("--offers-addr=http://{gateway}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads until a line is as a test wants it.
    async fn until(&mut self, what: &str, test: impl Fn(&str) -> bool) {
        let reading = async {
            loop {
                let line = self.lines.next_line().await.unwrap();
                let line = line.unwrap_or_else(|| panic!("ended without {what}"));
                if test(&line) {
                    return;
                }
            }
        };
        let read = timeout(PATIENCE, reading).await;
        read.unwrap_or_else(|_| panic!("{what} is never shown"));
    }

    /// Reads until the machine is shown at this price, in JSON.
    async fn until_price(&mut self, dollars: u32) {
        let micros = format!("{dollars}000000");
        let test = |line: &str| {
            let answer: Value = serde_json::from_str(line).unwrap();
            answer["offers"][0]["price"]["microUsdPerHour"] == micros
        };
        self.until(&format!("${dollars}"), test).await;
    }

    /// Ends it as Ctrl-C does.
    async fn interrupt(mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offers_are_shown_as_they_change_and_a_restart_of_the_gateway_is_survived() {
    let mut gateway = Gateway::start(90).await;
    let address = gateway.process.address;
    let mut json = Watching::start(address, &["offers", "-o", "json"]);
    let mut table = Watching::start(address, &["offers"]);
    json.until_price(90).await;
    table.until("90.00", |line| line.contains("90.00")).await;
    // Of each, one for offers and one for backends.
    gateway.until_streams(4).await;
    gateway.change(91).await;
    json.until_price(91).await;
    table.until("91.00", |line| line.contains("91.00")).await;

    gateway.process.kill();
    write_list(gateway.folder.path(), 92);
    gateway.process.start().await;
    json.until_price(92).await;
    gateway.until_streams(4).await;
    gateway.change(93).await;
    json.until_price(93).await;
    table.until("93.00", |line| line.contains("93.00")).await;
    assert_eq!(json.interrupt().await.code(), Some(0));
    assert_eq!(table.interrupt().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_while_the_way_to_the_gateway_was_cut_is_shown_after_it() {
    let gateway = Gateway::start(90).await;
    let way = Way::to(gateway.process.address).await;
    let mut json = Watching::start(way.address, &["offers", "-o", "json"]);
    json.until_price(90).await;
    for dollars in [91, 92] {
        gateway.until_streams(2).await;
        way.whole.send_replace(false);
        gateway.until_streams(0).await;
        gateway.change(dollars).await;
        way.whole.send_replace(true);
        json.until_price(dollars).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_fails_is_told_below_the_offers_and_by_backends() {
    let gateway = Gateway::start(90).await;
    let address = gateway.process.address;
    let mut offers = Watching::start(address, &["offers"]);
    let mut backends = Watching::start(address, &["backends", "-o", "json"]);
    offers
        .until("its offer", |line| line.contains("90.00"))
        .await;
    backends.until("it", |line| line.contains("\"one\"")).await;
    gateway.until_streams(3).await;
    fs::remove_file(gateway.folder.path().join("catalog/one/vms.csv")).unwrap();
    let url = format!("http://{address}");
    let mut client = OffersServiceClient::connect(url).await.unwrap();
    let request = RefreshBackendRequest {
        name: "one".to_owned(),
        force: true,
    };
    client.refresh_backend(request).await.unwrap_err();
    let failed = |line: &str| line.starts_with("one: ") && line.contains("there is no file");
    offers.until("the failure", failed).await;
    let failed = |line: &str| line.contains("there is no file");
    backends.until("the failure", failed).await;
    for watching in [offers, backends] {
        assert_eq!(watching.interrupt().await.code(), Some(0));
    }
}
