//! Why there is no room anywhere. The whole fleet is looked at for that, a slice at a time: heartbeats
//! are heard, and the view changed, in between.

use std::collections::HashMap;

use muster_proto::workers::v1 as proto;
use tokio::task::yield_now;

use super::convert::render_refusal;
use crate::domain::placement::{Ask, Refusal, Survey};
use crate::domain::text::Text;
use crate::registry::Registry;

/// Workers looked at before others have their turn: less than a millisecond.
pub(crate) const SLICE: usize = 256;

/// Why each worker that does not do is refused.
pub(super) async fn refusals(registry: &Registry, ask: &Ask) -> Vec<Refusal> {
    let mut survey = Survey::new(ask, &registry.epoch);
    let mut after = Some(Text::from(""));
    while let Some(last) = after {
        after = look_after(registry, &last, ask, &mut survey);
        yield_now().await;
    }
    survey.refusals()
}

/// Looks at the next workers; answers the last of them if there may be more.
fn look_after(registry: &Registry, name: &str, ask: &Ask, survey: &mut Survey<'_>) -> Option<Text> {
    let view = registry.view();
    let liveness = |worker: &_| registry.liveness(worker);
    if let Some(only) = &ask.worker {
        if let Some(entry) = view.worker(only) {
            survey.look_at(entry, liveness);
        }
        return None;
    }
    let mut left = SLICE;
    let mut last = None;
    for entry in view.workers_after(name).take(SLICE) {
        survey.look_at(entry, liveness);
        left -= 1;
        last = Some(&entry.worker.name);
    }
    last.filter(|_| left == 0).cloned()
}

/// Why the asks of a batch are refused: those that are alike are looked into once.
pub(super) struct Reasons<'a> {
    registry: &'a Registry,
    known: HashMap<Ask, Vec<proto::Refusal>>,
}

impl<'a> Reasons<'a> {
    pub(super) fn new(registry: &'a Registry) -> Self {
        Self {
            registry,
            known: HashMap::new(),
        }
    }

    pub(super) async fn of(&mut self, ask: &Ask) -> Vec<proto::Refusal> {
        // What it is spread by refuses nobody.
        let alike = Ask {
            spread_key: "".into(),
            ..ask.clone()
        };
        if let Some(known) = self.known.get(&alike) {
            return known.clone();
        }
        let found = refusals(self.registry, &alike).await;
        let rendered: Vec<_> = found.iter().map(render_refusal).collect();
        self.known.insert(alike, rendered.clone());
        rendered
    }
}
