//! What this instance has while it leads: the right to act for all of them, and who it is to the registry.

use muster_store::Leadership;
use tokio::sync::watch;

use super::Engine;
use crate::domain::time::Time;
use crate::executor::{Executor, Working};
use crate::registry::calls::Owner;

/// The right to plan and to act, for as long as it is not lost.
#[derive(Clone, Debug)]
pub(crate) struct Duty {
    /// What every write made by it is conditioned on.
    pub(crate) leadership: Leadership,
    /// Who it is to the registry.
    pub(crate) owner: Owner,
    /// Does at the registry what records say.
    pub(crate) executor: Executor,
    /// When it was taken up.
    pub(crate) since: Time,
}

/// While this is there, the engine plans and its executor works.
#[derive(Debug)]
pub(crate) struct OnDuty {
    engine: Engine,
    _working: Working,
}

impl Engine {
    /// What this instance has while it leads; `None` while another does, or nobody.
    pub(crate) fn duty(&self) -> Option<Duty> {
        let duty = self.0.duty.borrow();
        duty.as_ref()
            .filter(|duty| duty.leadership.holds())
            .cloned()
    }

    /// Since when this instance leads; the beginning of time if it does not.
    pub(crate) fn leads_since(&self) -> Time {
        self.duty().map_or(Time::default(), |duty| duty.since)
    }

    /// Tells when that changes.
    pub(crate) fn on_duty(&self) -> watch::Receiver<Option<Duty>> {
        self.0.duty.subscribe()
    }

    /// Plans from now on, beginning with everything: what others changed before is in the view, and what
    /// they change later is seen to when the view shows it.
    pub(crate) fn take_up(&self, duty: Duty, working: Working) -> OnDuty {
        let parts = self.parts();
        self.recount_moves();
        parts.loads.clear();
        let executor = duty.executor.clone();
        self.0.duty.send_replace(Some(duty));
        let on_duty = OnDuty {
            engine: self.clone(),
            _working: working,
        };
        // Nothing is folded meanwhile, so that what is counted from here on begins where this ends.
        let view = parts.view.read();
        let known = view.all().map(|(uid, service)| (uid, &**service));
        parts.metrics.begin(known, self.now());
        for (_, service) in view.all() {
            executor.consider(service);
        }
        let everyone = view.all().map(|(uid, _)| uid.clone());
        parts.wakes.restart(everyone);
        drop(view);
        on_duty
    }
}

impl Drop for OnDuty {
    fn drop(&mut self) {
        self.engine.0.duty.send_replace(None);
        self.engine.parts().metrics.end(self.engine.now());
    }
}
