//! What a user wants to run, whole: every default is filled in and every rule holds. `check` finds what
//! breaks a rule, `diff` what differs between two.

pub mod check;
pub mod defaults;
pub mod diff;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;
use std::time::Duration;

use muster_model::constraints::Constraints;
use muster_model::requirements::Requirements;
use serde::{Deserialize, Serialize};

use super::failure::policy::Retry;

/// What a user wants to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The service's name.
    pub name: String,
    /// How many replicas.
    pub replicas: Count,
    /// What to run.
    pub run: Run,
    /// What each replica needs of its machine.
    pub resources: Requirements,
    /// Where replicas may run.
    pub placement: Placement,
    /// From the start of an attempt until it is ready.
    pub start_timeout: Duration,
    /// How it is found out that a replica is well.
    pub probes: Probes,
    /// Fewer ready replicas than this, and the service is DOWN.
    pub min_healthy: u32,
    /// What happens when a replica fails; `None` is fail fast.
    pub retry: Option<Retry>,
    /// How the number of replicas follows the load.
    pub scaling: Option<Scaling>,
    /// How a new version replaces the old one.
    pub update: Update,
    /// What a replica is given to stop.
    pub stop_grace: Duration,
    /// What a replica does when its machine is cut off.
    pub on_disconnect: OnDisconnect,
    /// Labels of the service, for its users.
    pub labels: BTreeMap<String, String>,
}

/// How many replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// At least this many.
    pub min: u32,
    /// At most this many, with spares.
    pub max: u32,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// How it runs.
    pub runtime: Runtime,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its environment, in the order given.
    pub env: Vec<(String, String)>,
    /// The ports that it listens on.
    pub ports: Vec<Port>,
    /// What of the host it sees.
    pub volumes: Vec<Volume>,
    /// The folder it starts in; empty is one of its own.
    pub working_dir: String,
}

/// What viewers are shown in place of a value of the environment.
pub const MASKED: &str = "***";

/// How it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// As a process of the machine.
    Process,
    /// In a container of this image.
    Container {
        /// The image.
        image: String,
    },
}

/// A logical port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// 1 to 65535, unique in the service.
    pub number: u32,
    /// For people and probes; empty is none.
    pub name: String,
    /// UDP instead of TCP.
    pub udp: bool,
    /// Keeps the number.
    pub host_port: bool,
}

/// A part of the host that a replica sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Absolute, on the host.
    pub host_path: String,
    /// Absolute, where it is seen.
    pub mount_path: String,
    /// Whether it may only be read.
    pub read_only: bool,
}

/// Where replicas may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// What every worker must be like.
    pub constraints: Constraints,
    /// As close together as possible, instead of on different workers.
    pub packed: bool,
}

/// How it is found out that a replica is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Whether it may get traffic; `None`: ready after running for 1 s.
    pub ready: Option<Probe>,
    /// Whether it has to be restarted; `None`: never.
    pub alive: Option<Probe>,
}

/// One way of asking a replica how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// How it asks.
    pub check: Check,
    /// Time from one try to the next.
    pub interval: Duration,
    /// How long one try may take.
    pub timeout: Duration,
    /// Successes in a row that make it well.
    pub successes: u32,
    /// Failures in a row that make it unwell.
    pub failures: u32,
}

/// How a probe asks. Port 0 is the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// An HTTP request.
    Http {
        /// A logical port.
        port: u32,
        /// The path.
        path: String,
    },
    /// A TCP connection.
    Tcp {
        /// A logical port.
        port: u32,
    },
    /// The gRPC health protocol.
    Grpc {
        /// A logical port.
        port: u32,
        /// The service's full name; empty is the server.
        service: String,
    },
    /// A command that ends with 0.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
    },
}

/// How the number of replicas follows the load.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// What is measured.
    pub metric: Metric,
    /// What one replica should have of it, above 0.
    pub target: f64,
    /// How long more has to be needed before replicas are added.
    pub up_delay: Duration,
    /// How long fewer have to be enough before replicas are stopped.
    pub down_delay: Duration,
    /// The logical port that a metric is scraped from; 0 is the first.
    pub port: u32,
    /// The path that it is scraped from.
    pub path: String,
}

/// What is measured for scaling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// A Prometheus metric of the replicas.
    Prometheus(String),
    /// Use of processors in percent.
    Cpu,
    /// Use of accelerators in percent.
    Gpu,
    /// What ReportLoad says.
    Load,
}

/// How a new version replaces the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// Replicas above the wanted number.
    pub max_surge: u32,
    /// Ready replicas below the wanted number.
    pub max_unavailable: u32,
    /// How long a new replica has to be ready before an old one is stopped.
    pub min_ready: Duration,
    /// How long an update may go without progress.
    pub progress_deadline: Duration,
}

/// What a replica does when its machine is cut off from the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnDisconnect {
    /// It runs on.
    Keep,
    /// It is stopped on its machine before another one starts elsewhere.
    Stop,
}

impl Spec {
    /// The ports of the host that each replica takes.
    #[must_use]
    pub fn host_ports(&self) -> Vec<u32> {
        let kept = self.run.ports.iter().filter(|port| port.host_port);
        kept.map(|port| port.number).collect()
    }
}
