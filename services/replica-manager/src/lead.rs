//! What one of the instances does for all of them, while it leads: plan, act at the registry, report drains,
//! and forget what is old. Losing the leadership stops all of it at once, wherever it is; the next
//! leadership begins it again, in the same process if it comes here.

use std::time::Duration;

use muster_runtime::deadline::Deadline;
use muster_runtime::instances::Instances;
use muster_runtime::task::Tasks;
use muster_store::{Leadership, Revision};

use crate::engine::duty::{Duty, OnDuty};
use crate::engine::{forget, passes};
use crate::executor::Executor;
use crate::registry::calls::Owner;
use crate::registry::drains::Drains;
use crate::registry::watching::Follower;

/// How often old events, request ids and orphans are let go of.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// How often it is said that leading waits.
const A_LOOK: Duration = Duration::from_secs(10);

/// What leading takes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Lead {
    pub(crate) follower: Follower,
    pub(crate) tasks: Tasks,
    /// How often drains are reported, and leftovers looked for.
    pub(crate) every: Duration,
}

impl Lead {
    /// Leads whenever this instance may, for ever.
    pub(crate) async fn whenever(self, instances: Instances) {
        let lead = |leadership| Box::pin(self.clone().lead(leadership));
        instances.while_leading(lead).await;
    }

    async fn lead(self, leadership: Leadership) {
        self.read_what_was_before(&leadership).await;
        let (duty, _on_duty) = self.take_up(leadership);
        let (engine, follower) = (&self.follower.engine, &self.follower);
        let reporting =
            Drains::default().report(engine, &follower.registry, &duty.owner, self.every);
        tokio::join!(
            passes::plan_due(engine),
            follower.allocations(),
            follower.reconcile(&duty.owner, self.every),
            reporting,
            forget::old(engine, &duty, FORGET_EVERY),
        );
    }

    /// Whoever acts by what earlier leaders wrote has to have read all of it.
    async fn read_what_was_before(&self, leadership: &Leadership) {
        let progress = &self.follower.engine.parts().progress;
        let Revision(term) = leadership.term().revision;
        while let Err(behind) = progress.reach(term, Deadline::after(A_LOOK)).await {
            tracing::warn!(%behind, "leading waits until what was written before is read");
        }
    }

    fn take_up(&self, leadership: Leadership) -> (Duty, OnDuty) {
        let term = leadership.term();
        let owner = Owner {
            epoch: term.epoch.to_string(),
            revision: term.revision.0,
        };
        let engine = self.follower.engine.clone();
        let (executor, working) = Executor::new(
            engine.clone(),
            self.follower.registry.clone(),
            self.tasks.clone(),
            owner.clone(),
            self.follower.claimed.subscribe(),
        );
        let duty = Duty {
            leadership,
            owner,
            executor,
            since: engine.now(),
        };
        let on_duty = engine.take_up(duty.clone(), working);
        (duty, on_duty)
    }
}
