//! The gateway's one shared state: how every backend stands and what is on offer. Readers take the
//! current state without a lock and keep it as long as they like; the backends' tasks replace it.
//! It decides nothing about backends; it makes each change visible whole, at a revision of its own,
//! to readers and to those who watch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use muster_proto::offers::v1 as pb;
use muster_runtime::clock::Clock;
use muster_runtime::resume::Progress;
use muster_runtime::watch::{self, Hub, Update};
use tokio::sync::watch as signal;

use crate::domain::backend::{Facts, Standing};
use crate::domain::market::{Market, Marks, Shelf};
use crate::domain::outcome::Book;
use crate::domain::report;
use crate::domain::snapshot::Snapshot;
use crate::grpc::convert;
use crate::grpc::wire::Tables;
use crate::history::{Forgotten, History, Step};

/// The shared state. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    epoch: String,
    clock: Clock,
    state: ArcSwap<State>,
    /// Held by whoever replaces the state; guards what changes with it.
    writing: Mutex<History>,
    progress: Progress,
    changed: signal::Sender<u64>,
    backends: Hub<pb::Backend>,
}

/// Everything at one revision.
#[derive(Debug)]
pub struct State {
    /// Grows with each change.
    pub revision: u64,
    /// When it was made.
    pub at: SystemTime,
    /// How each backend stands, in order of name.
    pub backends: Vec<Arc<Standing>>,
    /// What is on offer.
    pub stand: Arc<Stand>,
    /// What launches have taught.
    pub book: Arc<Book>,
}

/// What is kept of a backend that is configured again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All: nothing about it has changed.
    All,
    /// Its offers: it is the same one, asked otherwise.
    Offers,
    /// Nothing: it is another one of the same name.
    Nothing,
}

/// Whose marks are worked out anew; others that are known stand.
#[derive(Clone, Copy)]
enum Marking<'a> {
    All,
    Of(&'a str),
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
    pub fn new(epoch: String, clock: Clock, backends: impl IntoIterator<Item = Facts>) -> Self {
        let mut backends: Vec<_> = backends
            .into_iter()
            .map(|facts| Arc::new(Standing::new(Arc::new(facts))))
            .collect();
        backends.sort_by(|a, b| a.facts.name.cmp(&b.facts.name));
        let now = clock.now();
        let shown = backends.iter().map(|standing| {
            (
                standing.facts.name.as_str().into(),
                Arc::new(convert::render_backend(standing, now)),
            )
        });
        let hub = Hub::new(
            epoch.clone(),
            1,
            shown.collect::<Vec<_>>(),
            watch::Options::default(),
        );
        let stand = Arc::new(Stand {
            revision: 1,
            content: 1,
            ..Stand::default()
        });
        Self(Arc::new(Inner {
            epoch,
            clock,
            state: ArcSwap::from_pointee(State {
                revision: 1,
                at: now,
                backends,
                stand,
                book: Arc::default(),
            }),
            writing: Mutex::new(History::new(1)),
            progress: Progress::new(1),
            changed: signal::Sender::new(1),
            backends: hub,
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

    /// Tells those who watch backends.
    pub fn backends(&self) -> &Hub<pb::Backend> {
        &self.0.backends
    }

    /// Changes with each revision.
    pub fn changed(&self) -> signal::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// The first change of offers after `revision`; none if there is none yet.
    pub fn step_after(&self, revision: u64) -> Result<Option<Arc<Step>>, Forgotten> {
        self.writing().after(revision)
    }

    /// Changes how one backend stands. Without effect if there is none of this name.
    pub fn change(&self, backend: &str, change: impl FnOnce(&mut Standing)) {
        let mut history = self.writing();
        let old = self.state();
        let Some(at) = old.position(backend) else {
            return;
        };
        let mut standing = (*old.backends[at]).clone();
        change(&mut standing);
        let mut backends = old.backends.clone();
        backends[at] = Arc::new(standing);
        let book = Arc::clone(&old.book);
        self.replace(&mut history, &old, backends, book, Marking::Of(backend));
    }

    /// Takes what launches have taught. The same book again lets marks end whose time has come.
    pub fn learn(&self, book: Arc<Book>) {
        let mut history = self.writing();
        let old = self.state();
        let backends = old.backends.clone();
        self.replace(&mut history, &old, backends, book, Marking::All);
    }

    /// Takes what a launch has taught of one backend, which is all that the book has learnt.
    pub fn learn_of(&self, backend: &str, book: Arc<Book>) {
        let mut history = self.writing();
        let old = self.state();
        let backends = old.backends.clone();
        self.replace(&mut history, &old, backends, book, Marking::Of(backend));
    }

    /// Has exactly these backends from now on, each with what is kept of the one of its name that
    /// was there before.
    pub fn configure(&self, backends: impl IntoIterator<Item = (Facts, Keep)>) {
        let mut history = self.writing();
        let (old, now) = (self.state(), self.0.clock.now());
        let stands = |(facts, keep): (Facts, Keep)| {
            let known = old.backend(&facts.name);
            match (keep, known) {
                (Keep::All, Some(known)) => Arc::clone(known),
                (Keep::Offers, Some(known)) => {
                    let told = known.told.clone();
                    Arc::new(Standing::with_offers(Arc::new(facts), told, now))
                }
                (Keep::Nothing, _) | (_, None) => Arc::new(Standing::new(Arc::new(facts))),
            }
        };
        let mut backends: Vec<_> = backends.into_iter().map(stands).collect();
        backends.sort_by(|a, b| a.facts.name.cmp(&b.facts.name));
        let book = Arc::clone(&old.book);
        self.replace(&mut history, &old, backends, book, Marking::All);
    }

    fn replace(
        &self,
        history: &mut History,
        old: &State,
        backends: Vec<Arc<Standing>>,
        book: Arc<Book>,
        marking: Marking<'_>,
    ) {
        let (revision, now) = (old.revision + 1, self.0.clock.now());
        let marks = |snapshot: &Arc<Snapshot>| old.stand.marks_of(snapshot, &book, marking, now);
        let stand = Stand::of(&backends, &old.stand, revision, marks);
        if stand.content != old.stand.content
            && let Some(step) = Step::between(&old.stand.market, &stand.market, revision)
        {
            history.push(step);
        }
        let updates = updates(old, &backends, now);
        self.0.state.store(Arc::new(State {
            revision,
            at: now,
            backends,
            stand,
            book,
        }));
        self.0.backends.publish(revision, updates);
        self.0.progress.advance(revision);
        self.0.changed.send_replace(revision);
    }

    // The state is replaced in one step at the end, so a panic leaves nothing half done.
    fn writing(&self) -> MutexGuard<'_, History> {
        self.0
            .writing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What those who watch backends are told. That a refresh is due, or has begun, is no news; that time
/// alone has made offers old is.
fn updates(old: &State, new: &[Arc<Standing>], now: SystemTime) -> Vec<Update<pb::Backend>> {
    let news = |standing: &Arc<Standing>| {
        let mut shown = convert::render_backend(standing, now);
        let was = old.backend(&standing.facts.name);
        let is_news = was.is_none_or(|was| {
            let mut before = convert::render_backend(was, now);
            before.next_refresh_time = shown.next_refresh_time;
            let aged = report::data(was, false, old.at) != report::data(standing, false, now);
            !Arc::ptr_eq(was, standing) && before != shown || aged
        });
        if standing.next_refresh.is_none() {
            shown.next_refresh_time = None;
        }
        is_news.then(|| Update::put(standing.facts.name.as_str(), shown))
    };
    let gone = old.backends.iter().filter(|was| {
        !new.iter()
            .any(|standing| standing.facts.name == was.facts.name)
    });
    let gone = gone.map(|was| Update::delete(was.facts.name.as_str()));
    new.iter().filter_map(news).chain(gone).collect()
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
    fn of(
        backends: &[Arc<Standing>],
        old: &Arc<Self>,
        revision: u64,
        marks: impl Fn(&Arc<Snapshot>) -> Marks,
    ) -> Arc<Self> {
        let shelves = backends
            .iter()
            .filter_map(|standing| standing.shown())
            .map(|told| {
                let marks = marks(&told.snapshot);
                Shelf::new(Arc::clone(&told.snapshot), told.observed, marks)
            });
        let market = Market::new(shelves.collect());
        let pairs = || std::iter::zip(old.market.shelves(), market.shelves());
        let same_content = old.market.shelves().len() == market.shelves().len()
            && pairs().all(|(old, new)| {
                Arc::ptr_eq(&old.snapshot, &new.snapshot) && Arc::ptr_eq(&old.marks, &new.marks)
            });
        if same_content && pairs().all(|(old, new)| old.observed == new.observed) {
            return Arc::clone(old);
        }
        let tables = market
            .shelves()
            .iter()
            .map(|shelf| old.tables_of(shelf))
            .collect();
        let content = if same_content { old.content } else { revision };
        Arc::new(Self {
            revision,
            content,
            market,
            tables,
        })
    }

    /// The marks on a snapshot; the old ones where they are the same.
    fn marks_of(
        &self,
        snapshot: &Arc<Snapshot>,
        book: &Book,
        marking: Marking<'_>,
        now: SystemTime,
    ) -> Marks {
        let known = self.market.shelf(snapshot.backend());
        let known = known.filter(|shelf| Arc::ptr_eq(&shelf.snapshot, snapshot));
        let is_due = match marking {
            Marking::All => true,
            Marking::Of(backend) => backend == snapshot.backend(),
        };
        if let Some(known) = known.filter(|_| !is_due) {
            return Arc::clone(&known.marks);
        }
        let marks = book.marks(snapshot, now);
        let known = known.filter(|shelf| *shelf.marks == marks);
        known.map_or_else(|| Arc::new(marks), |shelf| Arc::clone(&shelf.marks))
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
