//! From an assignment to what its supervisor runs: command, environment, ports, probes. It decides
//! what a replica sees of its machine, and starts nothing. What the machine cannot give is said in
//! words, and fails the attempt as CONFIG.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use muster_proto::replicas::v1::env_var::Source;
use muster_proto::replicas::v1::probe::Check;
use muster_proto::replicas::v1::run_spec::Runtime;
use muster_proto::replicas::v1::{Assignment, PortProtocol, Probe, RunSpec, Volume, volume};
use serde::{Deserialize, Serialize};

use crate::attempt_dir::{Container, Mount};
use crate::cgroup::Limits;
use crate::inventory;

/// What of the agent's own environment a process sees, where it is set.
const INHERITED: [&str; 8] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
];

/// A port of a replica, and where it really is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The number that the spec knows it by.
    pub logical: u16,
    /// Its name; may be empty.
    pub name: String,
    /// The port of this machine.
    pub real: u16,
    /// It speaks UDP.
    pub udp: bool,
}

/// A port that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedPort {
    /// The number that the spec knows it by.
    pub logical: u16,
    /// Its name; may be empty.
    pub name: String,
    /// It speaks UDP.
    pub udp: bool,
    /// It has to keep its number.
    pub fixed: bool,
}

/// How a replica is asked how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// By an HTTP request to a port of this machine.
    Http {
        /// The port.
        port: u16,
        /// The path, from its slash.
        path: String,
    },
    /// By a connection to a port of this machine.
    Tcp {
        /// The port.
        port: u16,
    },
    /// By the gRPC health protocol.
    Grpc {
        /// The port.
        port: u16,
        /// The service; empty is the whole server.
        service: String,
    },
    /// By a command.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
    },
}

/// The ports that an assignment asks for.
pub fn wanted_ports(assignment: &Assignment) -> Result<Vec<WantedPort>, String> {
    let ports = assignment.run.iter().flat_map(|run| &run.ports);
    ports
        .map(|port| {
            let logical = u16::try_from(port.number).ok().filter(|number| *number > 0);
            Ok(WantedPort {
                logical: logical.ok_or_else(|| format!("{} is no port", port.number))?,
                name: port.name.clone(),
                udp: port.protocol() == PortProtocol::Udp,
                fixed: port.host_port,
            })
        })
        .collect()
}

/// Why an assignment can never be run as it stands; nothing if it can.
pub fn misfit(assignment: &Assignment) -> Option<String> {
    check(assignment).err()
}

fn check(assignment: &Assignment) -> Result<(), String> {
    let run = run_of(assignment)?;
    let ports = wanted_ports(assignment)?;
    let as_is = |port: &WantedPort| Port {
        logical: port.logical,
        name: port.name.clone(),
        real: port.logical,
        udp: port.udp,
    };
    let ports: Vec<Port> = ports.iter().map(as_is).collect();
    for probe in [ready_probe(assignment), alive_probe(assignment)]
        .into_iter()
        .flatten()
    {
        target(probe, &ports)?;
    }
    spec_env(run)?;
    match &run.runtime {
        Some(Runtime::Process(_)) if run.command.is_empty() => {
            Err("the command is empty".to_owned())
        }
        Some(Runtime::Process(_)) if !run.volumes.is_empty() => {
            Err("a process sees its machine as it is: volumes need a container".to_owned())
        }
        Some(Runtime::Container(container)) if container.image.is_empty() => {
            Err("the image is missing".to_owned())
        }
        Some(Runtime::Container(_)) if !run.volumes.iter().all(is_mountable) => {
            Err("a volume needs two absolute paths".to_owned())
        }
        Some(Runtime::Process(_) | Runtime::Container(_)) => Ok(()),
        None => Err("the runtime is neither a process nor a container".to_owned()),
    }
}

/// What an assignment runs.
pub fn run_of(assignment: &Assignment) -> Result<&RunSpec, String> {
    assignment
        .run
        .as_ref()
        .ok_or_else(|| "nothing to run".to_owned())
}

/// How it is found out that a replica is ready.
pub fn ready_probe(assignment: &Assignment) -> Option<&Probe> {
    assignment.probes.as_ref()?.ready.as_ref()
}

/// How it is found out that a replica is alive.
pub fn alive_probe(assignment: &Assignment) -> Option<&Probe> {
    assignment.probes.as_ref()?.alive.as_ref()
}

/// What a probe asks, with the real port in place of the logical one.
pub fn target(probe: &Probe, ports: &[Port]) -> Result<Target, String> {
    let real = |logical: i32| real_port(logical, ports);
    match &probe.check {
        Some(Check::Http(http)) => Ok(Target::Http {
            port: real(http.port)?,
            path: if http.path.starts_with('/') {
                http.path.clone()
            } else {
                format!("/{}", http.path)
            },
        }),
        Some(Check::Tcp(tcp)) => Ok(Target::Tcp {
            port: real(tcp.port)?,
        }),
        Some(Check::Grpc(grpc)) => Ok(Target::Grpc {
            port: real(grpc.port)?,
            service: grpc.service.clone(),
        }),
        Some(Check::Command(exec)) if exec.command.is_empty() => {
            Err("a probe's command is empty".to_owned())
        }
        Some(Check::Command(exec)) => Ok(Target::Exec {
            command: exec.command.clone(),
        }),
        None => Err("a probe asks nothing".to_owned()),
    }
}

/// The real port behind a logical number; 0 is the first.
pub fn real_port(logical: i32, ports: &[Port]) -> Result<u16, String> {
    let found = if logical == 0 {
        ports.first()
    } else {
        ports.iter().find(|port| i32::from(port.logical) == logical)
    };
    found.map(|port| port.real).ok_or_else(|| {
        if logical == 0 {
            "a probe needs a port, and there is none".to_owned()
        } else {
            format!("a probe asks port {logical}, which is not in ports")
        }
    })
}

/// The whole environment of a process: a little of ours (`inherited` reads it), the spec's, and
/// what only we know, which wins.
pub fn process_env(
    assignment: &Assignment,
    ports: &[Port],
    inherited: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, String> {
    let own = INHERITED
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), inherited(name)?)));
    let mut env: BTreeMap<String, String> = own.collect();
    env.extend(spec_env(run_of(assignment)?)?);
    env.extend(muster_env(assignment, ports, |port| port.real));
    env.insert(
        "CUDA_VISIBLE_DEVICES".into(),
        assignment.gpu_uuids.join(","),
    );
    Ok(env.into_iter().collect())
}

/// What is added to the environment of a container's image. Its ports are its own, and only what it is given of
/// accelerators: images for these ask for all, and get them where NVIDIA's runtime is the engine's default.
pub fn container_env(
    assignment: &Assignment,
    ports: &[Port],
) -> Result<Vec<(String, String)>, String> {
    let mut env = spec_env(run_of(assignment)?)?;
    env.extend(muster_env(assignment, ports, |port| port.logical));
    let gpus = accelerators(assignment);
    let visible = if gpus.is_empty() {
        "void".to_owned()
    } else {
        gpus.join(",")
    };
    env.insert("NVIDIA_VISIBLE_DEVICES".into(), visible);
    Ok(env.into_iter().collect())
}

fn spec_env(run: &RunSpec) -> Result<BTreeMap<String, String>, String> {
    let mut env = BTreeMap::new();
    for variable in &run.env {
        let name = &variable.name;
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("{name:?} is no name of a variable"));
        }
        let value = match &variable.source {
            Some(Source::Value(value)) if value.contains('\0') => {
                return Err(format!("the value of {name} has a zero byte"));
            }
            Some(Source::Value(value)) => value.clone(),
            Some(Source::Secret(_)) => return Err(format!("{name}: secrets are not served yet")),
            None => String::new(),
        };
        env.insert(name.clone(), value);
    }
    Ok(env)
}

fn muster_env(
    assignment: &Assignment,
    ports: &[Port],
    number: impl Fn(&Port) -> u16,
) -> Vec<(String, String)> {
    let mut env = vec![
        ("MUSTER_REPLICA".to_owned(), assignment.replica.clone()),
        ("MUSTER_SERVICE".to_owned(), assignment.service.clone()),
        ("MUSTER_ATTEMPT".to_owned(), assignment.attempt_id.clone()),
    ];
    let first = ports
        .first()
        .map(|port| ("PORT".to_owned(), number(port).to_string()));
    env.extend(first);
    let each = |port: &Port| {
        (
            format!("MUSTER_PORT_{}", port.logical),
            number(port).to_string(),
        )
    };
    env.extend(ports.iter().map(each));
    env
}

/// What a process may use; a container is told by itself.
pub(crate) fn limits(assignment: &Assignment) -> Option<Limits> {
    let run = assignment.run.as_ref()?;
    matches!(run.runtime, Some(Runtime::Process(_))).then(|| Limits {
        cpu_milli: i64::from(assignment.cpu_milli),
        memory_bytes: i64::from(assignment.memory_mib) << 20,
    })
}

/// The container that an assignment asks for; nothing for a process.
pub fn container(assignment: &Assignment, ports: &[Port], socket: &Path) -> Option<Container> {
    let run = assignment.run.as_ref()?;
    let Some(Runtime::Container(container)) = &run.runtime else {
        return None;
    };
    let protocol = |port: &Port| if port.udp { "udp" } else { "tcp" }.to_owned();
    Some(Container {
        socket: socket.to_owned(),
        name: container_name(&assignment.attempt_id),
        image: container.image.clone(),
        ports: ports
            .iter()
            .map(|port| (port.logical, port.real, protocol(port)))
            .collect(),
        mounts: run.volumes.iter().filter_map(mount).collect(),
        gpu_uuids: accelerators(assignment),
        cpu_milli: i64::from(assignment.cpu_milli),
        memory_bytes: i64::from(assignment.memory_mib) << 20,
    })
}

/// The accelerators of an assignment, as far as they are real.
pub fn accelerators(assignment: &Assignment) -> Vec<String> {
    let uuids = assignment.gpu_uuids.iter();
    uuids
        .filter(|uuid| !uuid.starts_with(inventory::SIMULATED))
        .cloned()
        .collect()
}

/// The name of an attempt's container.
pub fn container_name(attempt: &str) -> String {
    format!("muster-{attempt}")
}

fn is_mountable(volume: &Volume) -> bool {
    mount(volume)
        .is_some_and(|mount| mount.source.starts_with('/') && mount.target.starts_with('/'))
}

fn mount(volume: &Volume) -> Option<Mount> {
    let Some(volume::Source::HostPath(source)) = &volume.source else {
        return None;
    };
    Some(Mount {
        source: source.clone(),
        target: volume.mount_path.clone(),
        read_only: volume.read_only,
    })
}

/// The folder that a replica starts in, if its spec names one.
pub fn working_dir(assignment: &Assignment) -> Option<PathBuf> {
    let dir = assignment.run.as_ref().map(|run| run.working_dir.as_str());
    dir.filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests;
