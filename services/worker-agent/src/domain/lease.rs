//! Until when replicas that end with their machine's connection may run. It is counted from when
//! the last answered heartbeat was sent, on the clock that counts from the machine's boot. It never
//! lengthens a lease by itself.

use std::time::Duration;

/// How long a replica may still run unheard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The boot of the machine whose clock counts. A lease of another boot has ended.
    pub boot_id: String,
    /// When it ends, since that boot.
    pub deadline: Duration,
    /// How long it was when it was given.
    pub fence_after: Duration,
}

/// What a supervisor does because of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing, until this time at the earliest.
    RunsUntil(Duration),
    /// It is asked to stop now, and killed at this time.
    StopsBy(Duration),
}

impl Lease {
    /// The lease that an answered heartbeat gives which was sent at `sent`, since boot.
    pub fn renewed(boot_id: &str, sent: Duration, fence_after: Duration) -> Self {
        Self {
            boot_id: boot_id.to_owned(),
            deadline: sent.saturating_add(fence_after),
            fence_after,
        }
    }

    /// What is due at `now`, since the boot `boot_id`, for a replica that is given `grace` to stop.
    pub fn verdict(&self, boot_id: &str, now: Duration, grace: Duration) -> Verdict {
        if self.boot_id != boot_id {
            return Verdict::StopsBy(now);
        }
        let kill_at = self.deadline.saturating_sub(self.margin());
        let stop_at = kill_at.saturating_sub(self.grace(grace));
        if now < stop_at {
            Verdict::RunsUntil(stop_at)
        } else {
            Verdict::StopsBy(kill_at)
        }
    }

    /// Time left at `now`.
    pub fn left(&self, boot_id: &str, now: Duration) -> Duration {
        if self.boot_id == boot_id {
            self.deadline.saturating_sub(now)
        } else {
            Duration::ZERO
        }
    }

    /// A replica's own grace, or half of a lease that is shorter than two of it.
    fn grace(&self, grace: Duration) -> Duration {
        grace.min(self.fence_after / 2)
    }

    /// What killing may take: nothing may run at the deadline itself.
    fn margin(&self) -> Duration {
        (self.fence_after / 20).min(Duration::from_millis(200))
    }

    /// One line, for the file.
    pub fn print(&self) -> String {
        format!(
            "{} {} {}\n",
            self.boot_id,
            self.deadline.as_millis(),
            self.fence_after.as_millis()
        )
    }

    /// What [`Lease::print`] wrote; nothing if it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_suffix('\n')?.split(' ');
        let boot_id = words.next()?.to_owned();
        let deadline = Duration::from_millis(words.next()?.parse().ok()?);
        let fence_after = Duration::from_millis(words.next()?.parse().ok()?);
        words.next().is_none().then_some(Self {
            boot_id,
            deadline,
            fence_after,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn it_is_counted_from_the_sending() {
        let lease = Lease::renewed("b", secs(100), secs(60));
        assert_eq!(lease.left("b", secs(130)), secs(30));
        assert_eq!(lease.left("b", secs(161)), Duration::ZERO);
        assert_eq!(lease.left("other", secs(130)), Duration::ZERO);
    }

    #[test]
    fn a_replica_stops_early_enough_for_its_grace() {
        let lease = Lease::renewed("b", secs(100), secs(60));
        let kill_at = secs(160) - Duration::from_millis(200);
        let stop_at = kill_at - secs(10);
        for (now, verdict) in [
            (secs(100), Verdict::RunsUntil(stop_at)),
            (
                stop_at - Duration::from_millis(1),
                Verdict::RunsUntil(stop_at),
            ),
            (stop_at, Verdict::StopsBy(kill_at)),
            (secs(500), Verdict::StopsBy(kill_at)),
        ] {
            assert_eq!(lease.verdict("b", now, secs(10)), verdict, "at {now:?}");
        }
    }

    #[test]
    fn a_grace_is_at_most_half_of_the_lease() {
        let lease = Lease::renewed("b", secs(100), secs(2));
        let kill_at = secs(102) - Duration::from_millis(100);
        assert_eq!(
            lease.verdict("b", secs(100), secs(30)),
            Verdict::RunsUntil(kill_at - secs(1))
        );
    }

    #[test]
    fn a_lease_of_another_boot_has_ended() {
        let lease = Lease::renewed("b", secs(100), secs(60));
        assert_eq!(
            lease.verdict("c", secs(5), secs(1)),
            Verdict::StopsBy(secs(5))
        );
    }

    #[test]
    fn only_a_whole_line_is_a_lease() {
        for text in [
            "",
            "b",
            "b 1 2",
            "b 1\n",
            "b 1 x\n",
            "b 1 2 3\n",
            "b -1 2\n",
        ] {
            assert_eq!(Lease::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_runs_at_the_deadline(
            sent in 0_u64..1_000_000, fence in 1_u64..1_000_000, grace in 0_u64..100_000, late in 0_u64..9,
        ) {
            let lease = Lease::renewed("b", Duration::from_millis(sent), Duration::from_millis(fence));
            match lease.verdict("b", lease.deadline + Duration::from_millis(late), Duration::from_millis(grace)) {
                Verdict::StopsBy(kill_at) => prop_assert!(kill_at <= lease.deadline),
                Verdict::RunsUntil(_) => prop_assert!(false, "it runs on"),
            }
            prop_assert_eq!(Lease::parse(&lease.print()), Some(lease));
        }
    }
}
