//! What the files in an attempt's folder, its lease, and signals ask of the supervisor. The files are
//! read by a thread of their own, so that a disk that hangs cannot hold up the fence: the last lease
//! that was read goes on counting.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::complain;
use super::output::STACK;
use super::run::timespec;
use crate::attempt_dir::{AttemptDir, Fence, Spec, called_stop};
use crate::domain::lease::{Lease, Verdict};
use crate::files;
use crate::machine;

/// The files are looked at this often without being woken, in case a wake-up was lost.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A lease is looked at this many times while it lasts, and at least twice a second.
const LOOKS_PER_LEASE: u32 = 20;
const LEASE_EVERY: Duration = Duration::from_millis(500);

/// What is asked now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Orders {
    /// When it is killed, since boot.
    pub(super) stop: Option<Duration>,
    /// When it is killed because we were told to end, or the folder is gone, since boot.
    pub(super) interrupted: Option<Duration>,
    pub(super) lease: Option<Lease>,
    /// What it is given to stop, if not what its spec says.
    pub(super) grace: Option<Duration>,
}

/// Why an attempt is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Told,
    Fenced,
    /// We were told to end, or no agent will ever know of us: nobody would mind it.
    Interrupted,
}

/// That an attempt has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) why: Why,
    /// When it is killed, since boot.
    pub(super) kill_at: Duration,
}

/// What is due: an end, or nothing before a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    End(End),
    /// To be looked at again by then; never is the far future.
    Nothing(Duration),
}

impl Orders {
    /// What is due at `now`. `fence` is the spec's grace for an attempt that ends with its lease.
    pub(super) fn due(&self, boot_id: &str, now: Duration, fence: Option<Duration>) -> Due {
        let told = match (self.stop, self.interrupted) {
            (Some(stop), interrupted) => Some(End {
                why: Why::Told,
                kill_at: interrupted.map_or(stop, |kill_at| kill_at.min(stop)),
            }),
            (None, interrupted) => interrupted.map(|kill_at| End {
                why: Why::Interrupted,
                kill_at,
            }),
        };
        let fenced = match (fence, &self.lease) {
            (None, _) => Verdict::RunsUntil(Duration::MAX),
            // Never a lease: it was not to be started.
            (Some(_), None) => Verdict::StopsBy(now),
            (Some(grace), Some(lease)) => lease.verdict(boot_id, now, self.grace.unwrap_or(grace)),
        };
        match (told, fenced) {
            (Some(told), Verdict::StopsBy(kill_at)) => Due::End(End {
                kill_at: told.kill_at.min(kill_at),
                ..told
            }),
            (Some(told), Verdict::RunsUntil(_)) => Due::End(told),
            (None, Verdict::StopsBy(kill_at)) => Due::End(End {
                why: Why::Fenced,
                kill_at,
            }),
            (None, Verdict::RunsUntil(until)) => Due::Nothing(until),
        }
    }
}

impl Orders {
    /// How long the files may be left unread.
    fn look_every(&self) -> Duration {
        self.lease.as_ref().map_or(LOOK_EVERY, |lease| {
            (lease.fence_after / LOOKS_PER_LEASE).clamp(Duration::from_millis(10), LEASE_EVERY)
        })
    }
}

/// The orders, as last read. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    orders: Arc<Mutex<Orders>>,
    /// Its other end gets a byte when there is something to look at.
    changed: Arc<UnixStream>,
}

impl Shared {
    pub(super) fn get(&self) -> Orders {
        self.lock().clone()
    }

    /// Wakes whoever waits for orders.
    pub(super) fn wake(&self) {
        // Where there is no room for a byte, there are some to be read.
        let _ = (&*self.changed).write(&[1]);
    }

    /// Ends it within its grace, which its spec says, unless that was begun before.
    fn interrupt(&self, grace: Duration) {
        let mut orders = self.lock();
        let grace = orders.grace.unwrap_or(grace);
        let kill_at = machine::since_boot().saturating_add(grace);
        orders.interrupted.get_or_insert(kill_at);
        drop(orders);
        self.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the files, and wakes if anything is different. `called` is a stop that came without one.
    fn read(&self, dir: &AttemptDir, fence: Option<&Fence>, called: Option<Duration>) {
        let stop = dir.stop().ok().flatten().map(|stop| stop.kill_at);
        let grace = dir.grace().ok().flatten();
        let lease = fence.map(|fence| files::read(&fence.lease));
        let mut orders = self.lock();
        let before = orders.clone();
        // What cannot be read leaves what was read before: a stop is never called off.
        orders.stop = [orders.stop, stop, called].into_iter().flatten().min();
        orders.grace = grace.or(orders.grace);
        if let Some(Ok(Some(bytes))) = lease
            && let Some(lease) = std::str::from_utf8(&bytes).ok().and_then(Lease::parse)
        {
            orders.lease = Some(lease);
        }
        let is_changed = *orders != before;
        drop(orders);
        if is_changed {
            self.wake();
        }
    }
}

/// Starts reading the orders of an attempt; the other end of the socket gets a byte when they
/// differ.
pub(super) fn begin(dir: &AttemptDir, spec: &Spec) -> io::Result<(Shared, UnixStream)> {
    let (changed, changed_end) = UnixStream::pair()?;
    changed.set_nonblocking(true)?;
    changed_end.set_nonblocking(true)?;
    let orders = Shared {
        orders: Arc::default(),
        changed: Arc::new(changed_end),
    };
    heed_signals(&orders, spec.stop_grace)?;
    let watched = Watched {
        wake: dir.wake_end()?,
        folder: File::open(dir.path())?,
        dir: dir.clone(),
        fence: spec.fence.clone(),
        grace: spec.stop_grace,
    };
    orders.read(dir, spec.fence.as_ref(), None);
    let shared = orders.clone();
    thread::Builder::new().stack_size(STACK).spawn(move || {
        if let Err(error) = watch(&shared, &watched) {
            complain(&format!("no longer sees its orders: {error}"));
        }
    })?;
    Ok((orders, changed))
}

/// Takes the signals by which processes are asked to end for an order to stop: who ends everything
/// on this machine, or a service with all that it started, means the replica too.
fn heed_signals(shared: &Shared, grace: Duration) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let signals = {
        let _inside = runtime.enter();
        [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ]
    };
    let shared = shared.clone();
    thread::Builder::new().stack_size(STACK).spawn(move || {
        first_of(&runtime, signals);
        shared.interrupt(grace);
    })?;
    Ok(())
}

fn first_of(runtime: &Runtime, [mut one, mut two, mut three]: [Signal; 3]) {
    runtime.block_on(async {
        tokio::select! {
            _ = one.recv() => {}
            _ = two.recv() => {}
            _ = three.recv() => {}
        }
    });
}

/// Where orders come from.
struct Watched {
    wake: File,
    /// The folder itself, whatever becomes of its path.
    folder: File,
    dir: AttemptDir,
    fence: Option<Fence>,
    /// For an end that nobody has given another time.
    grace: Duration,
}

impl Watched {
    /// Whether the folder was removed, and with it all that an agent could know us by. A path that leads
    /// nowhere is no sign of that: a disk may come back.
    fn is_removed(&self) -> bool {
        self.folder
            .metadata()
            .is_ok_and(|folder| folder.nlink() == 0)
    }
}

/// Reads the files whenever woken, and now and then.
fn watch(shared: &Shared, watched: &Watched) -> io::Result<()> {
    let mut wake = &watched.wake;
    loop {
        let mut fds = [PollFd::new(&wake, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(shared.get().look_every()))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 1024];
        let read = wake.read(&mut bytes).unwrap_or(0);
        let called = called_stop(&bytes[..read]);
        shared.read(&watched.dir, watched.fence.as_ref(), called);
        if watched.is_removed() {
            shared.interrupt(watched.grace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn orders(stop: Option<u64>, deadline: Option<u64>) -> Orders {
        Orders {
            stop: stop.map(secs),
            interrupted: None,
            lease: deadline.map(|at| Lease {
                boot_id: "b".into(),
                deadline: secs(at),
                fence_after: secs(40),
            }),
            grace: None,
        }
    }

    #[test]
    fn whoever_comes_first_decides_when() {
        let kept = None;
        let fenced = Some(secs(5));
        let kill_at = secs(100) - Duration::from_millis(200);
        let end = |why, kill_at| Due::End(End { why, kill_at });
        for (stop, lease, fence, now, due) in [
            (None, None, kept, 1, Due::Nothing(Duration::MAX)),
            (None, Some(100), kept, 500, Due::Nothing(Duration::MAX)),
            (Some(9), None, kept, 1, end(Why::Told, secs(9))),
            (None, None, fenced, 1, end(Why::Fenced, secs(1))),
            (None, Some(100), fenced, 1, Due::Nothing(kill_at - secs(5))),
            (None, Some(100), fenced, 96, end(Why::Fenced, kill_at)),
            (Some(9), Some(100), fenced, 1, end(Why::Told, secs(9))),
            (Some(300), Some(100), fenced, 96, end(Why::Told, kill_at)),
        ] {
            let found = orders(stop, lease).due("b", secs(now), fence);
            assert_eq!(found, due, "{stop:?} {lease:?} {fence:?} at {now}");
        }
        for (stop, interrupted, due) in [
            (None, 7, end(Why::Interrupted, secs(7))),
            (Some(9), 7, end(Why::Told, secs(7))),
            (Some(5), 7, end(Why::Told, secs(5))),
        ] {
            let orders = Orders {
                interrupted: Some(secs(interrupted)),
                ..orders(stop, None)
            };
            assert_eq!(orders.due("b", secs(1), kept), due);
        }
    }
}
