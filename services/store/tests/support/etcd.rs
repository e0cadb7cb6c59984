//! An etcd of one or more members that a test starts for itself, in a folder of its own, on ports that are
//! free; it ends with the test.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

pub(crate) struct Etcd {
    folder: TempDir,
    members: Vec<Member>,
    /// What every member is told beside.
    arguments: Vec<String>,
    scheme: &'static str,
}

struct Member {
    client: String,
    peer: String,
    process: Option<Child>,
}

impl Etcd {
    /// Starts so many members; none if there is no etcd on the PATH, which is said.
    pub(crate) fn start(members: usize) -> Option<Self> {
        Self::start_with(members, "http", Vec::new())
    }

    /// As `start`, for clients of this scheme and with further arguments.
    pub(crate) fn start_with(
        members: usize,
        scheme: &'static str,
        arguments: Vec<String>,
    ) -> Option<Self> {
        let found = Command::new("etcd").arg("--version").output();
        if found.is_err() {
            #[allow(clippy::print_stdout, reason = "a test says why it did nothing")]
            {
                println!("SKIPPED: there is no etcd on the PATH (Debian: etcd-server)");
            }
            return None;
        }
        let member = |_| Member {
            client: free_address(),
            peer: free_address(),
            process: None,
        };
        let mut etcd = Self {
            folder: tempfile::tempdir().unwrap(),
            members: (0..members).map(member).collect(),
            arguments,
            scheme,
        };
        for index in 0..members {
            etcd.run(index);
        }
        Some(etcd)
    }

    /// What stands after `etcd:` for a store under this prefix.
    pub(crate) fn address(&self, prefix: &str) -> String {
        let hosts: Vec<_> = self.members.iter().map(|member| &*member.client).collect();
        format!("{}://{}/{prefix}", self.scheme, hosts.join(","))
    }

    /// Runs a member, which finds what it had.
    pub(crate) fn run(&mut self, index: usize) {
        let peers = self.members.iter().enumerate();
        let peers: Vec<_> = peers
            .map(|(index, member)| format!("m{index}=http://{}", member.peer))
            .collect();
        let name = format!("m{index}");
        let data = self.folder.path().join(&name);
        let member = &mut self.members[index];
        let (client, peer) = (
            format!("{}://{}", self.scheme, member.client),
            format!("http://{}", member.peer),
        );
        let child = Command::new("etcd")
            .args(["--name", &name, "--data-dir"])
            .arg(&data)
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &peers.join(",")])
            .args(&self.arguments)
            .args(["--logger", "zap", "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(log(self.folder.path(), &name))
            .spawn();
        member.process = Some(child.unwrap());
    }

    /// Kills a member, as a power cut would.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.members[index].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Sends a signal, such as STOP or CONT, to a member.
    #[allow(dead_code, reason = "not every test that starts an etcd pauses it")]
    pub(crate) fn signal(&self, index: usize, signal: &str) {
        let process = self.members[index].process.as_ref().unwrap();
        let sent = Command::new("kill")
            .args(["-s", signal, &process.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index);
        }
    }
}

fn log(folder: &Path, name: &str) -> std::fs::File {
    std::fs::File::options()
        .append(true)
        .create(true)
        .open(folder.join(format!("{name}.log")))
        .unwrap()
}

/// A port that was free a moment ago.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
