//! Judging silence, which one instance does: who is SUSPECT, who is LOST, whose zone is held.
//!
//! Workers beat to every instance on a store. So whoever is about to be judged is first asked about at each of the
//! others, and nobody is LOST by the word of some of them. Without others there is nobody to ask, and the look at
//! the clock suffices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use futures_util::stream::FuturesUnordered;
use muster_runtime::shutdown::Phase;
use muster_store::{Error as StoreError, Leadership};
use tracing::{info, warn};

use super::keeper::Chores;
use super::live::{Found, Live};
use super::{Beat, Error, Registry};
use crate::domain::book::Book;
use crate::domain::decide::{self, CHUNK, Decision};
use crate::domain::event::{Event, Severity};
use crate::domain::fleet::Change;
use crate::domain::liveness::{Brake, Judged, Moment, Witnesses, ZoneNews};
use crate::domain::text::{SYSTEM, Text};
use crate::domain::worker::Worker;
use crate::grpc::peers;

/// How long another instance may take to say whom it heard.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// The least time from one round of questions to the next.
const ROUND: Duration = Duration::from_millis(200);

/// What an instance has in hand while it leads.
pub(super) struct Duty {
    pub(super) lead: Leadership,
    brake: Brake,
    witnesses: Witnesses,
    /// The round of questions under way.
    asking: Option<BoxFuture<'static, Round>>,
    next_round: Moment,
    /// Whose seats were taken, by whoever leads or led, and who may not know it yet.
    evicted: BTreeSet<Text>,
}

/// What the others said.
pub(super) struct Round {
    /// Those about whom they were asked, to be judged now.
    due: Vec<Arc<Live>>,
    /// Those of them who are LOST, and whose fences may have passed.
    fences: Vec<Text>,
    /// The others that hold seats; none if that is not known.
    seats: Option<BTreeSet<Text>>,
    /// Whose seats were taken.
    evicted: BTreeSet<Text>,
    /// Whom each heard how long ago, of those who answered.
    answers: BTreeMap<Text, Vec<(Text, Duration)>>,
}

impl Duty {
    /// The round that is under way, once it has ended; never if none is.
    pub(super) async fn asked(duty: &mut Option<Self>) -> Round {
        let Some(asking) = duty.as_mut().and_then(|duty| duty.asking.as_mut()) else {
            return std::future::pending().await;
        };
        let round = asking.await;
        if let Some(duty) = duty {
            duty.asking = None;
        }
        round
    }
}

impl Registry {
    /// Brings what is in hand in line with whether this instance leads. One that ends does not, also if it is
    /// alone: it turns heartbeats away, so that silence says nothing.
    pub(super) fn take_up(&self, duty: &mut Option<Duty>) {
        let ends = self.shutdown.has_reached(Phase::StepDown);
        let leading = self.instances.leading().filter(|_| !ends);
        let term = leading.as_ref().map(Leadership::term);
        if term == duty.as_ref().map(|duty| duty.lead.term()) {
            return;
        }
        *duty = leading.map(|lead| self.begin_duty(lead));
        if duty.is_none() {
            self.metrics.braked.set(0);
        }
    }

    /// Begins to judge. What others were told meanwhile is not known here: everybody counts as heard now, and
    /// every fence counts anew and whole.
    fn begin_duty(&self, lead: Leadership) -> Duty {
        if self.is_shared() {
            self.trust_all();
            let fence = self.config.rules.fenced_after(self.terms().fence_after);
            let chores = Chores::of(&self.view(), self.lives.moment() + fence);
            *self.chores() = chores;
        }
        Duty {
            lead,
            brake: Brake::new(self.config.mass_loss_hold),
            witnesses: Witnesses::new(self.config.patience),
            asking: None,
            next_round: Moment::ZERO,
            evicted: BTreeSet::new(),
        }
    }

    fn trust_all(&self) {
        let terms = self.terms().patient(self.view().longest());
        let suspects = self.lives.trust_all(terms);
        self.with_book(|book| {
            suspects
                .iter()
                .for_each(|name| book.set_suspect(name, false));
        });
        suspects.iter().for_each(|name| self.observe(name));
    }

    /// Asks the others about those whose time has come, unless they are being asked.
    pub(super) fn begin_round(&self, duty: &mut Duty, is_time: bool) {
        let now = self.lives.moment();
        if duty.asking.is_some() || now < duty.next_round {
            return;
        }
        let due = self.lives.due();
        if due.is_empty() && !is_time {
            return;
        }
        duty.next_round = now + ROUND;
        let mut names: BTreeSet<Text> = due.iter().map(|live| live.name().clone()).collect();
        if is_time {
            // Whoever is heard again elsewhere is not heard here.
            names.extend(self.lives.suspects());
        }
        let fences = self.passed_fences();
        names.extend(fences.iter().cloned());
        let registry = self.clone();
        let term = duty.lead.term().revision.0;
        let asking = async move { registry.ask(due, fences, names, term).await };
        duty.asking = Some(asking.boxed());
    }

    async fn ask(
        &self,
        due: Vec<Arc<Live>>,
        fences: Vec<Text>,
        names: BTreeSet<Text>,
        term: u64,
    ) -> Round {
        let (seats, peers) = tokio::join!(self.store.instances(), self.instances.peers());
        let own = self.instances.id();
        let seats = seats.ok().map(|seats| {
            let others = seats.iter().filter(|seat| *seat.id != *own);
            others.map(|seat| Text::from(&*seat.id)).collect()
        });
        let evicted = self.store.evicted().await.unwrap_or_default();
        let evicted = evicted.iter().map(|id| Text::from(&**id)).collect();
        let names: Vec<_> = names.into_iter().collect();
        let asked = peers.unwrap_or_default().into_iter().map(|peer| {
            let names = &names;
            async move {
                let heard = peers::heard_since(&peer, names, term);
                match tokio::time::timeout(ANSWERS_WITHIN, heard).await {
                    Ok(Ok(heard)) => Some((Text::from(&*peer.id), heard)),
                    Ok(Err(_)) | Err(_) => None,
                }
            }
        });
        let answers = join_all(asked).await.into_iter().flatten().collect();
        Round {
            due,
            fences,
            seats,
            evicted,
            answers,
        }
    }

    /// Judges by what the others said.
    pub(super) fn end_round(&self, duty: &mut Duty, round: Round) {
        for (name, ago) in round.answers.values().flatten() {
            self.hear_of(name, *ago);
        }
        let answered: BTreeSet<Text> = round.answers.into_keys().collect();
        let Some(seats) = round.seats else {
            let found = self.lives.judge(round.due, false);
            self.suspect(&found.suspects);
            return;
        };
        let now = self.lives.moment();
        let mut heard = duty.witnesses.round(&seats, &answered, now);
        // What an earlier leader has begun to wait for, this one has to wait for as well.
        let is_away = |id: &&Text| !(seats.contains(*id) && answered.contains(*id));
        heard.complete &= !round.evicted.iter().any(|id| is_away(&id));
        let mut over = duty.evicted.difference(&round.evicted);
        heard.trust |= over.any(|id| is_away(&id));
        duty.evicted = round.evicted;
        for id in heard.evict {
            self.evict(&duty.lead, id);
        }
        if heard.trust {
            info!("an instance has gone; every worker counts as heard now");
            self.trust_all();
        }
        let found = self.lives.judge(round.due, heard.complete);
        match heard.complete {
            true => {
                self.call_fences(&duty.lead, &round.fences);
                self.judge_found(duty, found, true);
            }
            false => self.suspect(&found.suspects),
        }
    }

    fn hear_of(&self, name: &Text, ago: Duration) {
        let Beat::Alive { was_suspect } = self.lives.hear_of(name, ago, self.terms()) else {
            return;
        };
        if was_suspect {
            self.with_book(|book| book.set_suspect(name, false));
        }
        self.observe(name);
    }

    fn evict(&self, lead: &Leadership, id: Text) {
        warn!(instance = %id, "an instance does not answer; its seat is taken");
        let (registry, lead) = (self.clone(), lead.clone());
        self.tasks.spawn("registry-evict", async move {
            if let Err(error) = registry.store.evict(&lead, &id).await {
                warn!(instance = %id, %error, "its seat could not be taken");
            }
        });
    }

    /// Finds who is silent, and declares lost who is lost.
    pub(super) fn judge(&self, duty: &mut Duty, is_time: bool) {
        let found = self.lives.look();
        self.judge_found(duty, found, is_time);
    }

    /// Judges those who were found silent by all who may have heard them.
    fn judge_found(&self, duty: &mut Duty, found: Found, is_time: bool) {
        let Duty { lead, brake, .. } = duty;
        if !found.suspects.is_empty() {
            self.suspect(&found.suspects);
        }
        let released = std::mem::take(&mut *self.releases());
        if found.expired.is_empty() && released.is_empty() && !is_time {
            return;
        }
        let window = self.terms().lost_after;
        let now = self.lives.moment();
        let mut lost = Vec::new();
        for release in released {
            let held = brake.release(&release.zone, window, now);
            let _ = release.answer.send(held.len());
            lost.extend(held);
        }
        let mut zones: BTreeMap<Text, Vec<Text>> = BTreeMap::new();
        for (zone, _) in brake.holding() {
            zones.entry(zone.clone()).or_default();
        }
        for (name, zone) in found.expired {
            zones.entry(zone).or_default().push(name);
        }
        if !zones.is_empty() {
            let census = self.lives.census();
            for (zone, expired) in zones {
                let counted = census.get(&zone).copied().unwrap_or_default();
                let judged = brake.judge(&zone, counted, expired, window, now);
                self.tell_zone(lead, &zone, &judged);
                lost.extend(judged.lost);
            }
        }
        self.metrics.braked.set(
            brake
                .holding()
                .map(|(_, held)| i64::try_from(held).unwrap_or(i64::MAX))
                .sum(),
        );
        self.declare_lost(lead, lost);
    }

    fn suspect(&self, names: &[Text]) {
        self.with_book(|book| names.iter().for_each(|name| book.set_suspect(name, true)));
        for name in names {
            // A heartbeat may have come between the look and the note.
            if !self.lives.get(name).is_some_and(|live| live.is_suspect()) {
                self.with_book(|book| book.set_suspect(name, false));
            }
            self.observe(name);
        }
        self.metrics.suspects.inc_by(names.len() as u64);
    }

    fn declare_lost(&self, lead: &Leadership, names: Vec<Text>) {
        if names.is_empty() {
            return;
        }
        warn!(count = names.len(), "workers were not heard for lost_after");
        let (registry, lead) = (self.clone(), lead.clone());
        self.tasks.spawn("registry-lost", async move {
            // Chunks go to the store one behind the other, without waiting for each other.
            let mut writes: FuturesUnordered<_> = names
                .chunks(CHUNK)
                .map(|chunk| registry.mark_lost(&lead, chunk))
                .collect();
            while let Some(marked) = writes.next().await {
                match marked {
                    Ok(marked) => _ = registry.metrics.lost.inc_by(marked),
                    Err(error) => warn!(%error, "lost workers could not be recorded; tried again"),
                }
            }
        });
    }

    async fn mark_lost(&self, lead: &Leadership, names: &[Text]) -> Result<u64, Error> {
        let still_silent = |worker: &Worker| {
            self.lives
                .get(&worker.name)
                .is_some_and(|live| live.is_suspect())
        };
        let marked = self
            .decide_in_parts(lead, names, |book, part, now| {
                decide::lost(book, part, still_silent, now)
            })
            .await;
        if marked.is_err() {
            self.lives.look_again(names);
        }
        marked
    }

    /// Decides for all of `names`, together or, where their records are too large for that, in parts. Answers
    /// for how many something was decided.
    pub(super) async fn decide_in_parts(
        &self,
        lead: &Leadership,
        names: &[Text],
        make: impl Fn(&Book, &[Text], SystemTime) -> Decision<Vec<Text>>,
    ) -> Result<u64, Error> {
        let mut count = 0;
        let mut failed = None;
        let mut parts = vec![names];
        while let Some(part) = parts.pop() {
            let decided = self.decide_leading(lead, |book, now| Ok(make(book, part, now)));
            match decided.await {
                Ok(decided) => count += decided.value.len() as u64,
                Err(Error::Store(StoreError::TooLarge { .. })) if part.len() > 1 => {
                    let (one, other) = part.split_at(part.len() / 2);
                    parts.extend([other, one]);
                }
                // The others are not held up by it.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(count), Err)
    }

    fn tell_zone(&self, lead: &Leadership, zone: &Text, judged: &Judged) {
        let Some(news) = judged.news else { return };
        let (kind, severity, message) = match news {
            ZoneNews::Holds(census) => (
                "MassLossHeld",
                Severity::Error,
                format!(
                    "{} of {} workers fell silent at once; it is more likely that we are cut off, so none is declared lost",
                    census.silent, census.members,
                ),
            ),
            ZoneNews::Recovered(census) => (
                "MassLossRecovered",
                Severity::Info,
                format!(
                    "{} of {} workers are silent; the brake is off",
                    census.silent, census.members,
                ),
            ),
            ZoneNews::HeldOut(census) => (
                "MassLossHeldOut",
                Severity::Error,
                format!(
                    "{} of {} workers stayed silent for as long as the brake may hold; they are lost",
                    census.silent, census.members,
                ),
            ),
        };
        warn!(%zone, kind, message);
        let event = Event::of_zone(
            zone,
            self.clock.now(),
            kind,
            severity,
            message,
            SYSTEM.into(),
        );
        self.write_later(lead, "registry-zone-event", Change::Event(event.into()));
    }
}
