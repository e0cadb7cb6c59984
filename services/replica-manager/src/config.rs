//! What the manager can be told: its flags and its checked settings.

use std::time::Duration;

use muster_runtime::args::parse_duration;
use muster_runtime::connect::Endpoints;
use muster_runtime::process::Component;
use muster_store::{Leases, Options, Spec};

use crate::crash::{Crash, Step};
use crate::domain::world::Terms;

/// The manager's own flags.
#[derive(Debug, Clone, clap::Args)]
// The help would begin with the line above.
#[command(about = <crate::ReplicaManager as Component>::ABOUT)]
pub struct Args {
    /// Where state is kept: memory:, embedded:PATH, or etcd:http://HOST:PORT[,HOST:PORT]/PREFIX, which
    /// several instances may share
    #[arg(
        long,
        value_name = "STORE",
        default_value = "embedded:replica-manager.db"
    )]
    pub store: Spec,
    /// On etcd: how long the instance that plans may be away from it before another one plans
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    pub leader_lease: Duration,
    /// On etcd: how long an instance may be away from it before the others take it for gone
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = parse_duration)]
    pub instance_lease: Duration,
    /// The worker-registry: URLs, comma separated
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7401")]
    pub workers_addr: Endpoints,
    /// The offers-gateway: URLs, comma separated
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7400")]
    pub offers_addr: Endpoints,
    /// Without retry: how long a service that was never ready waits for a place
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub place_within: Duration,
    /// A retry that is due within this keeps its room
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub hold_within: Duration,
    /// From leaving the endpoints until the stop of a replica that others replace
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub leave_first: Duration,
    /// How often drains are reported to the worker-registry, and leftovers looked for
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub report_interval: Duration,
    /// End as a crash does at this step, for tests of what a crash leaves behind
    #[arg(long, value_name = "STEP", value_enum, hide = true)]
    pub crash_at: Option<Step>,
}

/// The manager's checked settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where state is kept.
    pub store: Spec,
    /// How long instances hold what they have of a store that they share.
    pub leases: Leases,
    /// The rest, which does not say where state is.
    pub serving: Serving,
}

/// How the manager serves, whatever its store.
#[derive(Debug, Clone)]
pub struct Serving {
    /// The worker-registry.
    pub workers: Endpoints,
    /// The offers-gateway.
    pub offers: Endpoints,
    /// What plans work by.
    pub terms: Terms,
    /// How often drains are reported, and leftovers looked for.
    pub report_interval: Duration,
    /// Where the process is to end, in tests of crashes.
    pub crash: Crash,
}

impl Serving {
    /// Every default, with the others at these places.
    #[must_use]
    pub fn new(workers: Endpoints, offers: Endpoints) -> Self {
        Self {
            workers,
            offers,
            terms: Terms::default(),
            report_interval: Duration::from_secs(5),
            crash: Crash::default(),
        }
    }
}

impl Config {
    /// Checks what was told.
    ///
    /// # Errors
    /// In words: a lease that is too short or too long, or leases that do not go together.
    pub fn new(args: Args) -> Result<Self, String> {
        let leases = Leases::from_flags(args.leader_lease, args.instance_lease)?;
        let terms = Terms {
            place_within: args.place_within,
            hold_within: args.hold_within,
            leave_first: args.leave_first,
            ..Terms::default()
        };
        Ok(Self {
            store: args.store,
            leases,
            serving: Serving {
                workers: args.workers_addr,
                offers: args.offers_addr,
                terms,
                report_interval: args.report_interval,
                crash: Crash(args.crash_at),
            },
        })
    }

    /// How the store is to be opened.
    #[must_use]
    pub fn store_options(&self) -> Options {
        Options {
            leases: self.leases,
            ..Options::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn told(flags: &[&str]) -> Result<Config, String> {
        let words = ["replica-manager"].iter().chain(flags);
        Config::new(Command::parse_from(words).args)
    }

    #[test]
    fn leases_reach_the_store() {
        let options = told(&[]).unwrap().store_options();
        assert_eq!(options.leases, Leases::default());
        let leases = ["--leader-lease", "2s", "--instance-lease", "30s"];
        let options = told(&leases).unwrap().store_options();
        assert_eq!(options.leases.leader, Duration::from_secs(2));
        assert_eq!(options.leases.instance, Duration::from_secs(30));
    }

    #[test]
    fn leases_that_make_no_sense_are_refused_by_name() {
        for flags in [["--leader-lease", "1500ms"], ["--instance-lease", "2s"]] {
            let refused = told(&flags).unwrap_err();
            assert!(refused.starts_with(flags[0]), "{flags:?}: {refused}");
        }
    }
}
