//! What someone holds for as long as a store is open, or for as long as a lease is renewed, by its holder's
//! own count of time.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::shared::End;

/// Something held.
#[derive(Clone, Debug)]
pub(crate) enum Hold {
    /// As long as the store is open.
    Open(watch::Receiver<Option<End>>),
    /// As long as the lease is renewed. The last clone dropped gives it back.
    Leased {
        lease: Arc<Lease>,
        /// Tells the keeper, by being gone, that nobody wants it any more.
        _wanted: Arc<watch::Sender<()>>,
    },
}

/// A lease as its holder counts it.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Until when it is certainly held.
    until: Mutex<Instant>,
    ended: watch::Sender<bool>,
}

impl Lease {
    pub(super) fn until(until: Instant) -> Arc<Self> {
        Arc::new(Self {
            until: Mutex::new(until),
            ended: watch::Sender::new(false),
        })
    }

    /// It was renewed, or granted anew.
    pub(super) fn extend(&self, until: Instant) {
        *self.lock() = until;
        self.ended.send_replace(false);
    }

    /// It is not held any more.
    pub(super) fn end(&self) {
        self.ended.send_replace(true);
    }

    pub(super) fn holds(&self) -> bool {
        !*self.ended.borrow() && Instant::now() < self.ends()
    }

    fn ends(&self) -> Instant {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn lost(&self) {
        let mut ended = self.ended.subscribe();
        loop {
            let until = self.ends();
            tokio::select! {
                _ = ended.wait_for(|ended| *ended) => return,
                () = sleep_until(until) => {
                    if !self.holds() {
                        return;
                    }
                }
            }
        }
    }
}

impl Hold {
    pub(super) fn leased(lease: &Arc<Lease>) -> (Self, watch::Receiver<()>) {
        let (wanted, unwanted) = watch::channel(());
        let hold = Self::Leased {
            lease: Arc::clone(lease),
            _wanted: Arc::new(wanted),
        };
        (hold, unwanted)
    }

    /// Whether it is held.
    pub(crate) fn holds(&self) -> bool {
        match self {
            Self::Open(end) => end.borrow().is_none(),
            Self::Leased { lease, .. } => lease.holds(),
        }
    }

    /// Resolves when it is not held any more. Does not keep it.
    pub(crate) fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let held = match self {
            Self::Open(end) => Held::Open(end.clone()),
            Self::Leased { lease, .. } => Held::Leased(Arc::clone(lease)),
        };
        async move {
            match held {
                // An error means that the store is gone altogether.
                Held::Open(mut end) => drop(end.wait_for(Option::is_some).await),
                Held::Leased(lease) => lease.lost().await,
            }
        }
    }
}

enum Held {
    Open(watch::Receiver<Option<End>>),
    Leased(Arc<Lease>),
}
