//! The side thread: it hears signals, and ends a process whose shutdown does not. It has a runtime
//! of its own, so that it works while the component's threads are all stuck.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::context::Context;
use crate::shutdown::Shutdown;

/// How long past its budget a shutdown is believed to be still alive.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts the side thread of a process.
pub(super) fn start(context: &Context) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (term, int) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        )
    };
    let shutdown = context.shutdown.clone();
    std::thread::Builder::new()
        .name("side".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::join!(hear(term, int, &shutdown), end_what_does_not(&shutdown));
            });
        })?;
    Ok(())
}

async fn hear(mut term: Signal, mut int: Signal, shutdown: &Shutdown) {
    loop {
        let name = tokio::select! {
            Some(()) = term.recv() => "SIGTERM",
            Some(()) = int.recv() => "SIGINT",
            else => return,
        };
        shutdown.signalled(name);
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
