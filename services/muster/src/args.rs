//! The command line: every command, flag and default. Decides what may be
//! typed; does nothing.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_model::quantity::MicroUsd;

use crate::{certs, text};

/// The control plane of a GPU fleet.
#[derive(Debug, Parser)]
#[command(name = "muster", version = crate::LONG_VERSION, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    #[command(flatten)]
    pub(crate) addresses: Addresses,
    /// A context of ~/.config/muster/config.toml; addresses and certificates come from it
    #[arg(long, global = true, env = "MUSTER_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The certificate authority that servers are verified by
    #[arg(long, global = true, env = "MUSTER_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The certificate to present
    #[arg(
        long,
        global = true,
        env = "MUSTER_CERT",
        value_name = "FILE",
        requires = "key"
    )]
    pub(crate) cert: Option<PathBuf>,
    /// The certificate's private key
    #[arg(
        long,
        global = true,
        env = "MUSTER_KEY",
        value_name = "FILE",
        requires = "cert"
    )]
    pub(crate) key: Option<PathBuf>,
    /// A file with the bearer token to present
    #[arg(long, global = true, env = "MUSTER_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// How to print what is asked for
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value = "table",
        env = "MUSTER_OUTPUT"
    )]
    pub(crate) output: Format,
}

/// Where the components are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Addresses {
    /// Where the offers-gateway is; several, separated by commas, are tried in turn
    /// [default: http://127.0.0.1:7400]
    #[arg(long, global = true, env = "MUSTER_OFFERS_ADDR", value_name = "URLS")]
    pub(crate) offers_addr: Option<String>,
    /// Where the worker-registry is [default: http://127.0.0.1:7401]
    #[arg(long, global = true, env = "MUSTER_WORKERS_ADDR", value_name = "URLS")]
    pub(crate) workers_addr: Option<String>,
    /// Where the replica-manager is [default: http://127.0.0.1:7402]
    #[arg(long, global = true, env = "MUSTER_REPLICAS_ADDR", value_name = "URLS")]
    pub(crate) replicas_addr: Option<String>,
}

/// How to print what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, for a person
    Table,
    /// The same with more columns
    Wide,
    /// proto3 JSON, with defaults printed
    Json,
    /// The same as YAML
    Yaml,
    /// Names only, one a line
    Name,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Local(Local),
    #[command(flatten)]
    Remote(Remote),
}

/// What this program does by itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Local {
    /// Run the whole stack in this process, until Ctrl-C
    Up(Up),
    /// Show the product's story on a stack of its own
    Demo,
    /// Certificates for TLS between the components, the agents and this program
    #[command(subcommand)]
    Certs(Certs),
    /// Make a new store from a backup
    Restore(Restore),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum Certs {
    /// Make a development authority, and certificates that it signs for everyone
    Init(CertsInit),
}

/// Make certificates.
#[derive(Debug, Args)]
pub(crate) struct CertsInit {
    /// Where the files go
    #[arg(
        long,
        env = "MUSTER_CERTS_DIR",
        default_value = "muster-certs",
        value_name = "DIR"
    )]
    pub(crate) dir: PathBuf,
    /// A name or address under which this machine is reached, beside localhost; may be given again
    #[arg(long, value_name = "HOST", value_parser = certs::parse_host)]
    pub(crate) host: Vec<String>,
    /// A worker whose agent gets a certificate; may be given again [default: worker-agent]
    #[arg(long, value_name = "NAME", value_parser = certs::parse_agent)]
    pub(crate) agent: Vec<String>,
    /// How long the certificates last; the authority lasts ten times as long
    #[arg(long, default_value = "365d", value_name = "DURATION", value_parser = text::duration, allow_hyphen_values = true)]
    pub(crate) valid_for: Duration,
    /// Leave what is there and make what is missing
    #[arg(long, conflicts_with = "force")]
    pub(crate) if_absent: bool,
    /// Make everything anew, also the authority: what it signed before is worth nothing then
    #[arg(long)]
    pub(crate) force: bool,
}

/// What is asked of components.
#[derive(Debug, Subcommand)]
pub(crate) enum Remote {
    /// Machines that could be had, by price
    Offers(Box<Offers>),
    /// Where offers come from, and how each source is
    Backends(Named),
    /// Create or change services from a file
    Apply(Apply),
    /// Services, and how they are
    Services(Named),
    /// Replicas, and how they are
    Ps(Ps),
    /// The ready replicas of a service
    Endpoints(Endpoints),
    /// Start services that are STOPPED or FAILED
    Start(Follow),
    /// Stop the replicas of services and keep their records
    Stop(Follow),
    /// Restart the replicas of services one after the other, or single replicas
    Restart(Follow),
    /// Set a service's number of replicas
    Scale(Scale),
    /// Apply an earlier version of a service again
    Rollback(Rollback),
    /// Stop services and forget them
    #[command(alias = "delete")]
    Rm(Rm),
    /// Why a service, a replica or a spec is as it is
    #[command(alias = "describe")]
    Explain(Explain),
    /// What happened, by time
    Events(Events),
    /// The output of a service's replicas
    Logs(Logs),
    /// Workers, and how they are
    Workers(Workers),
    /// Empty workers: their replicas move, then they are DISABLED
    Drain(Drain),
    /// Call drains off
    Resume(Reasoned),
    /// Take workers out of use
    Disable(Disable),
    /// Put disabled workers back
    Enable(Reasoned),
    /// Forget disabled workers: their names are free again
    DeleteWorker(DeleteWorker),
    /// Judge the silent workers of a zone that the mass-loss brake holds
    ReleaseMassLoss(ReleaseMassLoss),
    /// What runs on workers without a record, after a restore from a backup
    Orphans(Orphans),
    /// Tokens that let machines join
    #[command(subcommand)]
    Token(Token),
    /// How each component is
    Health(Health),
    /// Turn a component's readiness off, or on again
    Maintenance(Maintenance),
    /// Copy a component's state into a file, while it goes on
    Backup(Backup),
}

/// Run the whole stack.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Where state is kept
    #[arg(
        long,
        env = "MUSTER_DATA",
        default_value = "muster-data",
        value_name = "DIR"
    )]
    pub(crate) data: PathBuf,
    /// How many workers to run on this machine; its own GPUs are the first's
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = text::count::<u16>,
          allow_hyphen_values = true)]
    pub(crate) workers: u16,
    /// Declared, simulated GPUs of each worker, such as H100:8
    #[arg(long, value_name = "GPUS")]
    pub(crate) gpus: Option<String>,
    /// Makes each DIR/*/vms.csv a backend named after its folder
    #[arg(long, env = "MUSTER_CATALOG", value_name = "DIR")]
    pub(crate) catalog: Option<PathBuf>,
    /// How to log
    #[arg(long, env = "MUSTER_LOG", default_value = "pretty", value_parser = ["json", "pretty"])]
    pub(crate) log: String,
}

/// Machines that could be had.
#[derive(Debug, Args)]
pub(crate) struct Offers {
    /// Show this one offer whole
    pub(crate) id: Option<String>,
    /// GPUs as NAME[,NAME][:MEMORY[..MEMORY]][:COUNT[..COUNT]], or `any`, or `none` for every
    /// machine
    #[arg(long, default_value = "any", value_name = "GPU")]
    pub(crate) gpu: String,
    /// How many to show [default: 20 offers; every group]
    #[arg(long, value_name = "N", value_parser = text::count::<usize>, allow_hyphen_values = true)]
    pub(crate) limit: Option<usize>,
    /// One line for each of these in place of offers
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) group_by: Option<GroupBy>,
    /// What to order by: price, price-per-gpu, price-per-gpu-gib, memory or age, of groups one of the
    /// first two; a leading `-` reverses it [default: price; groups by name]
    #[arg(long, value_name = "KEY", allow_hyphen_values = true, value_parser = parse_sort)]
    pub(crate) sort: Option<Sort>,
    /// Only spot offers
    #[arg(long, conflicts_with = "on_demand")]
    pub(crate) spot: bool,
    /// Only on-demand offers
    #[arg(long)]
    pub(crate) on_demand: bool,
    /// At most this price in dollars an hour
    #[arg(long, value_name = "DOLLARS", value_parser = text::price, allow_hyphen_values = true)]
    pub(crate) max_price: Option<MicroUsd>,
    /// At least this price in dollars an hour
    #[arg(long, value_name = "DOLLARS", value_parser = text::price, allow_hyphen_values = true)]
    pub(crate) min_price: Option<MicroUsd>,
    /// Only this backend; may be given again
    #[arg(short, long, value_name = "NAME")]
    pub(crate) backend: Vec<String>,
    /// Only this region; may be given again
    #[arg(short, long, value_name = "NAME")]
    pub(crate) region: Vec<String>,
    /// Only this zone; may be given again
    #[arg(long, value_name = "NAME")]
    pub(crate) zone: Vec<String>,
    /// Only this instance type; may be given again
    #[arg(long, value_name = "NAME")]
    pub(crate) instance_type: Vec<String>,
    /// At least this many processors
    #[arg(long, value_name = "CPUS", value_parser = text::cpu, allow_hyphen_values = true)]
    pub(crate) cpu: Option<i32>,
    /// At least this much main memory, such as 64GB
    #[arg(long, value_name = "SIZE", value_parser = text::memory, allow_hyphen_values = true)]
    pub(crate) memory: Option<i32>,
    /// At least this much disk
    #[arg(long, value_name = "SIZE", value_parser = text::memory, allow_hyphen_values = true)]
    pub(crate) disk: Option<i32>,
    /// Only this instruction set
    #[arg(long, value_parser = ["x86_64", "arm64"])]
    pub(crate) arch: Option<String>,
    /// Only this availability: unknown, available, no-capacity, no-quota, no-balance, idle
    #[arg(long, value_name = "WORD")]
    pub(crate) availability: Vec<String>,
    /// At least this CUDA compute capability, such as 8.0
    #[arg(long, value_name = "X.Y")]
    pub(crate) compute_capability: Option<String>,
    /// At least this much memory of all GPUs together, such as 640GB
    #[arg(long, value_name = "SIZE", value_parser = text::memory, allow_hyphen_values = true)]
    pub(crate) gpu_memory: Option<i32>,
    /// Refresh backends whose offers are older than this first
    #[arg(long, value_name = "DURATION", value_parser = text::duration, allow_hyphen_values = true)]
    pub(crate) max_age: Option<Duration>,
    /// How long to wait for each backend that is refreshed
    #[arg(long, value_name = "DURATION", value_parser = text::duration, allow_hyphen_values = true)]
    pub(crate) backend_timeout: Option<Duration>,
    /// Keep showing changes
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// What offers are grouped by.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum GroupBy {
    /// The accelerator's name
    Gpu,
    /// The backend
    Backend,
    /// The backend and region
    Region,
}

/// An order of offers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sort {
    pub(crate) key: muster_proto::offers::v1::OfferOrderKey,
    pub(crate) descending: bool,
}

fn parse_sort(text: &str) -> Result<Sort, String> {
    use muster_proto::offers::v1::OfferOrderKey as Key;
    let (name, descending) = match text.strip_prefix('-') {
        Some(name) => (name, true),
        None => (text, false),
    };
    let key = match name {
        "price" => Key::Price,
        "price-per-gpu" => Key::PricePerGpu,
        "price-per-gpu-gib" => Key::PricePerGpuGib,
        "memory" => Key::Memory,
        "age" => Key::Age,
        _ => {
            let words = "price, price-per-gpu, price-per-gpu-gib, memory or age";
            return Err(format!(
                "has to be {words}, with a leading `-` for the other way"
            ));
        }
    };
    Ok(Sort { key, descending })
}

/// All of something, or one by name.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Show this one whole
    pub(crate) name: Option<String>,
    /// Keep showing changes
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// What runs without a record; alone, shows all of it.
#[derive(Debug, Args)]
pub(crate) struct Orphans {
    #[command(subcommand)]
    pub(crate) act: Option<OrphanAct>,
}

/// What becomes of an orphan.
#[derive(Debug, Subcommand)]
pub(crate) enum OrphanAct {
    /// Give it back to the service that it was started for, untouched
    Adopt {
        /// The orphan's ID
        id: String,
        /// The service
        service: String,
    },
    /// Stop it, and free its room
    Rm {
        /// The orphan's ID
        id: String,
    },
}

/// Create or change services.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The file, as YAML, or as `services [NAME]` printed it with -o yaml or -o json; `-` is standard
    /// input; may be given again
    #[arg(short, long, value_name = "FILE", required = true)]
    pub(crate) file: Vec<PathBuf>,
    /// What stands there without -f, which is refused
    #[arg(hide = true, value_name = "FILE", value_parser = file_without_flag)]
    pub(crate) stray: Vec<PathBuf>,
    /// Check it and show what would change; store nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not start a service that is not running
    #[arg(long)]
    pub(crate) no_start: bool,
    #[command(flatten)]
    pub(crate) following: Following,
}

fn file_without_flag(file: &str) -> Result<PathBuf, String> {
    Err(format!("a file is named by -f: `-f {file}`"))
}

/// Whether to wait for the end.
#[derive(Debug, Clone, Args)]
pub(crate) struct Following {
    /// Wait until it is done; what a terminal does without being told
    #[arg(long)]
    pub(crate) wait: bool,
    /// Do not wait
    #[arg(long, conflicts_with = "wait")]
    pub(crate) detach: bool,
    /// How long to wait
    #[arg(long, default_value = "5m", value_name = "DURATION", value_parser = text::duration, allow_hyphen_values = true)]
    pub(crate) timeout: Duration,
}

/// Something done to services or replicas.
#[derive(Debug, Args)]
pub(crate) struct Follow {
    /// The services, or for restart replicas such as chat/0
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) following: Following,
}

/// Set the number of replicas.
#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// The service
    pub(crate) name: String,
    /// How many replicas
    #[arg(value_parser = text::count::<i32>, allow_negative_numbers = true)]
    pub(crate) replicas: i32,
    #[command(flatten)]
    pub(crate) following: Following,
}

/// Apply an earlier version again.
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The service
    pub(crate) name: String,
    /// The version [default: the one before the current]
    // Of a name of its own, since every command has --version.
    #[arg(id = "to-version", value_name = "VERSION", value_parser = text::version,
          allow_negative_numbers = true)]
    pub(crate) version: Option<i64>,
    #[command(flatten)]
    pub(crate) following: Following,
}

/// Stop and forget.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The services
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) following: Following,
}

/// Why something is as it is.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Explain {
    /// A service, or a replica such as chat/0
    pub(crate) name: Option<String>,
    /// A spec, applied or not: where it would run
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// The ready replicas of a service.
#[derive(Debug, Args)]
pub(crate) struct Endpoints {
    /// The service
    pub(crate) service: String,
    /// Keep showing changes
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// Replicas.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Only those of these services
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// Keep showing changes
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// What happened.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only about this service, replica or worker; also as it stands under ABOUT
    pub(crate) subject: Option<String>,
    /// Only what happened in the last such time
    #[arg(long, value_name = "DURATION", value_parser = text::duration, allow_hyphen_values = true)]
    pub(crate) since: Option<Duration>,
    /// How many of the last to show
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = text::count::<usize>,
          allow_hyphen_values = true)]
    pub(crate) limit: usize,
    /// Keep showing what happens
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// Output of replicas.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// A service, or a replica such as chat/0
    pub(crate) target: String,
    /// Go on with what comes, also of new attempts and replicas, until the service or replica ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many of the last lines of each replica
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<i32>,
    /// Only what was written in the last such time
    #[arg(long, value_name = "DURATION", value_parser = text::duration)]
    pub(crate) since: Option<Duration>,
    /// The attempt before the current one
    #[arg(long)]
    pub(crate) previous: bool,
}

/// Workers.
#[derive(Debug, Args)]
pub(crate) struct Workers {
    /// Show this one whole
    pub(crate) name: Option<String>,
    /// Only those with this label; may be given again
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = muster_model::name::parse_label)]
    pub(crate) label: Vec<(String, String)>,
    /// Keep showing changes
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// Empty workers, or follow the drains that empty them already.
#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// The workers
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Why [default: by USER@HOST]
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Time until --after-deadline applies [default: never]
    #[arg(long, value_name = "DURATION", value_parser = text::duration, allow_hyphen_values = true)]
    pub(crate) deadline: Option<Duration>,
    /// What happens to what is left at the deadline [default: wait]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) after_deadline: Option<AfterDeadline>,
    /// How many replicas may move at a time [default: 1]
    #[arg(long, value_name = "N", value_parser = text::count::<i32>, allow_hyphen_values = true)]
    pub(crate) max_parallel: Option<i32>,
    /// Show what it would do; change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) following: Following,
}

/// What happens at a drain's deadline.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum AfterDeadline {
    /// The drain goes on
    Wait,
    /// What is left is stopped
    Force,
}

/// Something done to workers, for a reason.
#[derive(Debug, Args)]
pub(crate) struct Reasoned {
    /// The workers
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Why [default: by USER@HOST]
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// Take a worker out of use.
#[derive(Debug, Args)]
pub(crate) struct Disable {
    /// The workers
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Also if it is not empty: what it runs is stopped
    #[arg(long)]
    pub(crate) force: bool,
    /// Why [default: by USER@HOST]
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// Forget a worker.
#[derive(Debug, Args)]
pub(crate) struct DeleteWorker {
    /// The workers
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Let a zone's silent workers be judged.
#[derive(Debug, Args)]
pub(crate) struct ReleaseMassLoss {
    /// The zone; `""` is the workers without one
    pub(crate) zone: String,
    /// Why [default: by USER@HOST]
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// Tokens that let machines join.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make one, and print its secret
    Create {
        /// The only worker that it lets in [default: any]
        #[arg(long, value_name = "NAME")]
        worker: Option<String>,
        /// How many machines it lets in; 0 is any number
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = text::count::<i32>,
              allow_hyphen_values = true)]
        uses: i32,
        /// How long it lasts; 0s is for ever
        #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = text::duration, allow_hyphen_values = true)]
        ttl: Duration,
    },
    /// Show them, without their secrets
    List,
    /// End one
    Revoke {
        /// Its id
        id: String,
    },
}

/// How each component is.
#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Only this component
    #[arg(conflicts_with = "probe")]
    pub(crate) component: Option<String>,
    /// Ask any server, with the flags and exit codes of grpc_health_probe, which follow: -addr
    /// HOST:PORT and others; -h lists them
    #[arg(long, value_name = "FLAGS", num_args = 0.., allow_hyphen_values = true)]
    pub(crate) probe: Option<Vec<String>>,
}

/// Whether maintenance is to be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// Readiness off
    On,
    /// Readiness as the checks say
    Off,
}

/// Turn a component's readiness off, or on again.
#[derive(Debug, Args)]
pub(crate) struct Maintenance {
    /// On or off
    pub(crate) switch: Switch,
    /// The component: offers-gateway, worker-registry or replica-manager
    pub(crate) component: String,
    /// Why; needed to turn it on
    #[arg(long, value_name = "TEXT", required_if_eq("switch", "on"))]
    pub(crate) reason: Option<String>,
}

/// Copy a component's state.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The component: offers-gateway, worker-registry or replica-manager
    pub(crate) component: String,
    /// The file to make; `-` is standard output
    pub(crate) file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    pub(crate) force: bool,
}

/// Make a store from a backup.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The backup; `-` is standard input
    pub(crate) file: PathBuf,
    /// The store to make, which must not be there yet: embedded:PATH
    #[arg(long, value_name = "STORE")]
    pub(crate) store: muster_store::Spec,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn every_command_can_be_typed() {
        Cli::command().debug_assert();
    }
}
