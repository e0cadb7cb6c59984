//! The side thread of a process: it hears signals, serves the ops port, listens to the pulse of the
//! other threads, and ends a process whose shutdown does not. It has an event loop of its own, so
//! that it works while the component's threads are all stuck.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::clock::Clock;
use crate::context::Context;
use crate::health::stall::Pulse;
use crate::ops;
use crate::server::Listener;
use crate::shutdown::Shutdown;
use crate::signals::{Hangup, Signals};

/// How long past its budget a shutdown is believed to be still alive.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often the wall clock is followed.
const RESYNC: Duration = Duration::from_secs(10);

/// A side thread that is about to start.
pub(super) struct Side {
    runtime: Runtime,
    signals: Signals,
    ops: Option<Listener>,
}

impl Side {
    /// Listens for signals, and takes the ops port if there is to be one.
    pub(super) fn bind(ops: Option<SocketAddr>, hangup: Hangup) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (signals, ops) = runtime.block_on(async {
            let ops = ops.map(Listener::reserve).transpose()?;
            Ok::<_, io::Error>((Signals::listen(hangup)?, ops))
        })?;
        Ok(Self {
            runtime,
            signals,
            ops,
        })
    }

    /// Where the ops port is.
    pub(super) fn ops_address(&self) -> Option<SocketAddr> {
        self.ops.as_ref().map(Listener::address)
    }

    /// Starts the thread, for the component of `context`, whose event loop has `pulse`.
    pub(super) fn start(self, context: Context, pulse: Pulse) -> io::Result<()> {
        let Self {
            runtime,
            signals,
            ops,
        } = self;
        let work = async move {
            let shutdown = context.shutdown.clone();
            let clock = context.clock.clone();
            let serve = async {
                match ops {
                    Some(listener) => ops::serve(context, listener, pulse).await,
                    None => pulse.listen(context.health).await,
                }
            };
            tokio::join!(
                serve,
                signals.forward(std::slice::from_ref(&shutdown)),
                end_what_does_not(&shutdown),
                follow_the_clock(&clock),
            );
        };
        std::thread::Builder::new()
            .name("side".to_owned())
            .spawn(move || runtime.block_on(work))?;
        Ok(())
    }
}

async fn end_what_does_not(shutdown: &Shutdown) {
    shutdown.begun().await;
    let limit = shutdown.budget() + PATIENCE;
    if tokio::time::timeout(limit, shutdown.finished())
        .await
        .is_err()
    {
        tracing::error!("the shutdown itself is stuck: exiting without it");
        std::process::exit(1);
    }
}

async fn follow_the_clock(clock: &Clock) {
    loop {
        tokio::time::sleep(RESYNC).await;
        clock.resync();
    }
}
