//! Lets go of what need not be kept: old events, and request ids of services that are gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use muster_store::{Outcome, Transaction};

use super::Engine;
use super::duty::Duty;
use crate::domain::time::Time;
use crate::state::view::Inner;

/// Transactions' events that are kept.
const KEPT_EVENTS: usize = 20_000;

/// How long a request id outlives what it made.
const KEPT_REQUESTS: Duration = Duration::from_secs(600);

/// Records deleted at once: what fits a transaction with its fence.
const AT_ONCE: usize = 50;

/// Forgets, now and then, for as long as this instance leads.
pub(crate) async fn old(engine: &Engine, duty: &Duty, every: Duration) {
    let mut gone = BTreeMap::new();
    loop {
        tokio::time::sleep(every).await;
        let surplus = {
            let view = engine.parts().view.read();
            let mut surplus = old_events(&view);
            surplus.extend(old_requests(&view, &mut gone, engine.now()));
            surplus.extend(orphans_of_nobody(&view, engine, duty));
            surplus
        };
        for keys in surplus.chunks(AT_ONCE) {
            let mut transaction = Transaction::new();
            for key in keys {
                transaction = transaction.delete(key.clone());
            }
            let parts = engine.parts();
            let fenced = duty.leadership.fence(transaction);
            match parts.store.commit(fenced).await {
                Ok(Outcome::Committed(_)) => {}
                Ok(Outcome::Conflict { .. }) => break,
                Err(error) => {
                    tracing::warn!(%error, "old records could not be deleted");
                    break;
                }
            }
        }
    }
}

fn old_events(view: &Inner) -> Vec<String> {
    let surplus = view.event_batches.len().saturating_sub(KEPT_EVENTS);
    let oldest = view.event_batches.keys().take(surplus);
    oldest.map(ToString::to_string).collect()
}

/// Requests whose service has been gone for long enough. `gone` remembers since when it was seen to be
/// so: after a restart that counts anew.
fn old_requests(view: &Inner, gone: &mut BTreeMap<Arc<str>, Time>, now: Time) -> Vec<String> {
    gone.retain(|key, _| view.requests.contains_key(key));
    for (key, used) in &view.requests {
        if view.of(&used.uid).is_none() {
            gone.entry(Arc::clone(key)).or_insert(now);
        }
    }
    let old = gone
        .iter()
        .filter(|(_, since)| now.since(**since) > KEPT_REQUESTS);
    old.map(|(key, _)| key.to_string()).collect()
}

/// What is known to run on workers that are no more.
fn orphans_of_nobody(view: &Inner, engine: &Engine, duty: &Duty) -> Vec<String> {
    let fleet = engine.parts().fleet.read();
    let Some(workers) = fleet.workers_in(&duty.owner) else {
        return Vec::new();
    };
    let gone = view.orphans.keys();
    let gone = gone.filter(|(worker, _)| !workers.contains_key(worker));
    gone.map(|(worker, attempt)| crate::state::keys::orphan(worker, attempt))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::Used;

    fn at(second: u64) -> Time {
        Time::default() + Duration::from_secs(second)
    }

    #[test]
    fn a_request_outlives_its_service_by_ten_minutes() {
        let mut view = Inner::default();
        let used = Used {
            body: String::new(),
            uid: "gone".to_owned(),
            created: true,
            at: at(0),
        };
        view.requests.insert(Arc::from("request/1"), used);
        let mut gone = BTreeMap::new();
        assert!(old_requests(&view, &mut gone, at(5000)).is_empty());
        assert!(old_requests(&view, &mut gone, at(5600)).is_empty());
        assert_eq!(old_requests(&view, &mut gone, at(5601)), ["request/1"]);
    }
}
