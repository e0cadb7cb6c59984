//! One watcher: where it is, and what it is sent next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use muster_proto::types::v1::ErrorReason;
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Status};

use super::common::{Lost, Place, Reading};
use super::history::Compacted;
use super::packer::Packer;
use super::seat::Seat;
use super::snapshot::Snapshot;
use super::{Event, Filter, Message, Messages, Resource};
use crate::backoff;
use crate::page::Budget;
use crate::resume;
use crate::status;

/// How long a watcher whose token is ahead of this instance waits for it to catch up.
const CATCH_UP: Duration = Duration::from_secs(10);

/// When those whose watch was ended should come back: between this and twice this.
const RETRY: Duration = Duration::from_millis(500);

/// How often one looks whether it has.
const LOOK: Duration = Duration::from_millis(50);

pub(super) struct Subscription<T> {
    seat: Seat<T>,
    filter: Filter<T>,
    /// Everything up to there has been queued.
    place: Place,
    /// The rings of its bell that it has followed.
    heard: u64,
    /// Whether it is known what the watcher last saw of in-memory facts.
    knows_observed: bool,
    stage: Stage<T>,
    queue: VecDeque<Message<T>>,
    /// When a message with a token is due at the latest.
    bookmark_at: Instant,
    /// Until then changes gather.
    rest_until: Instant,
    ended: bool,
}

/// How much of what was there at the start the watcher has.
enum Stage<T> {
    /// It is being sent the current state, from the `next` resource on.
    State {
        snapshot: Arc<Snapshot<T>>,
        next: usize,
    },
    /// It is being sent what it missed; an instance that is behind it has until then.
    History { until: Instant },
    /// It has everything, and is told of changes as they come.
    Synced,
}

/// Whether there is more to queue at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filled {
    More,
    UpToDate,
}

impl<T: Resource> Subscription<T> {
    /// Fails if `from` is too old to resume.
    pub(super) fn open(
        seat: Seat<T>,
        from: Option<u64>,
        filter: Filter<T>,
    ) -> Result<Self, Status> {
        if seat.common.bells.are_closed() {
            return Err(shutting_down(seat.number));
        }
        let now = Instant::now();
        let heard = seat.bell.count();
        let (place, stage) = match from {
            None => {
                let snapshot = seat.common.snapshot(filter.key_prefix(), now);
                (snapshot.place, Stage::State { snapshot, next: 0 })
            }
            Some(revision) => {
                let newest = seat.common.newest();
                let place = Place {
                    revision,
                    observed: 0,
                    ..newest
                };
                (
                    place,
                    Stage::History {
                        until: now + CATCH_UP,
                    },
                )
            }
        };
        let subscription = Self {
            filter,
            place,
            heard,
            knows_observed: from.is_none(),
            stage,
            queue: VecDeque::new(),
            bookmark_at: now + bookmark_interval(&seat),
            rest_until: now,
            ended: false,
            seat,
        };
        subscription.read().map(|_| subscription)
    }

    pub(super) fn into_stream(self) -> Messages<T> {
        stream::unfold(self, |mut subscription| async move {
            let message = subscription.next().await?;
            Some((message, subscription))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Result<Message<T>, Status>> {
        if self.ended {
            return None;
        }
        let message = self.wait_for_message().await;
        match &message {
            Ok(message) if message.resume_token.is_empty() => {}
            Ok(_) => self.bookmark_at = Instant::now() + bookmark_interval(&self.seat),
            Err(_) => self.ended = true,
        }
        Some(message)
    }

    async fn wait_for_message(&mut self) -> Result<Message<T>, Status> {
        loop {
            if self.seat.common.bells.are_closed() {
                return Err(shutting_down(self.seat.number));
            }
            if let Some(message) = self.queue.pop_front() {
                return Ok(message);
            }
            let now = Instant::now();
            if now < self.rest_until {
                sleep_until(self.rest_until).await;
                continue;
            }
            match (self.fill(now)?, self.queue.is_empty()) {
                (_, false) => {}
                // A long search for the few changes that a filter sees must not keep others out.
                (Filled::More, true) => tokio::task::yield_now().await,
                (Filled::UpToDate, true) => self.wait(now).await?,
            }
        }
    }

    /// Waits for something new, or for the time of the next bookmark.
    async fn wait(&mut self, now: Instant) -> Result<(), Status> {
        let until = match self.stage {
            Stage::History { until } if now >= until => return Err(self.behind()),
            // Its bell does not ring for revisions in which nothing changes.
            Stage::History { until } => until.min(now + LOOK),
            Stage::State { .. } | Stage::Synced if now >= self.bookmark_at => {
                self.enqueue(Vec::new(), Some(self.place.revision));
                return Ok(());
            }
            Stage::State { .. } | Stage::Synced => self.bookmark_at,
        };
        tokio::select! {
            () = self.seat.bell.after(self.heard) => {}
            () = sleep_until(until) => {}
        }
        Ok(())
    }

    /// Queues what there is to send, if anything.
    fn fill(&mut self, now: Instant) -> Result<Filled, Status> {
        if let Stage::State { .. } = self.stage {
            return Ok(self.fill_from_state(now));
        }
        let (synced, selective) = (self.is_synced(), self.seat.is_selective());
        let Seat { common, bell, .. } = &self.seat;
        if synced && selective && common.skip(bell, self.heard, &mut self.place) {
            return Ok(Filled::UpToDate);
        }
        let heard = bell.count();
        let reading = self.read()?;
        if synced && !selective && !reading.is_empty() {
            self.rest_until = now + self.seat.common.pace();
        }
        let filled = self.fill_from(&reading, now)?;
        if filled == Filled::UpToDate {
            self.heard = heard;
        }
        Ok(filled)
    }

    fn fill_from_state(&mut self, now: Instant) -> Filled {
        let Stage::State { snapshot, next } = &mut self.stage else {
            return Filled::UpToDate;
        };
        let mut budget = Budget::new(self.seat.common.options.chunk);
        let mut changes = Vec::new();
        while let Some(resource) = snapshot.resources.get(*next) {
            if self.filter.sees(resource) {
                if !budget.admit(resource.size()) {
                    self.enqueue(changes, None);
                    return Filled::More;
                }
                changes.push(Event::Put(resource.clone()));
            }
            *next += 1;
        }
        // What has happened since is told before it is called synced; mostly that is nothing.
        let current = self.seat.common.newest() == snapshot.place;
        let until = now + CATCH_UP;
        self.stage = if current {
            Stage::Synced
        } else {
            Stage::History { until }
        };
        self.enqueue(changes, Some(self.place.revision));
        Filled::More
    }

    fn fill_from(&mut self, reading: &Reading<T>, now: Instant) -> Result<Filled, Status> {
        let limit = self.seat.common.options.chunk;
        let mut packer = Packer::new(limit);
        for commit in &reading.commits {
            packer.add_commit(commit, &self.filter);
            self.place.revision = commit.revision;
        }
        let mut filled = Filled::More;
        match reading.newest {
            None => {}
            // The token is of an instance that is ahead of this one.
            Some(newest) if newest < self.place.revision => return Ok(Filled::UpToDate),
            Some(newest) => {
                self.place.revision = newest;
                packer.complete_to(newest);
                self.pack_observed(reading, &mut packer);
                if reading.observed.len() < limit {
                    filled = Filled::UpToDate;
                }
            }
        }
        self.refuse_laggard(packer.oldest(), now)?;
        for (changes, position) in packer.finish() {
            self.enqueue(changes, position);
        }
        if filled == Filled::UpToDate {
            self.knows_observed = true;
            self.note_synced();
        }
        Ok(filled)
    }

    fn pack_observed(&mut self, reading: &Reading<T>, packer: &mut Packer<T>) {
        let read_up_to = self.place.observed;
        for (place, entry) in &reading.observed {
            let exact = self.knows_observed && read_up_to >= entry.previous;
            packer.add_observed(entry, &self.filter, exact);
            self.place.observed = *place;
        }
    }

    /// The last message of what was missed says so; if nothing was, there is one that says it.
    fn note_synced(&mut self) {
        if self.is_synced() {
            return;
        }
        self.stage = Stage::Synced;
        match self.queue.back_mut() {
            Some(last) => last.synced = true,
            None => self.enqueue(Vec::new(), Some(self.place.revision)),
        }
    }

    fn enqueue(&mut self, changes: Vec<Event<T>>, position: Option<u64>) {
        let token = |revision| resume::token(&self.seat.common.epoch, revision);
        self.queue.push_back(Message {
            changes,
            resume_token: position.map(token).unwrap_or_default(),
            synced: self.is_synced(),
        });
    }

    fn read(&self) -> Result<Reading<T>, Status> {
        let common = &self.seat.common;
        common
            .read_after(self.place, common.options.chunk)
            .map_err(|lost| self.lost(&lost))
    }

    /// Ends a watch whose next change has waited for too long.
    fn refuse_laggard(&self, oldest: Option<Instant>, now: Instant) -> Result<(), Status> {
        let max_lag = self.seat.common.options.max_lag;
        let is_late = |at| now.saturating_duration_since(at) > max_lag;
        if !self.is_synced() || !oldest.is_some_and(is_late) {
            return Ok(());
        }
        let message = format!(
            "the watcher was more than {max_lag:?} behind; resume from its last resume_token"
        );
        Err(status::error(
            Code::ResourceExhausted,
            ErrorReason::WatcherTooSlow,
            message,
        )
        .into())
    }

    fn is_synced(&self) -> bool {
        matches!(self.stage, Stage::Synced)
    }

    fn lost(&self, lost: &Lost) -> Status {
        let position = self.place.revision;
        resume::history_changed(match lost {
            Lost::Reset => "the history that was watched is gone; list again".to_owned(),
            Lost::Compacted(Compacted { oldest }) => {
                format!("revision {position} is no longer kept, {oldest} is the oldest; list again")
            }
        })
    }

    fn behind(&self) -> Status {
        let message = format!(
            "this instance has not yet seen revision {}",
            self.place.revision
        );
        status::unavailable(ErrorReason::Behind, message, RETRY).into_status()
    }
}

/// What a watch ends with when its process does; watcher `number` comes back at its own time.
pub(super) fn shutting_down(number: u64) -> Status {
    let delay = RETRY.mul_f64(1.0 + backoff::unit(number, 0));
    let message = "the process is stopping; resume at another instance or after the delay";
    status::unavailable(ErrorReason::ShuttingDown, message, delay).into_status()
}

/// Up to a fifth shorter than asked for, so that watchers do not all send at once.
fn bookmark_interval<T>(seat: &Seat<T>) -> Duration {
    let jitter = 1.0 - 0.2 * backoff::unit(seat.number, 1);
    seat.common.options.bookmark.mul_f64(jitter)
}
