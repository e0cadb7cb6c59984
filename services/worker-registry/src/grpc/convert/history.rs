//! A worker's changes of state. The newest tells most of what a record says of its state, and the oldest when
//! it was made: that is not written once more, since the store holds every record in memory.

use muster_proto::workers::v1 as proto;

use super::enums::{parse_state, render_state};
use super::render_generation;
use super::time::{parse_time, render_time};
use crate::domain::worker::{By, Transition, Worker};

/// A worker's changes of state, oldest first.
pub(crate) fn render_history(worker: &Worker) -> Vec<proto::WorkerTransition> {
    let render = |transition: &Transition| proto::WorkerTransition {
        time: Some(render_time(transition.at)),
        old_state: transition.from.map_or(0, |from| render_state(from).into()),
        new_state: render_state(transition.to).into(),
        generation: render_generation(transition.generation),
        actor: transition.by.actor.to_string(),
        reason: transition.by.reason.to_string(),
    };
    worker.history.iter().map(render).collect()
}

pub(super) fn parse_transition(transition: &proto::WorkerTransition) -> Option<Transition> {
    Some(Transition {
        at: parse_time(transition.time.as_ref())?,
        from: parse_state(transition.old_state()),
        to: parse_state(transition.new_state())?,
        generation: u64::try_from(transition.generation).ok()?,
        by: By::new(transition.actor.as_str(), transition.reason.as_str()),
    })
}

/// Leaves out of a record what its history tells: who made it what it is, when and why, when it was made
/// and when it changed last, where they are so.
pub(crate) fn leave_out_told(record: &mut proto::Worker) {
    let (Some(first), Some(last)) = (record.history.first(), record.history.last()) else {
        return;
    };
    if record.create_time == first.time {
        record.create_time = None;
    }
    if record.update_time == last.time {
        record.update_time = None;
    }
    // Together, so that an empty actor or reason is not taken for one that was left out.
    if record.state_time == last.time
        && record.state_actor == last.actor
        && record.state_reason == last.reason
    {
        record.state_time = None;
        record.state_actor.clear();
        record.state_reason.clear();
    }
}

/// Takes from a record's history what was left out. What is there, as in records of before, stands.
pub(super) fn take_told(record: &mut proto::Worker) {
    let (Some(first), Some(last)) = (record.history.first(), record.history.last()) else {
        return;
    };
    record.create_time = record.create_time.or(first.time);
    record.update_time = record.update_time.or(last.time);
    if record.state_time.is_none() {
        record.state_time = last.time;
        record.state_actor.clone_from(&last.actor);
        record.state_reason.clone_from(&last.reason);
    }
}
