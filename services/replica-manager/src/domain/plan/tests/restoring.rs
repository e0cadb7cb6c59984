//! A store that was put back: what it does not know is not counted as failed, and its numbers are not
//! used again.

use super::failing::chat;
use super::harness::{Sim, secs};
use super::retrying::retrying;
use crate::domain::failure::Class;
use crate::domain::replica::State;
use crate::domain::replica::attempt::{End, Exit};
use crate::domain::replica::observe::ReportedPhase;
use crate::domain::service::epoch::{Epoch, Knowledge};
use crate::domain::status::ServicePhase;

fn epoch(name: &str, first_attempt: u32) -> Epoch {
    Epoch {
        name: name.to_owned(),
        first_attempt,
    }
}

/// Put back from a backup that was just taken.
fn put_back(sim: &mut Sim) -> Epoch {
    let (before, after) = (epoch("one", 500), epoch("two", 1000));
    sim.ask(|service, _| {
        assert!(service.enter(&before, 1));
        while !service.enter(&after, 1) {}
    });
    after
}

/// An agent that no longer has it says so.
fn gone(sim: &mut Sim, ordinal: u32) {
    let end = End {
        at: sim.now,
        exit: Some(Exit::default()),
        class: Some(Class::Interruption),
        message: "its allocation has ended here before".to_owned(),
        last_log_lines: Vec::new(),
    };
    sim.report(ordinal, ReportedPhase::Ended(end));
}

#[test]
fn what_was_gone_before_a_restore_fails_no_service_that_fails_fast() {
    let mut sim = Sim::new(chat(2), &[("w1", 4)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    put_back(&mut sim);
    assert_eq!(sim.phase(), ServicePhase::Healthy);
    // An agent that is told of what it does not have looks at it before it refuses it.
    sim.report(0, ReportedPhase::Waiting);
    gone(&mut sim, 0);
    sim.report(1, ReportedPhase::Ready);
    sim.run(secs(10));
    assert_eq!(sim.phase(), ServicePhase::Healthy, "{}", sim.reason());
    assert_eq!(sim.replica(0).attempts, 1000);
    assert_eq!(sim.replica(1).attempts, 1);
    // Its agent has had it since: this end is a failure like any other.
    gone(&mut sim, 1);
    sim.run(secs(10));
    assert_eq!(sim.phase(), ServicePhase::Failed);
}

#[test]
fn a_crash_after_a_restore_is_a_failure() {
    let mut sim = Sim::new(chat(1), &[("w1", 4)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    put_back(&mut sim);
    sim.kill(0, Class::Error);
    sim.run(secs(10));
    assert_eq!(sim.phase(), ServicePhase::Failed);
}

#[test]
fn an_attempt_that_asks_for_room_gets_a_number_that_was_never_used() {
    let mut sim = Sim::new(retrying(1, |_| ()), &[]);
    sim.run(secs(5));
    assert_eq!(sim.replica(0).attempts, 1);
    let epoch = put_back(&mut sim);
    assert_eq!(sim.replica(0).attempts, 1000);
    assert_eq!(sim.replica(0).attempt.as_ref().unwrap().number, 1000);
    assert_eq!(sim.service.knows(0, 1, &epoch), Knowledge::None);
    sim.add_worker("w1", 1, "");
    sim.run_to_phase(secs(60), ServicePhase::Healthy);
    assert_eq!(sim.replica(0).attempts, 1000);
}

#[test]
fn what_may_have_been_made_since_the_backup_is_unknown_and_all_else_is_not() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[("w1", 4)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    let before = epoch("one", 500);
    sim.ask(|service, _| assert!(service.enter(&before, 9)));
    sim.kill(0, Class::Error);
    sim.run(secs(60));
    let known = |sim: &Sim, of: &Epoch| {
        let of_each = [(0, 1), (0, 2), (0, 3), (1, 1), (2, 1), (0, 999), (0, 1000)];
        of_each.map(|(ordinal, number)| sim.service.knows(ordinal, number, of))
    };
    use Knowledge::{Current, None, Past};
    let expected = [Past, Current, None, Current, None, None, None];
    assert_eq!(known(&sim, &before), expected);
    // Also before the service was written in the epoch for the first time.
    let after = epoch("two", 1000);
    let expected = [None, Current, None, Current, None, None, None];
    assert_eq!(known(&sim, &after), expected);
    sim.ask(|service, _| assert!(service.enter(&after, 9)));
    assert_eq!(known(&sim, &after), expected);
    sim.kill(0, Class::Error);
    sim.run(secs(60));
    let expected = [None, None, None, Current, None, None, Current];
    assert_eq!(known(&sim, &after), expected);
    // One more, and away again: only what this epoch made of it is known to be past.
    sim.ask(|service, now| service.scale(3, now).unwrap());
    sim.run(secs(60));
    assert_eq!(sim.service.knows(2, 1, &after), None);
    assert_eq!(sim.service.knows(2, 1000, &after), Current);
    sim.ask(|service, now| service.scale(2, now).unwrap());
    sim.run(secs(60));
    assert_eq!(sim.ordinals(), [0, 1]);
    assert_eq!(sim.service.knows(2, 1, &after), None);
    assert_eq!(sim.service.knows(2, 1000, &after), Past);
}

#[test]
fn an_attempt_without_its_room_is_early() {
    let mut sim = Sim::new(retrying(1, |_| ()), &[]);
    sim.run(secs(5));
    assert!(!matches!(sim.replica(0).state, State::Running(_)));
    let known = sim.service.knows(0, 1, &epoch("one", 500));
    assert_eq!(known, Knowledge::Early);
}

#[test]
fn more_replicas_than_fit_go_on_a_few_at_a_time_and_the_service_with_the_last() {
    let mut sim = Sim::new(retrying(5, |_| ()), &[("w1", 4)]);
    sim.run(secs(10));
    let (before, after) = (epoch("one", 500), epoch("two", 1000));
    sim.ask(|service, _| assert!(service.enter(&before, 1)));
    for there in [false, false, true] {
        let records = sim.service.replicas.clone();
        sim.ask(|service, _| assert_eq!(service.enter(&after, 2), there));
        assert_eq!(sim.service.is_of(&after), there);
        let replicas = sim.service.replicas.iter();
        let changed = replicas.filter(|(ordinal, replica)| records[ordinal] != **replica);
        assert!(changed.count() <= 2);
    }
    let attempts = sim.service.replicas.values();
    let attempts = attempts.map(|replica| replica.attempt.as_ref().unwrap());
    let gone_on = attempts.filter(|attempt| attempt.unconfirmed || attempt.number >= 1000);
    assert_eq!(gone_on.count(), 5);
}
