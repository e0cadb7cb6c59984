//! A real etcd of one or three members, each a process that can be stopped for a while or killed.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use super::{PATIENCE, free_port};

/// The members, killed when dropped.
#[derive(Debug)]
pub struct Etcd {
    folder: tempfile::TempDir,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    child: Option<Child>,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|member| self.kill(member));
    }
}

/// Whether there is an etcd to start; where there is none it says so, and the test has nothing to do.
#[expect(clippy::print_stdout, reason = "whoever runs the tests is to see it")]
pub fn is_there() -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&paths).any(|path| path.join("etcd").is_file());
    if !there {
        println!("SKIPPED: there is no etcd on the PATH (Debian: etcd-server)");
    }
    there
}

impl Etcd {
    /// A cluster of so many members, which answers.
    pub async fn start(members: usize) -> Self {
        let member = |number| Member {
            name: format!("m{number}"),
            client: free_port(),
            peer: free_port(),
            child: None,
        };
        let mut etcd = Self {
            folder: tempfile::tempdir().unwrap(),
            members: (1..=members).map(member).collect(),
        };
        for member in 0..members {
            etcd.begin(member);
        }
        etcd.until_served().await;
        etcd
    }

    /// The store of a component below a prefix, by the members' addresses.
    pub fn store(&self, prefix: &str) -> String {
        let addresses: Vec<_> = self.clients().iter().map(ToString::to_string).collect();
        format!("etcd:http://{}/{prefix}", addresses.join(","))
    }

    /// Where the members are.
    pub fn clients(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.client).collect()
    }

    /// Ends a member as a crash would.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stands all members still.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets them go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let running = self.members.iter().filter_map(|one| one.child.as_ref());
        for child in running {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            kill_process(pid, signal).unwrap();
        }
    }

    fn begin(&mut self, member: usize) {
        let all: Vec<_> = self
            .members
            .iter()
            .map(|one| format!("{}=http://{}", one.name, one.peer))
            .collect();
        let one = &mut self.members[member];
        let data = self.folder.path().join(&one.name);
        let log = std::fs::File::create(log_of(self.folder.path(), &one.name)).unwrap();
        let url = |address: SocketAddr| format!("http://{address}");
        let child = Command::new("etcd")
            .arg(format!("--name={}", one.name))
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--listen-client-urls={}", url(one.client)))
            .arg(format!("--advertise-client-urls={}", url(one.client)))
            .arg(format!("--listen-peer-urls={}", url(one.peer)))
            .arg(format!("--initial-advertise-peer-urls={}", url(one.peer)))
            .arg(format!("--initial-cluster={}", all.join(",")))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        one.child = Some(child);
    }

    /// Waits until every member has a leader: it says so by being healthy.
    async fn until_served(&self) {
        let end = Instant::now() + PATIENCE;
        for member in &self.members {
            while !is_healthy(member.client).await {
                let log = std::fs::read_to_string(log_of(self.folder.path(), &member.name));
                assert!(
                    Instant::now() < end,
                    "etcd does not serve: {}",
                    log.unwrap_or_default()
                );
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn log_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

async fn is_healthy(address: SocketAddr) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return false;
    };
    let asked = stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").await;
    let mut answer = String::new();
    asked.is_ok()
        && stream.read_to_string(&mut answer).await.is_ok()
        && answer.contains(r#""health":"true""#)
}
