//! The registry's settings: flags, their checks, and what follows from them.

use std::time::Duration;

use clap::builder::BoolishValueParser;
use muster_runtime::args::parse_duration;
use muster_runtime::process::Component;
use muster_store::{Leases, Spec};

use crate::domain::liveness::{Patience, Rules};

/// The flags of the worker-registry beside the common ones.
#[derive(Debug, Clone, clap::Args)]
// The help would begin with the line above.
#[command(about = <crate::WorkerRegistry as Component>::ABOUT)]
pub struct Args {
    /// Where the state is kept: "memory:", "embedded:PATH", or "etcd:http://HOST:PORT[,...]/PREFIX" for
    /// several instances
    #[arg(
        long,
        value_name = "STORE",
        default_value = "embedded:worker-registry.db"
    )]
    pub store: Spec,
    /// Let machines register for the first time without a join token
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub insecure_join: bool,
    /// The least time from one heartbeat of a worker to the next
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub heartbeat_interval: Duration,
    /// The least silence after which a worker is LOST; never under four intervals
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub lost_after: Duration,
    /// The least silence after which an agent has stopped what is to stop without us; never under six intervals
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub fence_after: Duration,
    /// Added to a fence before it counts as passed
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub fence_margin: Duration,
    /// Heartbeats a second that all workers together are asked for at most
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_heartbeat_rate: u32,
    /// How long a zone that fell silent at once is kept from being declared lost
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub mass_loss_hold: Duration,
    /// How long an owner may say nothing of a drain before its allocations count as blocked
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub owner_silent_after: Duration,
    /// How long an instance leads without reaching the store; of several on one store
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    pub leader_lease: Duration,
    /// How long an instance answers heartbeats without reaching the store; of several on one store
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = parse_duration)]
    pub instance_lease: Duration,
    /// How long an instance may leave the leader unanswered before it loses its place; of several on one store
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub peer_silent_after: Duration,
}

/// The settings of the registry.
#[derive(Debug, Clone)]
pub struct Config {
    /// How heartbeats are asked for.
    pub rules: Rules,
    /// How long a mass-loss brake holds at most.
    pub mass_loss_hold: Duration,
    /// How long an owner may say nothing of a drain.
    pub owner_silent_after: Duration,
    /// The first registration needs no join token.
    pub insecure_join: bool,
    /// How long other instances on the store are waited for.
    pub patience: Patience,
    /// How long an instance leads without reaching the store.
    pub leader_lease: Duration,
}

impl Default for Config {
    /// What the flags are when none is given.
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            mass_loss_hold: Duration::from_secs(600),
            owner_silent_after: Duration::from_secs(30),
            insecure_join: false,
            patience: Patience {
                silent_after: Duration::from_secs(10),
                lease: Leases::default().instance,
            },
            leader_lease: Leases::default().leader,
        }
    }
}

impl Config {
    /// Checks the flags.
    ///
    /// # Errors
    /// In words, what is wrong.
    pub fn new(args: &Args) -> Result<Self, String> {
        for (flag, value) in [
            ("--heartbeat-interval", args.heartbeat_interval),
            ("--lost-after", args.lost_after),
            ("--fence-after", args.fence_after),
            ("--mass-loss-hold", args.mass_loss_hold),
            ("--peer-silent-after", args.peer_silent_after),
        ] {
            if value.is_zero() {
                return Err(format!("{flag} must be more than nothing"));
            }
        }
        if args.fence_after < args.lost_after {
            return Err("--fence-after must not be under --lost-after".to_owned());
        }
        let leases = Leases::from_flags(args.leader_lease, args.instance_lease)?;
        Ok(Self {
            rules: Rules {
                interval: args.heartbeat_interval,
                lost_after: args.lost_after,
                fence_after: args.fence_after,
                max_rate: args.max_heartbeat_rate,
                fence_margin: args.fence_margin,
            },
            mass_loss_hold: args.mass_loss_hold,
            owner_silent_after: args.owner_silent_after,
            insecure_join: args.insecure_join,
            patience: Patience {
                silent_after: args.peer_silent_after,
                lease: leases.instance,
            },
            leader_lease: leases.leader,
        })
    }

    /// How long this instance keeps what it has without reaching its store.
    pub(crate) fn leases(&self) -> Leases {
        Leases {
            instance: self.patience.lease,
            leader: self.leader_lease,
        }
    }

    /// How often silence is looked for: a two-hundredth of the least that means something.
    pub(crate) fn tick(&self) -> Duration {
        let least = self.rules.lost_after.max(self.rules.interval * 4);
        (least / 200).clamp(Duration::from_millis(5), Duration::from_millis(50))
    }

    /// The longest that passes between ticks of a registry that is not stalled.
    pub(crate) fn stall_step(&self) -> Duration {
        self.tick() * 4
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        args: Args,
    }

    fn config(flags: &[&str]) -> Result<Config, String> {
        let flags = [&["worker-registry"], flags].concat();
        Config::new(&Flags::try_parse_from(flags).unwrap().args)
    }

    #[test]
    fn leases_are_checked_and_passed_on() {
        let leases = config(&["--leader-lease=5s", "--instance-lease=1m"]).map(|one| one.leases());
        let asked = Leases {
            instance: Duration::from_secs(60),
            leader: Duration::from_secs(5),
        };
        assert_eq!(leases, Ok(asked));
        assert_eq!(config(&[]).unwrap().leases(), Leases::default());
        for (flags, names) in [
            (
                ["--leader-lease=1500ms", "--instance-lease=1m"],
                "--leader-lease",
            ),
            (
                ["--leader-lease=5s", "--instance-lease=4s"],
                "--instance-lease",
            ),
            (
                ["--leader-lease=5s", "--peer-silent-after=0s"],
                "--peer-silent-after",
            ),
        ] {
            let refused = config(&flags).unwrap_err();
            assert!(refused.starts_with(names), "{refused}");
        }
    }
}
