//! Named tasks with an owner: who runs, what ended, what panicked. A critical task that ends
//! without being asked to stops the process, since a process that lacks one of its loops only looks
//! healthy. It decides nothing about what a task does.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::panic::{Panicked, caught};
use crate::shutdown::{Cause, Phase, Shutdown};

#[cfg(test)]
mod tests;

/// A task's name, for logs and status.
pub type Name = Cow<'static, str>;

/// The tasks of one component. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tasks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tracker: TaskTracker,
    cut: CancellationToken,
    shutdown: Shutdown,
    running: Mutex<BTreeMap<Name, usize>>,
}

/// Why a task has no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// It panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// It was cut off, at shutdown or by [`Handle::abort`].
    #[error("cut off before its end")]
    Cut,
}

/// The end of a task. Dropping it lets the task run on.
#[derive(Debug)]
pub struct Handle<T>(JoinHandle<Result<T, Failed>>);

/// What a critical task or a shutdown step ends with: nothing, or an error to tell.
pub trait Ending {
    /// The error in words, if it failed.
    fn into_error(self) -> Option<String>;
}

impl Ending for () {
    fn into_error(self) -> Option<String> {
        None
    }
}

impl<E: std::fmt::Display> Ending for Result<(), E> {
    fn into_error(self) -> Option<String> {
        self.err().map(|error| format!("{error:#}"))
    }
}

impl Tasks {
    /// No tasks yet. `shutdown` is begun when a critical one ends unasked.
    pub fn new(shutdown: Shutdown) -> Self {
        Self(Arc::new(Inner {
            tracker: TaskTracker::new(),
            cut: CancellationToken::new(),
            shutdown,
            running: Mutex::default(),
        }))
    }

    /// Runs `work` to its end, whoever waits for it: a handler that must not be undone half way by
    /// its caller's cancellation spawns its work here and awaits the handle.
    pub fn spawn<F>(&self, name: impl Into<Name>, work: F) -> Handle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let name = name.into();
        let entry = self.enter(name.clone());
        let cut = self.0.cut.clone();
        let task = self.0.tracker.track_future(async move {
            let _entry = entry;
            let outcome = tokio::select! {
                biased;
                () = cut.cancelled() => return Err(Failed::Cut),
                outcome = caught(work) => outcome,
            };
            if let Err(panicked) = &outcome {
                tracing::error!(task = %name, error = %panicked, "task panicked");
            }
            outcome.map_err(Failed::from)
        });
        Handle(spawn(task))
    }

    /// Runs a loop that the component cannot do without: if it ends, fails or panics before
    /// shutdown has begun, shutdown begins with that as its cause.
    pub fn critical<F>(&self, name: impl Into<Name>, work: F)
    where
        F: Future<Output: Ending> + Send + 'static,
    {
        self.critical_until(std::future::pending::<()>(), name, work);
    }

    /// The same for a loop that the component may come to do without: once `dismissed` resolves it
    /// is dropped at its next await, and that is no reason to stop.
    pub fn critical_until<D, F>(&self, dismissed: D, name: impl Into<Name>, work: F) -> Handle<()>
    where
        D: Future<Output: Send> + Send + 'static,
        F: Future<Output: Ending> + Send + 'static,
    {
        let name = name.into();
        let shutdown = self.0.shutdown.clone();
        self.spawn(name.clone(), async move {
            let ended = tokio::select! {
                biased;
                _ = dismissed => return,
                ended = caught(work) => ended,
            };
            let end = match ended {
                Ok(output) => output.into_error(),
                Err(panicked) => Some(panicked.to_string()),
            };
            if shutdown.is_begun() {
                if let Some(error) = end {
                    tracing::warn!(task = %name, error, "task failed while stopping");
                }
                return;
            }
            let why = end.unwrap_or_else(|| "ended without being asked to".to_owned());
            shutdown.begin(Cause::failed(format!("task {name}: {why}")));
        })
    }

    /// Runs `work` until `phase` of the shutdown begins, and drops it there: for what never ends by
    /// itself and may be left at any await.
    pub fn until<F>(&self, phase: Phase, name: impl Into<Name>, work: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let reached = self.0.shutdown.reached(phase);
        self.spawn(name, async move {
            tokio::select! {
                // Once it is reached the work does nothing more: it would begin what nobody ends.
                biased;
                () = reached => {}
                _ = work => {}
            }
        });
    }

    /// The names of running tasks, each with how many run.
    pub fn running(&self) -> Vec<(Name, usize)> {
        let running = self.running_lock();
        running.iter().map(|(name, n)| (name.clone(), *n)).collect()
    }

    /// Waits until every task has ended. Tasks may still be spawned meanwhile.
    pub async fn ended(&self) {
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }

    /// Cuts every task off at its next await, those spawned later too.
    pub fn cut(&self) {
        self.0.cut.cancel();
    }

    fn enter(&self, name: Name) -> Entry {
        *self.running_lock().entry(name.clone()).or_default() += 1;
        Entry {
            tasks: self.clone(),
            name,
        }
    }

    fn running_lock(&self) -> MutexGuard<'_, BTreeMap<Name, usize>> {
        self.0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Handle<T> {
    /// Cuts the task off at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for Handle<T> {
    type Output = Result<T, Failed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // A panic is caught inside the task, so a join error can only mean that it was aborted.
        Pin::new(&mut self.0)
            .poll(context)
            .map(|joined| joined.unwrap_or(Err(Failed::Cut)))
    }
}

/// Counts one running task until dropped, however the task ends.
struct Entry {
    tasks: Tasks,
    name: Name,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut running = self.tasks.running_lock();
        if let Some(count) = running.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.name);
            }
        }
    }
}

/// The one place that starts a tokio task; everything else names an owner.
#[expect(
    clippy::disallowed_methods,
    reason = "the named spawns are built on this one"
)]
pub(crate) fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(work)
}

/// Runs `work`, which blocks its thread, on a thread kept for that.
pub(crate) fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    tokio::task::spawn_blocking(work)
}
