//! A client that keeps what a watch tells it, and checks every promise on the way.

use std::collections::BTreeMap;

use super::*;

/// What is there, by name.
pub(super) type State = BTreeMap<String, Thing>;

/// The state at each revision, as the writers made it.
#[derive(Default)]
pub(super) struct Record {
    states: BTreeMap<u64, State>,
}

impl Record {
    pub(super) fn note(&mut self, revision: u64, state: State) {
        self.states.insert(revision, state);
    }

    fn at(&self, revision: u64) -> State {
        let upto = self.states.range(..=revision).next_back();
        upto.map(|(_, state)| state.clone()).unwrap_or_default()
    }
}

/// What a follower asks to see.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sight {
    All,
    Group(u64),
    Prefix(&'static str),
}

impl Sight {
    pub(super) fn sees(self, thing: &Thing) -> bool {
        match self {
            Self::All => true,
            Self::Group(group) => thing.group == group,
            Self::Prefix(prefix) => thing.name.starts_with(prefix),
        }
    }
}

/// The client's side of one watch, over any number of reconnects.
pub(super) struct Follower {
    pub(super) sight: Sight,
    pub(super) state: State,
    /// Changes of which the token has not come yet.
    pending: Vec<Event<Thing>>,
    pub(super) token: String,
    pub(super) revision: u64,
    synced: bool,
}

impl Follower {
    pub(super) fn new(sight: Sight) -> Self {
        Self {
            sight,
            state: State::new(),
            pending: Vec::new(),
            token: String::new(),
            revision: 0,
            synced: false,
        }
    }

    pub(super) fn filter(&self) -> Filter<Thing> {
        match self.sight {
            Sight::All => Filter::all(),
            Sight::Group(group) => Filter::all().durable(move |thing: &Thing| thing.group == group),
            Sight::Prefix(prefix) => Filter::all().prefix(prefix),
        }
    }

    /// The stream has ended: what had no token yet did not happen.
    pub(super) fn disconnect(&mut self) {
        self.pending.clear();
        self.synced = false;
    }

    /// The history is gone: begin with the state again.
    pub(super) fn start_over(&mut self) {
        self.disconnect();
        self.state.clear();
        self.token.clear();
        self.revision = 0;
    }

    pub(super) fn take(&mut self, message: Message<Thing>, record: &std::sync::Mutex<Record>) {
        assert!(message.changes.len() <= 1_000);
        assert!(message.synced || !self.synced, "once synced, always synced");
        self.synced = message.synced;
        self.pending.extend(message.changes);
        if message.resume_token.is_empty() {
            return;
        }
        let position = Position::parse(&message.resume_token).unwrap();
        assert!(position.revision >= self.revision, "tokens never go back");
        for event in std::mem::take(&mut self.pending) {
            self.apply(&event, position.revision);
        }
        self.token = message.resume_token;
        self.revision = position.revision;
        if self.synced {
            self.check(&record.lock().unwrap().at(self.revision));
        }
    }

    fn apply(&mut self, event: &Event<Thing>, upto: u64) {
        let thing = &**event.resource();
        let held = self.state.get(&thing.name).cloned();
        match event {
            Event::Put(_) => {
                assert!(thing.version <= upto, "nothing from beyond the token");
                assert!(
                    thing.version > self.revision || self.token.is_empty(),
                    "no duplicates"
                );
                let newer = held.is_none_or(|held| held.version < thing.version);
                assert!(newer, "in order: {thing:?}");
                self.state.insert(thing.name.clone(), thing.clone());
            }
            Event::Deleted(_) => {
                let held = held.expect("only what was shown is taken away");
                assert_eq!(held.version, thing.version, "with its last state");
                self.state.remove(&thing.name);
            }
            Event::Observed(_) => {
                let held = held.expect("facts are about what was shown");
                assert_eq!(
                    held.version, thing.version,
                    "facts are about the newest state"
                );
                self.state.insert(thing.name.clone(), thing.clone());
            }
        }
    }

    /// Everything durable is as it was at that revision.
    fn check(&self, truth: &State) {
        let durable = |thing: &Thing| (thing.name.clone(), thing.version, thing.group);
        let held: Vec<_> = self.state.values().map(durable).collect();
        let seen = truth.values().filter(|thing| self.sight.sees(thing));
        assert_eq!(
            held,
            seen.map(durable).collect::<Vec<_>>(),
            "at {}",
            self.revision
        );
    }
}
