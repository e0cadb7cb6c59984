//! Rolling updates: one edition is put in the place of another, never below the floor and never above
//! `max_surge`; and they are taken back when the new one fails.

use super::Reason;
use super::draft::Draft;
use crate::domain::failure::Class;
use crate::domain::replica::{Phase, Replica, Role, State, StopWhy};
use crate::domain::rollout::{Rollout, Stage};
use crate::domain::service::apply::Action;
use crate::domain::service::{Service, count};
use crate::domain::time::Time;

/// Whether the replica's failure would take the update back: it runs the target, which is on trial.
pub(super) fn on_trial(service: &Service, replica: &Replica) -> bool {
    let rollout = service.header.rollout.as_ref();
    service.on_trial() && rollout.is_some_and(|rollout| replica.edition.same(&rollout.target))
}

/// Whether the replica runs the target of an update that is being taken back.
pub(super) fn taken_back(service: &Service, replica: &Replica) -> bool {
    let rollout = service.header.rollout.as_ref();
    rollout.is_some_and(|rollout| {
        rollout.stage == Stage::RollingBack && replica.edition.same(&rollout.target)
    })
}

/// Takes the update back.
pub(super) fn roll_back(draft: &mut Draft<'_>, why: String) {
    let Some(mut rollout) = draft.service.header.rollout.clone() else {
        return;
    };
    draft.explain(Reason::RolledBack { why: why.clone() });
    rollout.stage = Stage::RollingBack;
    rollout.reason = why;
    rollout.progress = draft.now;
    draft.act(Action::Roll(rollout));
}

/// Judges the update that is under way: complete, paused, going on, or without progress for too long.
pub(super) fn judge(draft: &mut Draft<'_>) {
    let Some(rollout) = draft.service.header.rollout.clone() else {
        return;
    };
    if !rollout.active() {
        return;
    }
    if complete(draft, &rollout) {
        let mut done = rollout;
        done.stage = match done.stage {
            Stage::RollingBack | Stage::RolledBack => Stage::RolledBack,
            Stage::Running | Stage::Paused { .. } | Stage::Complete => Stage::Complete,
        };
        done.progress = draft.now;
        draft.act(Action::Roll(done));
        return;
    }
    wake_when_proven(draft, &rollout);
    if rollout.forward() {
        let next = pause_or_go_on(draft, &rollout);
        keep_deadline(draft, &next);
    }
}

/// Every replica is of the aimed-at edition, as many as are wanted, and ready for `min_ready`.
fn complete(draft: &Draft<'_>, rollout: &Rollout) -> bool {
    let service = &draft.service;
    let aim = rollout.aim();
    let all = service
        .replicas
        .values()
        .all(|replica| replica.edition.same(&aim));
    all && (rollout.stage == Stage::RollingBack || available(draft) >= service.wanted())
}

/// What is ready counts once it has been so for `min_ready`.
fn wake_when_proven(draft: &mut Draft<'_>, rollout: &Rollout) {
    let aim = rollout.aim();
    let min_ready = draft.service.spec().update.min_ready;
    let replicas = draft.service.replicas.values();
    let young = replicas.filter(|replica| replica.edition.same(&aim));
    let times = young.filter_map(|replica| Some(replica.ready_since()? + min_ready));
    if let Some(at) = times.filter(|at| *at > draft.now).min() {
        draft.wake(at);
    }
}

/// Waiting for room or for a lost machine stops the progress clock.
fn pause_or_go_on(draft: &mut Draft<'_>, rollout: &Rollout) -> Rollout {
    let waiting = waiting(draft, rollout);
    let mut next = rollout.clone();
    match (rollout.stage, waiting) {
        (Stage::Running, Some((ordinal, class))) => {
            let id = draft.service.replica_id(ordinal);
            next.stage = Stage::Paused { since: draft.now };
            next.reason = format!("{id} waits ({class})");
        }
        (Stage::Paused { since }, None) => {
            next.stage = Stage::Running;
            next.progress = next.progress + draft.now.since(since);
            next.reason = String::new();
        }
        _ => {}
    }
    if let Some((ordinal, class)) = waiting {
        draft.explain(Reason::UpdatePaused { ordinal, class });
    }
    if next != *rollout {
        draft.act(Action::Roll(next.clone()));
    }
    next
}

/// A replica of the target that waits for what is not the target's fault.
fn waiting(draft: &Draft<'_>, rollout: &Rollout) -> Option<(u32, Class)> {
    let mut replicas = draft.service.replicas.values();
    replicas.find_map(|replica| {
        let class = waits_for(replica)?;
        let target = replica.edition.same(&rollout.target);
        (target && !class.blames_version()).then_some((replica.ordinal, class))
    })
}

/// What a replica waits for: without a place it waits on while it asks again, until it has one.
fn waits_for(replica: &Replica) -> Option<Class> {
    match &replica.state {
        State::Backoff(backoff) => Some(backoff.class),
        State::Placing(_) | State::Refused(_) => replica.placeless.map(|_| Class::NoCapacity),
        State::Pending { .. }
        | State::Running(_)
        | State::Ended
        | State::Stopped
        | State::Failed { .. } => None,
    }
}

fn keep_deadline(draft: &mut Draft<'_>, rollout: &Rollout) {
    let deadline = draft.service.spec().update.progress_deadline;
    // A time that is still to come is one of a clock that was set back since.
    let since = Some(draft.world.since).filter(|since| *since <= draft.now);
    let since = since.unwrap_or_default();
    if rollout.idle(since, draft.now) >= deadline {
        if rollout.stable.is_some() {
            let why = format!("no progress within {} s", deadline.as_secs());
            roll_back(draft, why);
        }
    } else if rollout.stage == Stage::Running {
        draft.wake(rollout.progress.max(since) + deadline);
    }
}

/// Takes the next steps of the update that is under way.
pub(super) fn step(draft: &mut Draft<'_>) {
    let Some(rollout) = draft.service.header.rollout.clone() else {
        return;
    };
    if !rollout.active() {
        return;
    }
    let before = progress_marks(draft);
    free_room(draft);
    retire_old(draft, &rollout);
    add_new(draft);
    if progress_marks(draft) != before
        && let Some(mut moved) = draft.service.header.rollout.clone()
    {
        moved.progress = draft.now;
        draft.act(Action::Roll(moved));
    }
}

/// Old ones that are on their way out: each more of them is progress.
fn progress_marks(draft: &Draft<'_>) -> u32 {
    let aim = draft.service.aim();
    let replicas = draft.service.replicas.values();
    count(replicas.filter(|replica| replica.leaving() && !replica.edition.same(&aim)))
}

/// Ready copies that count towards the floor: of the new edition only those ready for `min_ready`.
fn available(draft: &Draft<'_>) -> u32 {
    let aim = draft.service.aim();
    let min_ready = draft.service.spec().update.min_ready;
    let replicas = draft.service.replicas.values();
    count(replicas.filter(|replica| {
        let old = !replica.edition.same(&aim);
        let long_enough = |since| draft.now.since(since) >= min_ready;
        replica
            .ready_since()
            .is_some_and(|since| old || long_enough(since))
    }))
}

fn retire_old(draft: &mut Draft<'_>, rollout: &Rollout) {
    let aim = draft.service.aim();
    let back = rollout.stage == Stage::RollingBack;
    let why = if back {
        StopWhy::Rollback
    } else {
        StopWhy::Update
    };
    let proven = draft
        .service
        .header
        .proven
        .is_some_and(|proven| proven.same(&aim));
    let mut old: Vec<(bool, bool, bool, u32)> = draft
        .service
        .replicas
        .values()
        .filter(|replica| !replica.edition.same(&aim) && !replica.leaving())
        .filter(|replica| !is_moving(draft, replica))
        .map(|replica| {
            let draining = replica
                .worker()
                .is_some_and(|w| draft.world.draining(w).is_some());
            // What came between goes before what is known to run well.
            let stable = rollout.stable.is_some_and(|s| s.same(&replica.edition));
            (replica.ready(), stable, !draining, replica.ordinal)
        })
        .collect();
    old.sort_unstable();
    let mut standing = Standing::of(draft);
    for (ready, _, _, ordinal) in old {
        let may = if ready {
            standing.available > draft.service.floor()
        } else {
            // What does not serve anyway makes room; but while the new edition is on trial only so far
            // as it needs the room.
            back || proven
                || standing.needs_room
                || (standing.lacks_room && has_room(draft, ordinal))
        };
        if may {
            draft.explain(Reason::Stops { ordinal, why });
            if draft.stop(ordinal, why) {
                standing.stopped(ready);
            }
        } else {
            wait_for_ready(draft, &standing, ordinal, ready);
        }
    }
}

/// What decides for each old replica whether it may go: looked at once, not for each of thousands.
struct Standing {
    available: u32,
    needs_room: bool,
    lacks_room: bool,
    /// When the next replica of the new edition will have been ready for long enough, and which.
    proven_next: Option<(Time, u32)>,
}

impl Standing {
    fn of(draft: &Draft<'_>) -> Self {
        Self {
            available: available(draft),
            needs_room: needs_room(draft),
            lacks_room: lacks_room(draft) && !made_room(draft),
            proven_next: proven_next(draft),
        }
    }

    /// One more of the old ones goes.
    fn stopped(&mut self, ready: bool) {
        self.available -= u32::from(ready);
        // There is room as soon as it is gone.
        (self.needs_room, self.lacks_room) = (false, false);
    }
}

fn proven_next(draft: &Draft<'_>) -> Option<(Time, u32)> {
    let aim = draft.service.aim();
    let min_ready = draft.service.spec().update.min_ready;
    let replicas = draft.service.replicas.values();
    let young = replicas.filter(|replica| replica.edition.same(&aim));
    let young =
        young.filter_map(|replica| Some((replica.ready_since()? + min_ready, replica.ordinal)));
    young.filter(|(until, _)| *until > draft.now).min()
}

/// Moves come to their end first: what they leave behind is replaced afterwards.
fn is_moving(draft: &Draft<'_>, replica: &Replica) -> bool {
    let of = replica.ordinal;
    draft.has(Role::Move { of }) || matches!(replica.role, Role::Move { .. })
}

/// No copy of the new edition is there, and none may be added before another is gone.
fn needs_room(draft: &Draft<'_>) -> bool {
    let service = &draft.service;
    let aim = service.aim();
    let mut replicas = service.replicas.values();
    let none = !replicas.any(|r| r.edition.same(&aim) || r.leaving());
    none && draft.copies() >= most_copies(service)
}

fn wait_for_ready(draft: &mut Draft<'_>, standing: &Standing, ordinal: u32, ready: bool) {
    if let Some((until, waited_for)) = standing.proven_next {
        draft.wake(until);
        draft.explain(Reason::WaitsMinReady {
            ordinal: waited_for,
            until,
        });
    } else if ready {
        let (ready, floor) = (standing.available, draft.service.floor());
        draft.explain(Reason::KeepsReady {
            ordinal,
            ready,
            floor,
        });
    }
}

/// While a copy of the new edition finds no place, old ones that wait for a retry keep none: one after the
/// other gives up its room, and asks again when its time has come.
fn free_room(draft: &mut Draft<'_>) {
    if !lacks_room(draft) {
        return;
    }
    let aim = draft.service.aim();
    let old = |replica: &Replica| !replica.edition.same(&aim);
    let held = draft.which(|r| old(r) && r.state.backoff().is_some_and(|w| w.hold.is_some()));
    if let Some(ordinal) = held.first().copied() {
        draft.explain(Reason::FreesRoom { ordinal });
        draft.act(Action::Free { ordinal });
    }
}

/// Whether a copy of the new edition finds no place in all the room that there is, and none is about to come
/// free.
fn lacks_room(draft: &Draft<'_>) -> bool {
    let (aim, room) = (draft.service.aim(), draft.world.room);
    let refused = |replica: &Replica| {
        let waits = replica.state.backoff();
        waits.is_some_and(|w| w.class == Class::NoCapacity && w.room_seen == room)
    };
    let new = |replica: &Replica| replica.edition.same(&aim) && replica.stop.is_none();
    let frees = |replica: &Replica| {
        let stops = replica.stop.is_some() && replica.live();
        stops || !replica.releases.is_empty()
    };
    let replicas = || draft.service.replicas.values();
    replicas().any(|r| new(r) && refused(r)) && !replicas().any(|r| frees(r))
}

/// Whether an old replica has made room for the new edition already, and another need not yet: a copy of it has
/// room; or, while anything serves, a member of it has none, since what the old one left was not enough.
fn made_room(draft: &Draft<'_>) -> bool {
    let (aim, serves) = (draft.service.aim(), draft.ready() > 0);
    let replicas = draft.service.replicas.values();
    let mut new = replicas.filter(|r| r.edition.same(&aim) && !r.leaving());
    new.any(|replica| {
        let in_vain = replica.role == Role::Member && replica.placeless.is_some();
        replica.worker().is_some() || (in_vain && serves)
    })
}

/// Whether an old replica that does not serve has room for others, and will not serve by itself.
fn has_room(draft: &mut Draft<'_>, ordinal: u32) -> bool {
    let Some(replica) = draft.replica(ordinal) else {
        return false;
    };
    let takes_others = |worker: &str| !draft.world.closed(worker);
    if !replica.worker().is_some_and(takes_others) {
        return false;
    }
    match replica.state.phase() {
        Some(Phase::Unready) => {
            // It may be back in a moment.
            let until = replica.since + draft.service.spec().update.min_ready;
            if until > draft.now {
                draft.wake(until);
            }
            until <= draft.now
        }
        // What has served once will again, or fails in time.
        Some(Phase::Allocated | Phase::Starting) => {
            let proven = draft.service.header.proven;
            let proven = proven.is_some_and(|proven| proven.same(&replica.edition));
            let attempt = replica.attempt.as_ref();
            !proven && attempt.is_some_and(|attempt| attempt.ready.is_none())
        }
        Some(Phase::Ready | Phase::Unreachable | Phase::Revoked) | None => false,
    }
}

/// Adds copies of the new edition, each for an old one, up to `max_surge` above the wanted number.
fn add_new(draft: &mut Draft<'_>) {
    let edition = draft.service.aim();
    let most = most_copies(&draft.service);
    let old = |r: &Replica| !r.edition.same(&edition) && r.stop.is_none();
    for of in draft.which(|r| r.role == Role::Member && old(r)) {
        let role = Role::Surge { of };
        if draft.has(role) {
            continue;
        }
        let copies = draft.copies();
        if copies >= most {
            draft.explain(Reason::TooManyCopies { copies, most });
            return;
        }
        if !draft.act(Action::Create { role, edition }) {
            return;
        }
    }
}

/// The most copies that an update may come to: `max_surge` above the wanted number, beside those that stand
/// for others anyway.
fn most_copies(service: &Service) -> u32 {
    let extra = service.replicas.values();
    let extra =
        extra.filter(|r| !r.at_rest() && !matches!(r.role, Role::Member | Role::Surge { .. }));
    let surge = service.spec().update.max_surge;
    (service.wanted() + surge + count(extra)).min(service.most_copies())
}
