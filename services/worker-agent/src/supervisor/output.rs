//! Brings a replica's output into its log: one thread for each of the two streams. They end with
//! the last process that can write.

use std::io::{self, PipeReader, Read as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::log::Stream;
use crate::log::writer::{Cutter, Writer};
use crate::machine;

/// What a thread of ours needs.
pub(super) const STACK: usize = 128 * 1024;

/// A log that both streams write to.
pub(super) type SharedLog = Arc<Mutex<Writer>>;

/// Starts bringing what comes from `pipe` into the log.
pub(super) fn pump(
    mut pipe: PipeReader,
    stream: Stream,
    log: SharedLog,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().stack_size(STACK).spawn(move || {
        let mut cutter = Cutter::new(stream);
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let read = match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let now = machine::wall_time();
            add(&log, &cutter.take(&buffer[..read], now));
        }
        add(&log, &cutter.rest(machine::wall_time()));
    })
}

fn add(log: &SharedLog, lines: &[u8]) {
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .add(lines, machine::wall_time());
}
