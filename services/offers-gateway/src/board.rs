//! The gateway's one shared state: how every backend stands and what is on offer. Readers take the
//! current state without a lock and keep it as long as they like; the backends' tasks replace it.
//! It decides nothing about backends; it makes each change visible whole, at a revision of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use muster_runtime::resume::Progress;

use crate::domain::backend::{Facts, Standing};
use crate::domain::market::{Market, Marks, Shelf};
use crate::grpc::wire::Tables;

/// The shared state. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    epoch: String,
    state: ArcSwap<State>,
    /// Held by whoever replaces the state.
    writing: Mutex<()>,
    progress: Progress,
}

/// Everything at one revision.
#[derive(Debug)]
pub struct State {
    /// Grows with each change.
    pub revision: u64,
    /// How each backend stands, in order of name.
    pub backends: Vec<Arc<Standing>>,
    /// What is on offer.
    pub stand: Arc<Stand>,
}

/// What is on offer, with all that is needed to send it.
#[derive(Debug, Default)]
pub struct Stand {
    /// The state's revision at which it was made.
    pub revision: u64,
    /// The last revision at which offers changed by more than the time when they were read.
    pub content: u64,
    /// The offers.
    pub market: Market,
    /// The same in the words of the wire, by place in the market.
    pub tables: Vec<Arc<Tables>>,
}

impl Board {
    /// A board of backends that have not told anything yet, in a history named `epoch`.
    pub fn new(epoch: String, backends: impl IntoIterator<Item = Facts>) -> Self {
        let mut backends: Vec<_> = backends
            .into_iter()
            .map(|facts| Arc::new(Standing::new(Arc::new(facts))))
            .collect();
        backends.sort_by(|a, b| a.facts.name.cmp(&b.facts.name));
        let stand = Arc::new(Stand {
            revision: 1,
            content: 1,
            ..Stand::default()
        });
        Self(Arc::new(Inner {
            epoch,
            state: ArcSwap::from_pointee(State {
                revision: 1,
                backends,
                stand,
            }),
            writing: Mutex::new(()),
            progress: Progress::new(1),
        }))
    }

    /// The history that revisions are of.
    pub fn epoch(&self) -> &str {
        &self.0.epoch
    }

    /// The current state.
    pub fn state(&self) -> Arc<State> {
        self.0.state.load_full()
    }

    /// How far it has come.
    pub fn progress(&self) -> &Progress {
        &self.0.progress
    }

    /// Changes how one backend stands. Without effect if there is none of this name.
    pub fn change(&self, backend: &str, change: impl FnOnce(&mut Standing)) {
        let _writing = self.writing();
        let old = self.state();
        let Some(at) = old.position(backend) else {
            return;
        };
        let mut standing = (*old.backends[at]).clone();
        change(&mut standing);
        let mut backends = old.backends.clone();
        backends[at] = Arc::new(standing);
        self.replace(&old, backends);
    }

    fn replace(&self, old: &State, backends: Vec<Arc<Standing>>) {
        let revision = old.revision + 1;
        let stand = Stand::of(&backends, &old.stand, revision);
        self.0.state.store(Arc::new(State {
            revision,
            backends,
            stand,
        }));
        self.0.progress.advance(revision);
    }

    // The state is replaced in one step at the end, so a panic leaves nothing half done.
    fn writing(&self) -> MutexGuard<'_, ()> {
        self.0
            .writing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How a backend stands.
    pub fn backend(&self, name: &str) -> Option<&Arc<Standing>> {
        self.position(name).map(|at| &self.backends[at])
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.backends
            .binary_search_by(|standing| standing.facts.name.as_str().cmp(name))
            .ok()
    }
}

impl Stand {
    /// What is on offer, sharing with the `old` one whatever is still the same.
    fn of(backends: &[Arc<Standing>], old: &Arc<Self>, revision: u64) -> Arc<Self> {
        let shown = || backends.iter().filter_map(|standing| standing.shown());
        let same_time = |shelf: &Shelf, observed: SystemTime| shelf.observed == observed;
        let same = |exactly: bool| {
            let shelves = old.market.shelves();
            shelves.len() == shown().count()
                && shelves.iter().zip(shown()).all(|(shelf, told)| {
                    Arc::ptr_eq(&shelf.snapshot, &told.snapshot)
                        && (!exactly || same_time(shelf, told.observed))
                })
        };
        if same(true) {
            return Arc::clone(old);
        }
        let content = if same(false) { old.content } else { revision };
        let shelves = shown()
            .map(|told| Shelf::new(Arc::clone(&told.snapshot), told.observed, Marks::default()));
        let market = Market::new(shelves.collect());
        let tables = market
            .shelves()
            .iter()
            .map(|shelf| old.tables_of(shelf))
            .collect();
        Arc::new(Self {
            revision,
            content,
            market,
            tables,
        })
    }

    fn tables_of(&self, shelf: &Shelf) -> Arc<Tables> {
        let known = self
            .market
            .shelves()
            .iter()
            .position(|old| Arc::ptr_eq(&old.snapshot, &shelf.snapshot));
        known.map_or_else(
            || Arc::new(Tables::new(&shelf.snapshot)),
            |at| Arc::clone(&self.tables[at]),
        )
    }
}
