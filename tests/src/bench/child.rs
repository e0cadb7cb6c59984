//! A component as a child process: started on free ports, waited for, killed when dropped.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;

use super::calls;
use super::component::Component;
use super::connection::Connection;
use super::system;

/// The longest time that a child may take to serve.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time from one look at a starting child to the next.
const LOOK: Duration = Duration::from_micros(500);

/// Names a folder whose programs are measured in place of those that this one was built with, where it
/// has them: so that two builds of a component are compared by one bench.
const PROGRAMS: &str = "BENCH_PROGRAMS";

/// How to start a component.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    component: Component,
    args: Vec<OsString>,
    log: PathBuf,
}

/// A running component.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    address: SocketAddr,
    ops: SocketAddr,
    pid: u32,
    /// From before the process was made until it said SERVING.
    started_in: Duration,
}

impl Plan {
    /// `component` without flags of its own; its log goes to a file in `folder`.
    pub(super) fn new(component: Component, folder: &Path) -> Self {
        Self {
            component,
            args: Vec::new(),
            log: folder.join(format!("{}.log", component.name())),
        }
        .arg("log-filter", "warn")
    }

    pub(super) fn arg(mut self, flag: &str, value: impl AsRef<OsStr>) -> Self {
        let mut arg = OsString::from(format!("--{flag}="));
        arg.push(value);
        self.args.push(arg);
        self
    }

    pub(super) fn flag(mut self, flag: &str) -> Self {
        self.args.push(format!("--{flag}").into());
        self
    }

    /// Starts it and waits until it is SERVING.
    pub(super) async fn start(&self) -> anyhow::Result<Child> {
        let (address, ops) = (free_port()?, free_port()?);
        let begun = Instant::now();
        let process = self.command(address, ops)?.spawn()?;
        let pid = process.id().context("the child has ended already")?;
        let mut child = Child {
            process,
            address,
            ops,
            pid,
            started_in: Duration::ZERO,
        };
        let name = self.component.name();
        if let Err(error) = child.until_serving(begun + PATIENCE).await {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            return Err(error.context(format!("{name} did not start; its log:\n{log}")));
        }
        child.started_in = begun.elapsed();
        Ok(child)
    }

    fn program(&self) -> anyhow::Result<PathBuf> {
        let name = self.component.name();
        let other = std::env::var_os(PROGRAMS).map(|folder| PathBuf::from(folder).join(name));
        match other.filter(|program| program.is_file()) {
            Some(program) => Ok(program),
            None => Ok(std::env::current_exe()?),
        }
    }

    fn command(&self, address: SocketAddr, ops: SocketAddr) -> anyhow::Result<Command> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(self.program()?);
        command.arg0(self.component.name());
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("MUSTER_") {
                command.env_remove(variable);
            }
        }
        command
            .arg(format!("--listen={address}"))
            .arg(format!("--ops-listen={ops}"))
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        Ok(command)
    }
}

impl Child {
    /// Processor time used so far.
    pub(super) fn cpu_time(&self) -> anyhow::Result<Duration> {
        system::cpu_time(self.pid)
    }

    pub(super) fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Resident memory now, in MB.
    pub(super) fn memory(&self) -> anyhow::Result<f64> {
        system::resident_mb(self.pid)
    }

    /// Where it serves, as others are told.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One number of those that it tells Prometheus.
    pub(super) async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let mut stream = TcpStream::connect(self.ops).await?;
        stream
            .write_all(b"GET /metrics HTTP/1.0\r\nHost: bench\r\n\r\n")
            .await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.with_context(|| format!("no metric {name}"))?;
        Ok(value.trim().parse()?)
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(self.address).await
    }

    /// As many connections as clients.
    pub(super) async fn connections(&self, count: usize) -> anyhow::Result<Vec<Connection>> {
        let mut channels = Vec::with_capacity(count);
        for _ in 0..count {
            channels.push(self.connect().await?);
        }
        Ok(channels)
    }

    /// Ends it at once, as `kill -9` does.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill().await?;
        Ok(())
    }

    async fn until_serving(&mut self, deadline: Instant) -> anyhow::Result<()> {
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait()? {
                bail!("it ended: {status}");
            }
            // A refused connection is cheaper to find by TCP than by a whole gRPC client.
            if TcpStream::connect(self.address).await.is_ok()
                && calls::is_serving(self.connect().await?).await
            {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("it did not serve within {PATIENCE:?}")
    }
}

/// A port of the loopback interface that nobody uses now.
pub(super) fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    Ok(listener.local_addr()?)
}
