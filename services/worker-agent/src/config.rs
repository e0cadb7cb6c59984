//! What an agent is told: as flags of its program, and as checked settings that `muster up` and
//! tests fill in themselves. It opens and reads nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{self, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use muster_model::name;
use muster_model::quantity::money::MicroUsd;
use muster_model::requirements::GpuRequest;
use muster_runtime::args::parse_duration;
use muster_runtime::backoff;
use muster_runtime::connect::Endpoints;
use muster_runtime::process::Component;

use crate::attempt_dir::LogLimits;
use crate::domain::ports;
use crate::machine::nvidia;
use crate::supervisor;

/// The flags of the agent's program.
#[derive(Debug, Clone, clap::Args)]
// The help would begin with the line above.
#[command(about = <crate::Program as Component>::ABOUT)]
pub struct Args {
    /// The worker's name; the host's if it is not given
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where the agent keeps its replicas, their output and its credential
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/muster/worker-agent"
    )]
    pub data: PathBuf,
    /// The worker-registry: one URL, or several with commas between
    #[arg(long, value_name = "URLS", default_value = "http://127.0.0.1:7401")]
    pub workers_addr: Endpoints,
    /// The replica-manager: one URL, or several with commas between
    #[arg(long, value_name = "URLS", default_value = "http://127.0.0.1:7402")]
    pub replicas_addr: Endpoints,
    /// The file with the join token that lets this machine register; read anew at each try
    #[arg(long, value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,
    /// A label of this machine; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub label: Vec<String>,
    /// Declares GPUs that are not there, such as "H100:8": shown as simulated everywhere
    #[arg(long, value_name = "GPUS")]
    pub gpus: Option<String>,
    /// What a stopping agent does with its replicas
    #[arg(long, value_enum, default_value_t = TerminateFlag::Keep)]
    pub on_terminate: TerminateFlag,
    /// How long a drain at the end may take; what is left then is stopped
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    pub drain_timeout: Duration,
    /// The cloud that the machine is of; empty is our own
    #[arg(long, value_name = "NAME", default_value = "")]
    pub backend: String,
    /// The region that the machine is in
    #[arg(long, value_name = "NAME", default_value = "")]
    pub region: String,
    /// The zone that the machine is in
    #[arg(long, value_name = "NAME", default_value = "")]
    pub zone: String,
    /// What the machine costs, in dollars an hour
    #[arg(long, value_name = "DOLLARS")]
    pub price: Option<MicroUsd>,
    /// The machine may be taken back by its provider at any time
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new())]
    pub spot: bool,
    /// The ports that replicas get, first and last
    #[arg(long, value_name = "FIRST-LAST", default_value = "20000-29999", value_parser = parse_ports)]
    pub ports: RangeInclusive<u16>,
    /// The container engine's socket
    #[arg(long, value_name = "FILE", default_value = "/var/run/docker.sock")]
    pub docker_socket: PathBuf,
    /// The control group (v2) below which replicas get their limits; "off" gives processes none
    #[arg(long, value_name = "DIR", default_value = CgroupParent::DEFAULT)]
    pub cgroup_parent: CgroupParent,
}

/// What a stopping agent's program can be told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TerminateFlag {
    /// Let them run on for the next agent.
    Keep,
    /// Have them moved away first.
    Drain,
}

/// Where the control groups of replicas are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupParent {
    /// Nowhere.
    Off,
    /// Below this group, in one of the agent's own. It is made if only it is missing.
    Below(PathBuf),
}

impl CgroupParent {
    /// Where they are made unless it is said.
    pub const DEFAULT: &str = "/sys/fs/cgroup/muster";
}

impl Default for CgroupParent {
    fn default() -> Self {
        Self::Below(Self::DEFAULT.into())
    }
}

impl FromStr for CgroupParent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = |part| matches!(part, path::Component::RootDir | path::Component::Normal(_));
        let path = Path::new(text);
        if text == "off" {
            Ok(Self::Off)
        } else if path.is_absolute() && path.components().all(is_plain) {
            Ok(Self::Below(path.components().collect()))
        } else {
            Err(format!("{text:?} is neither \"off\" nor an absolute path"))
        }
    }
}

/// What a stopping agent does with its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTerminate {
    /// They run on for the next agent.
    Keep,
    /// They are moved to other machines first; those that are left when this time has passed are
    /// stopped.
    Drain(Duration),
    /// They are stopped, each with its grace, and moved nowhere: for a stack that ends as a whole.
    Stop,
}

/// How long the output of ended attempts is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRetention {
    /// Ended attempts of one replica whose output is kept.
    pub per_replica: usize,
    /// Ended attempts in all whose output is kept.
    pub in_all: usize,
    /// Output of attempts that ended longer ago than this goes.
    pub age: Duration,
}

/// The checked settings of an agent.
#[derive(Debug, Clone)]
pub struct Config {
    /// The worker's name.
    pub name: String,
    /// Where the agent keeps everything.
    pub data: PathBuf,
    /// The worker-registry.
    pub workers: Endpoints,
    /// The replica-manager.
    pub replicas: Endpoints,
    /// The file with the join token.
    pub join_token_file: Option<PathBuf>,
    /// The machine's labels.
    pub labels: BTreeMap<String, String>,
    /// GPUs that are declared and not there.
    pub simulated_gpus: Option<GpuRequest>,
    /// What is done with replicas at the end.
    pub on_terminate: OnTerminate,
    /// The cloud that the machine is of; empty is our own.
    pub backend: String,
    /// Its region; empty is none.
    pub region: String,
    /// Its zone; empty is none.
    pub zone: String,
    /// What it costs an hour; absent is unknown.
    pub price: Option<MicroUsd>,
    /// It may be taken back at any time.
    pub spot: bool,
    /// The ports that replicas get.
    pub ports: RangeInclusive<u16>,
    /// The container engine's socket.
    pub docker_socket: PathBuf,
    /// Where the control groups of replicas are made.
    pub cgroup_parent: CgroupParent,
    /// The program that supervises a replica, and what stands before its own arguments.
    pub supervisor_command: Vec<OsString>,
    /// How much output of an attempt is kept.
    pub log: LogLimits,
    /// How long that of ended attempts is kept.
    pub log_retention: LogRetention,
    /// The time from one measurement of what replicas use to the next.
    pub sample_interval: Duration,
    /// The time from one look at which accelerators there are to the next; where something differs, a tenth
    /// of it.
    pub gpu_interval: Duration,
    /// How long a look may take: a driver that is started by it takes seconds.
    pub gpu_timeout: Duration,
    /// The library of NVIDIA's driver.
    pub nvidia_library: PathBuf,
    /// The time from one try of failed start-up checks to the next.
    pub check_interval: Duration,
    /// The delays between tries to reach the registry and the manager.
    pub retry: backoff::Policy,
}

impl Config {
    /// An agent with the defaults, supervised by this very program.
    pub fn new(
        name: &str,
        data: impl Into<PathBuf>,
        workers: Endpoints,
        replicas: Endpoints,
    ) -> Self {
        Self {
            name: name.to_owned(),
            data: data.into(),
            workers,
            replicas,
            join_token_file: None,
            labels: BTreeMap::new(),
            simulated_gpus: None,
            on_terminate: OnTerminate::Keep,
            backend: String::new(),
            region: String::new(),
            zone: String::new(),
            price: None,
            spot: false,
            ports: ports::DEFAULT_RANGE,
            docker_socket: "/var/run/docker.sock".into(),
            cgroup_parent: CgroupParent::default(),
            supervisor_command: vec!["/proc/self/exe".into(), supervisor::SUBCOMMAND.into()],
            log: LogLimits {
                segment_bytes: 8 << 20,
                segments: 4,
            },
            log_retention: LogRetention {
                per_replica: 3,
                in_all: 200,
                age: Duration::from_secs(24 * 3600),
            },
            sample_interval: Duration::from_secs(5),
            gpu_interval: Duration::from_secs(30),
            gpu_timeout: Duration::from_secs(30),
            nvidia_library: nvidia::LIBRARY.into(),
            check_interval: Duration::from_secs(5),
            retry: backoff::Policy::doubling(Duration::from_millis(50), Duration::from_secs(2)),
        }
    }

    /// Checks what the flags say.
    pub fn from_args(args: Args) -> Result<Self, String> {
        let name = args.name.unwrap_or_else(host_as_name);
        name::check(&name).map_err(|error| format!("--name: {error}"))?;
        let mut labels = BTreeMap::new();
        for label in &args.label {
            let (key, value) =
                name::parse_label(label).map_err(|error| format!("--label: {error}"))?;
            labels.insert(key, value);
        }
        let gpus = args.gpus.as_deref().filter(|gpus| !gpus.is_empty());
        Ok(Self {
            labels,
            join_token_file: args.join_token_file,
            simulated_gpus: gpus.map(parse_gpus).transpose()?,
            on_terminate: match args.on_terminate {
                TerminateFlag::Keep => OnTerminate::Keep,
                TerminateFlag::Drain => OnTerminate::Drain(args.drain_timeout),
            },
            backend: args.backend,
            region: args.region,
            zone: args.zone,
            price: args.price,
            spot: args.spot,
            ports: args.ports,
            docker_socket: args.docker_socket,
            cgroup_parent: args.cgroup_parent,
            ..Self::new(&name, args.data, args.workers_addr, args.replicas_addr)
        })
    }
}

/// Reads `H100:8`: one name, and how many of it.
pub fn parse_gpus(text: &str) -> Result<GpuRequest, String> {
    let request =
        muster_model::gpu_syntax::parse(text).map_err(|error| format!("--gpus: {error}"))?;
    if request.names.len() != 1 || request.share_milli.is_some() {
        return Err(format!(
            "--gpus: {text:?} has to be one name and a count, such as H100:8"
        ));
    }
    Ok(request)
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong = || format!("{text:?} is no range of ports: write it like 20000-29999");
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let (first, last): (u16, u16) = (
        first.parse().map_err(|_| wrong())?,
        last.parse().map_err(|_| wrong())?,
    );
    if first == 0 || first > last {
        Err(wrong())
    } else {
        Ok(first..=last)
    }
}

/// The host's name, with what has no place in a worker's name left out.
fn host_as_name() -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy().to_lowercase();
    let host = host.split('.').next().unwrap_or_default();
    let clean: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let clean = clean.trim_matches('-');
    let named = if clean.starts_with(|c: char| c.is_ascii_lowercase()) {
        clean.to_owned()
    } else {
        format!("worker-{clean}")
    };
    named
        .chars()
        .take(name::MAX_LENGTH)
        .collect::<String>()
        .trim_end_matches('-')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports() {
        assert_eq!(parse_ports("7-9"), Ok(7..=9));
        for text in ["", "7", "9-7", "0-9", "7-99999", "a-b"] {
            assert!(parse_ports(text).is_err(), "{text}");
        }
    }

    #[test]
    fn simulated_gpus_are_one_name_and_a_count() {
        assert_eq!(parse_gpus("H100:8").unwrap().count.min, Some(8));
        for text in ["", "any:2", "H100,A100:2", "A10:0.5"] {
            assert!(parse_gpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn control_groups_are_below_an_absolute_path_or_nowhere() {
        let below = |path: &str| Ok(CgroupParent::Below(path.into()));
        assert_eq!("off".parse(), Ok(CgroupParent::Off));
        assert_eq!("/sys/fs/cgroup/a/".parse(), below("/sys/fs/cgroup/a"));
        assert_eq!(CgroupParent::DEFAULT.parse(), Ok(CgroupParent::default()));
        for text in ["", "on", "a/b", "./a", "/a/../b"] {
            assert!(text.parse::<CgroupParent>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_is_a_name() {
        assert_eq!(name::check(&host_as_name()), Ok(()));
    }
}
