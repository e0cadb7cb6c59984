//! Brings a container's output into its log, until the container's end and over every absence of the engine. It
//! decides what of that which the engine tells again is new.

use std::cmp::Ordering;
use std::thread;
use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::super::complain;
use super::RETRY;
use crate::attempt_dir::{AttemptDir, LogLimits};
use crate::engine::{Engine, Frames, Output, Streamed};
use crate::log::Stream;
use crate::log::writer::{Cutter, Writer};
use crate::machine;

/// Engines differ in whether they tell what was said at the very time that they are asked from, and two outputs may
/// be told in another order than that of their times.
const MARGIN: Duration = Duration::from_secs(1);

/// Keeps a container's output on a thread of its own, since a disk that stands still must not hold up the fence.
/// What comes back is told the end.
pub(super) fn begin(
    engine: Engine,
    id: String,
    dir: AttemptDir,
    limits: LogLimits,
) -> oneshot::Receiver<()> {
    let (done, kept) = oneshot::channel();
    let keep = move || {
        match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => {
                let log = Writer::new(dir.path(), limits);
                runtime.block_on(follow(&engine, &id, Kept::new(log)));
            }
            Err(error) => complain(&format!("cannot keep the output: {error}")),
        }
        let _ = done.send(());
    };
    if let Err(error) = thread::Builder::new().spawn(keep) {
        complain(&format!("cannot keep the output: {error}"));
    }
    kept
}

/// Until the container's end; taken up again, where it broke off, after the engine was away.
async fn follow(engine: &Engine, id: &str, mut kept: Kept) {
    loop {
        let streamed = engine.logs(id, kept.since()).await;
        let over = streamed.is_ok();
        if let Ok(streamed) = streamed {
            kept.keep_all(streamed).await;
        }
        match engine.state(id).await {
            Ok(state) if state.running => sleep(RETRY).await,
            Err(error) if !error.is_not_found() => sleep(RETRY).await,
            Ok(_) | Err(_) if over => return kept.end(),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// What is kept of a container's output.
struct Kept {
    log: Writer,
    out: Half,
    err: Half,
    /// When the last piece was written.
    last: SystemTime,
}

/// One of the two outputs.
struct Half {
    cutter: Cutter,
    place: Place,
}

impl Kept {
    fn new(log: Writer) -> Self {
        let half = |stream| Half {
            cutter: Cutter::new(stream),
            place: Place::default(),
        };
        Self {
            log,
            out: half(Stream::Out),
            err: half(Stream::Err),
            last: SystemTime::UNIX_EPOCH,
        }
    }

    /// From when the engine has to tell, for nothing to be missing, in seconds since the Unix epoch.
    fn since(&self) -> u64 {
        let last = self.last.duration_since(SystemTime::UNIX_EPOCH);
        last.unwrap_or_default().saturating_sub(MARGIN).as_secs()
    }

    /// Keeps what comes, until no more does.
    async fn keep_all(&mut self, mut streamed: Streamed) {
        self.out.place.begin_again();
        self.err.place.begin_again();
        let mut frames = Frames::default();
        while let Ok(Some(bytes)) = streamed.next().await {
            frames.add(&bytes);
            while let Some((output, piece)) = frames.take() {
                self.keep(output, &piece, machine::wall_time());
            }
        }
    }

    fn keep(&mut self, output: Output, piece: &[u8], now: SystemTime) {
        let half = match output {
            Output::Out => &mut self.out,
            Output::Err => &mut self.err,
        };
        let text = match stamped(piece) {
            Some((time, text)) => {
                if !half.place.is_new(time) {
                    return;
                }
                self.last = time;
                text
            }
            // An engine that tells no times: better some twice than any not at all.
            None => {
                self.last = now;
                piece
            }
        };
        self.log.add(&half.cutter.take(text, now), now);
    }

    fn end(mut self) {
        let now = machine::wall_time();
        self.log.add(&self.out.cutter.rest(now), now);
        self.log.add(&self.err.cutter.rest(now), now);
    }
}

/// How far an output was read. An engine tells when each piece was written, which may be to the second.
#[derive(Debug, Default)]
struct Place {
    /// The time of the last piece, and how many were of that time.
    last: Option<(SystemTime, usize)>,
    /// While it is told again: how many of that time are still to come.
    again: Option<usize>,
}

impl Place {
    /// The output is told once more, from somewhere before the place.
    fn begin_again(&mut self) {
        self.again = self.last.map(|(_, read)| read);
    }

    /// Whether a piece that was written at `time`, the next that is told, was not read before.
    fn is_new(&mut self, time: SystemTime) -> bool {
        if let (Some((last, _)), Some(again)) = (self.last, &mut self.again) {
            match time.cmp(&last) {
                Ordering::Less => return false,
                Ordering::Equal if *again > 0 => {
                    *again -= 1;
                    return false;
                }
                Ordering::Equal | Ordering::Greater => self.again = None,
            }
        }
        let read = match self.last {
            Some((last, read)) if last == time => read,
            Some(_) | None => 0,
        };
        self.last = Some((time, read + 1));
        true
    }
}

/// When a piece was written, which stands before it, and its text.
fn stamped(piece: &[u8]) -> Option<(SystemTime, &[u8])> {
    let end = piece.iter().position(|byte| *byte == b' ')?;
    let time: Timestamp = std::str::from_utf8(&piece[..end]).ok()?.parse().ok()?;
    Some((time.try_into().ok()?, &piece[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_has_its_time_before_it() {
        let at = |secs, nanos| SystemTime::UNIX_EPOCH + Duration::new(secs, nanos);
        for (piece, expected) in [
            (
                "1970-01-01T00:01:00.000000007Z a b\n",
                Some((at(60, 7), "a b\n")),
            ),
            ("1970-01-01T02:01:00+02:00 \n", Some((at(60, 0), "\n"))),
            ("a b\n", None),
            ("ab", None),
        ] {
            let found = stamped(piece.as_bytes());
            assert_eq!(found, expected.map(|(time, text)| (time, text.as_bytes())));
        }
    }

    /// Reads `told`, breaks off after `first`, and reads it again from any place before that.
    fn check(told: &[u64], first: usize) {
        let at = |secs: &u64| SystemTime::UNIX_EPOCH + Duration::from_secs(*secs);
        let earliest = told[..first].last().copied().unwrap_or(0);
        for from in 0..=told.iter().position(|time| *time == earliest).unwrap_or(0) {
            let mut place = Place::default();
            assert!(told[..first].iter().all(|time| place.is_new(at(time))));
            // It breaks off once more in between.
            place.begin_again();
            let read = told[from..first]
                .iter()
                .filter(|time| place.is_new(at(time)));
            assert_eq!(read.count(), 0, "{told:?} {first} {from}");
            place.begin_again();
            let read = told[from..].iter().filter(|time| place.is_new(at(time)));
            assert_eq!(read.count(), told.len() - first, "{told:?} {first} {from}");
        }
    }

    #[test]
    fn what_is_told_again_is_read_once() {
        for first in 0..=6 {
            check(&[1, 2, 3, 4, 5, 6], first);
            check(&[1, 1, 2, 2, 2, 3], first);
            check(&[5, 5, 5, 5, 5, 5], first);
        }
    }

    #[test]
    fn a_clock_that_is_set_back_costs_nothing() {
        let mut place = Place::default();
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        for secs in [9, 3, 4] {
            assert!(place.is_new(at(secs)));
        }
    }
}
