//! A component as a process: started until it serves, signalled, killed, started again.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use muster_proto::health::v1::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};

use super::PATIENCE;

/// How a component is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Every component, by the name it is started under.
    pub program: PathBuf,
    /// Where its log goes.
    pub folder: PathBuf,
    pub name: String,
    pub address: SocketAddr,
    pub args: Vec<String>,
    pub environment: Vec<(String, String)>,
}

/// A component, which may be down; killed when dropped.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    child: Option<Child>,
    pub address: SocketAddr,
    /// Where health and metrics are, in plaintext.
    pub ops: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    /// One that is not started yet.
    pub fn new(launch: Launch) -> Self {
        Self {
            address: launch.address,
            ops: free_port(),
            child: None,
            launch,
        }
    }

    /// Another one that is started in the same way, when this one is down.
    pub fn again(&self) -> Self {
        Self::new(self.launch.clone())
    }

    /// Starts it and waits until it is SERVING.
    pub async fn start(&mut self) {
        let serves = self.start_with(&[]).await;
        assert!(serves, "{} ended\n{}", self.launch.name, self.log());
    }

    /// Starts it, and does not wait until it serves.
    pub fn begin(&mut self) {
        self.child = Some(self.spawn(&[]));
    }

    /// Starts it with more flags; false if it ends before it serves.
    pub async fn start_with(&mut self, flags: &[String]) -> bool {
        self.child = Some(self.spawn(flags));
        let end = Instant::now() + PATIENCE;
        while !serves(self.ops).await {
            if self.ended().is_some() {
                return false;
            }
            let name = &self.launch.name;
            assert!(
                Instant::now() < end,
                "{name} does not serve\n{}",
                self.log()
            );
            sleep(Duration::from_millis(20)).await;
        }
        true
    }

    fn spawn(&self, flags: &[String]) -> Child {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .unwrap();
        let environment = self.launch.environment.iter();
        command(&self.launch.program, &self.launch.name)
            .envs(environment.map(|(name, value)| (name, value)))
            .arg(format!("--listen={}", self.address))
            .arg(format!("--ops-listen={}", self.ops))
            .args(&self.launch.args)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap()
    }

    fn log_file(&self) -> PathBuf {
        let name = format!("{}-{}.log", self.launch.name, self.address.port());
        self.launch.folder.join(name)
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Ends it as a crash would, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Asks it to stop, and waits for how it has.
    pub async fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < end, "it does not stop");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it answers on its ops port.
    pub fn get(&self, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(self.ops).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// How it has ended, if it was started and has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().unwrap()
    }
}

/// `program` under the name of a component or of the command line, with none of this process's settings.
pub fn command(program: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    std::os::unix::process::CommandExt::arg0(&mut command, name);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("MUSTER_") {
            command.env_remove(variable);
        }
    }
    command
}

/// Starts a component under its name and waits until it is SERVING.
pub async fn start(
    program: &Path,
    folder: &Path,
    name: &str,
    address: SocketAddr,
    args: &[String],
    environment: &[(&str, &str)],
) -> Process {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut process = Process::new(Launch {
        program: program.to_owned(),
        folder: folder.to_owned(),
        name: name.to_owned(),
        address,
        args: args.to_vec(),
        environment: environment.iter().map(owned).collect(),
    });
    process.start().await;
    process
}

async fn serves(address: SocketAddr) -> bool {
    let Ok(channel) = dial(address).connect().await else {
        return false;
    };
    let request = HealthCheckRequest {
        service: "readiness".to_owned(),
    };
    let answer = HealthClient::new(channel).check(request).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}

fn dial(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(20))
}

/// For calls: each has a deadline.
pub fn channel(address: SocketAddr) -> Channel {
    dial(address).connect_lazy()
}

/// For streams, which may last longer than a call.
pub fn channel_for_streams(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy()
}

/// A port of the loopback interface that nobody uses now, nor will: it stays this component's when it is
/// down. So it is none of those that the kernel gives to connections, nor of those that agents give to
/// replicas, and never given twice, also not by the processes of two tests that run side by side.
pub fn free_port() -> SocketAddr {
    static PORTS: Mutex<Ports> = Mutex::new(Ports {
        rest: 0..0,
        held: Vec::new(),
    });
    let mut ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let address = loopback(ports.next());
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Ports that come in blocks.
const FIRST_PORT: u16 = 10_000;
const PORTS_OF_A_BLOCK: u16 = 64;
const BLOCKS: u16 = 150;

/// What a process may give: the blocks whose first ports it holds, which no other process gets meanwhile.
struct Ports {
    rest: Range<u16>,
    held: Vec<TcpListener>,
}

impl Ports {
    fn next(&mut self) -> u16 {
        if let Some(port) = self.rest.next() {
            return port;
        }
        let own = std::process::id() % u32::from(BLOCKS);
        let own = u16::try_from(own).unwrap();
        for block in (0..BLOCKS).map(|next| (own + next) % BLOCKS) {
            let first = FIRST_PORT + block * PORTS_OF_A_BLOCK;
            if let Ok(held) = TcpListener::bind(loopback(first)) {
                self.held.push(held);
                self.rest = first + 2..first + PORTS_OF_A_BLOCK;
                return first + 1;
            }
        }
        panic!("other tests hold all ports");
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Kills a process as a crash would end it.
pub fn kill(pid: i32) {
    // It may have ended by itself by now.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

/// Kills every process that was started with this folder in its arguments.
pub(super) fn kill_all_of(folder: &Path) {
    let folder = folder.to_string_lossy();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let pid = entry.file_name().to_string_lossy().parse();
        if let Ok(pid) = pid
            && String::from_utf8_lossy(&words).contains(&*folder)
        {
            kill(pid);
        }
    }
}

/// Whether a process is there and has not ended.
pub fn is_alive(pid: i32) -> bool {
    let there = test_kill_process(Pid::from_raw(pid).unwrap()).is_ok();
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let zombie = state
        .rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('Z'));
    there && !zombie
}
