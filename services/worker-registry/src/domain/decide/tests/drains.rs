//! Draining, resuming, disabling.

use crate::domain::allocation::{End, Life};
use crate::domain::book::Book;
use crate::domain::decide::{self, Arrival, Proof, Refused};
use crate::domain::drain::{AfterDeadline, Cause, Terms};
use crate::domain::fixture::*;
use crate::domain::fleet::Change;
use crate::domain::state::State;
use crate::domain::text::Text;
use crate::domain::worker::By;

fn w1() -> Text {
    "w1".into()
}

fn forced(seconds: u64) -> Terms {
    Terms {
        deadline: Some(at(seconds)),
        after: AfterDeadline::Force,
        ..drain_terms(Cause::Operator)
    }
}

fn again(boot: &str) -> Arrival {
    let credential = Proof {
        credential: Some("uid-of-w1".into()),
        ..Proof::default()
    };
    Arrival {
        boot_id: boot.into(),
        proof: credential,
        ..arrival("w1", machine("w1", &[("H100", 8)]))
    }
}

#[test]
fn a_drain_ends_in_the_very_transaction_that_removes_the_last_allocation() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let made: Vec<_> = (0..2)
        .map(|id| allocate(&mut book, &item(&format!("r{id}"), ask("H100", 1))).unwrap())
        .collect();
    let draining = drain(&mut book, "w1", drain_terms(Cause::Operator)).unwrap();
    assert_eq!(
        (draining.state, draining.drain.as_ref().unwrap().total),
        (State::Draining, 2)
    );
    assert_eq!(
        allocate(&mut book, &item("r9", ask("H100", 1))).unwrap_err(),
        Refused::NoCapacity
    );
    for one in &made {
        assert_eq!(worker(&book, "w1").state, State::Draining);
        release(&mut book, &one.id).unwrap();
        let before = book.next_revision();
        end(&mut book, "w1", &one.id).unwrap();
        assert_eq!(book.next_revision(), before + 1);
    }
    let worker = worker(&book, "w1");
    assert_eq!(worker.state, State::Disabled);
    assert_eq!(worker.drain.as_ref().unwrap().ended, Some(at(4)));
    assert_eq!(worker.state_since, at(4));
}

#[test]
fn an_empty_worker_is_disabled_at_once() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let drained = drain(&mut book, "w1", drain_terms(Cause::Operator)).unwrap();
    assert_eq!(drained.state, State::Disabled);
    let states: Vec<_> = drained.history.iter().map(|one| one.to).collect();
    assert_eq!(
        states,
        [
            State::Provisioning,
            State::Active,
            State::Draining,
            State::Disabled
        ]
    );
}

#[test]
fn a_drain_again_changes_its_terms() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    allocate(&mut book, &item("r1", ask("H100", 1))).unwrap();
    drain(&mut book, "w1", drain_terms(Cause::Operator)).unwrap();
    let changed = drain(
        &mut book,
        "w1",
        Terms {
            max_parallel: 3,
            ..forced(500)
        },
    )
    .unwrap();
    let terms = &changed.drain.as_ref().unwrap().terms;
    assert_eq!((terms.max_parallel, terms.deadline), (3, Some(at(500))));
    assert_eq!(changed.drain.as_ref().unwrap().started, at(6));
}

#[test]
fn resuming_leads_back_to_what_was_proved() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    allocate(&mut book, &item("r1", ask("H100", 1))).unwrap();
    drain(&mut book, "w1", drain_terms(Cause::Operator)).unwrap();
    let resumed = take(
        decide::resume(&book, &w1(), &by(), &unconditionally, at(8)).unwrap(),
        &mut book,
    );
    assert_eq!(resumed.state, State::Active);
    let called_off = resumed.drain.as_ref().unwrap();
    assert_eq!(
        (called_off.ended, called_off.total, called_off.left),
        (Some(at(8)), 1, 1)
    );
    drain(&mut book, "w1", drain_terms(Cause::Operator)).unwrap();
    let back = take(
        decide::register(&book, &again("boot-2"), at(9)).unwrap(),
        &mut book,
    )
    .worker;
    assert_eq!(back.state, State::Draining);
    let resumed = decide::resume(&book, &w1(), &by(), &unconditionally, at(9))
        .unwrap()
        .answer;
    assert_eq!(resumed.state, State::Provisioning);
    take(
        decide::activate(&book, checked("w1", 2), at(10)).unwrap(),
        &mut book,
    );
    let resumed = take(
        decide::resume(&book, &w1(), &by(), &unconditionally, at(11)).unwrap(),
        &mut book,
    );
    assert_eq!(resumed.state, State::Active);
    assert!(allocate(&mut book, &item("r2", ask("H100", 1))).is_ok());
}

#[test]
fn a_shutdown_drain_gives_way_to_the_next_start_and_an_operators_does_not() {
    for (cause, state) in [
        (Cause::Shutdown, State::Provisioning),
        (Cause::Operator, State::Disabled),
    ] {
        let mut book = book();
        join(&mut book, "w1", &[("H100", 8)]);
        drain(&mut book, "w1", drain_terms(cause)).unwrap();
        let back = take(
            decide::register(&book, &again("boot-2"), at(9)).unwrap(),
            &mut book,
        )
        .worker;
        assert_eq!(back.state, state, "{cause:?}");
    }
}

#[test]
fn an_old_shutdown_says_nothing_of_a_later_disable() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    drain(&mut book, "w1", drain_terms(Cause::Shutdown)).unwrap();
    take(
        decide::register(&book, &again("boot-2"), at(9)).unwrap(),
        &mut book,
    );
    take(
        decide::disable(&book, &w1(), false, &by(), &unconditionally, at(10)).unwrap(),
        &mut book,
    );
    let back = take(
        decide::register(&book, &again("boot-3"), at(11)).unwrap(),
        &mut book,
    )
    .worker;
    assert_eq!(back.state, State::Disabled);
}

#[test]
fn disabling_by_force_drains_with_the_deadline_now() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    allocate(&mut book, &item("r1", ask("H100", 1))).unwrap();
    let refused = decide::disable(&book, &w1(), false, &by(), &unconditionally, at(8)).unwrap_err();
    assert!(matches!(refused, Refused::NotEmpty(1, _)), "{refused}");
    let forced = take(
        decide::disable(&book, &w1(), true, &by(), &unconditionally, at(8)).unwrap(),
        &mut book,
    );
    assert_eq!(forced.state, State::Draining);
    assert!(forced.drain.as_ref().unwrap().forced);
}

#[test]
fn a_lost_worker_disabled_by_force_is_empty_by_one_write() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let made: Vec<_> = (0..40)
        .map(|id| {
            let no_gpu = ask("H100", 0);
            allocate(&mut book, &item(&format!("r{id}"), no_gpu)).unwrap()
        })
        .collect();
    drain(&mut book, "w1", drain_terms(Cause::Shutdown)).unwrap();
    lose(&mut book, "w1");
    let decision = decide::disable(&book, &w1(), true, &by(), &unconditionally, at(8)).unwrap();
    assert_eq!(decision.draft.changes.len(), 1);
    let disabled = take(decision, &mut book);
    assert_eq!(
        (disabled.state, disabled.unconfirmed),
        (State::Disabled, true)
    );
    assert_eq!((disabled.generation, disabled.revoked_through), (2, 1));
    assert!(entry(&book, "w1").is_empty());
    let fenced = decide::heard(&book, &w1(), 1, true, at(9)).unwrap_err();
    assert!(matches!(fenced, Refused::Fenced { .. }));
    let mut rounds = 0;
    while take(decide::clear_over(&book, &w1(), at(10)), &mut book) {
        rounds += 1;
    }
    assert_eq!(rounds, 1);
    assert!(
        made.iter()
            .all(|one| book.fleet().allocation(&one.id).is_none())
    );
    // Whoever disabled it by hand meant it, also if the agent had begun the drain.
    let back = take(
        decide::register(&book, &again("boot-2"), at(11)).unwrap(),
        &mut book,
    )
    .worker;
    assert_eq!(
        (back.state, back.generation, back.unconfirmed),
        (State::Disabled, 3, false)
    );
}

fn delete(book: &Book) -> Result<decide::Decision<()>, Refused> {
    decide::delete(book, &w1(), &"alice".into(), &unconditionally, at(12))
}

fn force(book: &mut Book) {
    let decision = decide::disable(book, &w1(), true, &by(), &unconditionally, at(8)).unwrap();
    take(decision, book);
    while take(decide::clear_over(book, &w1(), at(9)), book) {}
}

#[track_caller]
fn assert_kept(book: &Book) {
    let refused = delete(book).unwrap_err();
    assert!(matches!(refused, Refused::WrongState(_)), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("wait until it is marked fenced"), "{text}");
}

#[test]
fn a_lost_worker_is_deleted_only_once_it_is_fenced() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    allocate(&mut book, &item("r1", ask("H100", 1))).unwrap();
    lose(&mut book, "w1");
    force(&mut book);
    assert_kept(&book);
    let fenced = decide::fenced(&book, &[w1()], at(11));
    assert_eq!(take(fenced, &mut book), [w1()]);
    take(delete(&book).unwrap(), &mut book);
    assert!(book.fleet().worker(&w1()).is_none());
}

#[test]
fn a_worker_that_is_back_is_deleted_only_once_what_it_ran_has_ended() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    allocate(&mut book, &item("r1", ask("H100", 1))).unwrap();
    lose(&mut book, "w1");
    force(&mut book);
    // Put back and taken out again in between, which is no word of the agent.
    take(
        decide::enable(&book, &w1(), &by(), &unconditionally, at(9)).unwrap(),
        &mut book,
    );
    let runs = Arrival {
        runs: true,
        ..again("boot-2")
    };
    take(decide::register(&book, &runs, at(10)).unwrap(), &mut book);
    take(
        decide::disable(&book, &w1(), false, &by(), &unconditionally, at(10)).unwrap(),
        &mut book,
    );
    assert_kept(&book);
    take(
        decide::heard(&book, &w1(), 3, false, at(11)).unwrap(),
        &mut book,
    );
    assert!(delete(&book).is_ok());
}

#[test]
fn a_forced_deadline_is_called_once_and_ends_a_lost_worker() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    allocate(&mut book, &item("r1", ask("H100", 1))).unwrap();
    drain(&mut book, "w1", forced(100)).unwrap();
    assert!(!decide::call_deadline(&book, &w1(), at(99)).answer);
    let called = decide::call_deadline(&book, &w1(), at(100));
    assert!(take(called, &mut book));
    assert!(worker(&book, "w1").drain.as_ref().unwrap().forced);
    assert!(!decide::call_deadline(&book, &w1(), at(101)).answer);
    lose(&mut book, "w1");
    let called = decide::call_deadline(&book, &w1(), at(102));
    assert!(take(called, &mut book));
    let worker = worker(&book, "w1");
    assert_eq!((worker.state, worker.unconfirmed), (State::Disabled, true));
    assert_eq!(
        worker.state_by,
        By::system("the drain's deadline has passed, and the worker is lost")
    );
}

#[test]
fn enabling_makes_a_worker_prove_itself_again() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    take(
        decide::disable(&book, &w1(), false, &by(), &unconditionally, at(8)).unwrap(),
        &mut book,
    );
    let refused = decide::activate(&book, checked("w1", 1), at(8)).unwrap_err();
    assert!(refused.to_string().contains("enable it first"), "{refused}");
    let enabled = take(
        decide::enable(&book, &w1(), &by(), &unconditionally, at(9)).unwrap(),
        &mut book,
    );
    assert_eq!(
        (enabled.state, enabled.is_proved()),
        (State::Provisioning, false)
    );
    assert_eq!(
        allocate(&mut book, &item("r1", ask("H100", 1))).unwrap_err(),
        Refused::NoCapacity
    );
    take(
        decide::activate(&book, checked("w1", 1), at(10)).unwrap(),
        &mut book,
    );
    assert!(allocate(&mut book, &item("r1", ask("H100", 1))).is_ok());
}

#[test]
fn releasing_the_last_one_that_has_ended_ends_the_drain() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let made = allocate(&mut book, &item("r1", ask("H100", 1))).unwrap();
    drain(&mut book, "w1", drain_terms(Cause::Operator)).unwrap();
    end(&mut book, "w1", &made.id).unwrap();
    assert_eq!(worker(&book, "w1").state, State::Draining);
    assert!(release(&mut book, &made.id).unwrap().is_none());
    assert_eq!(worker(&book, "w1").state, State::Disabled);
}

/// The book of a registry that has started again after the agent of w1 ended `made` and left, before its owner
/// gave it back.
fn left(terms: Option<Terms>) -> (Book, Text) {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let made = allocate(&mut book, &item("r1", ask("H100", 1))).unwrap();
    if let Some(terms) = terms {
        drain(&mut book, "w1", terms).unwrap();
    }
    end(&mut book, "w1", &made.id).unwrap();
    take(decide::leave(&book, &w1(), 1, at(7)).unwrap(), &mut book);
    let next = book.next_revision();
    let restarted = Book::new(book.fleet().clone(), EPOCH.into(), next);
    (restarted, made.id.clone())
}

#[test]
fn what_is_given_back_after_its_agent_has_left_is_freed_at_once() {
    let (mut book, made) = left(Some(drain_terms(Cause::Operator)));
    assert!(release(&mut book, &made).unwrap().is_none());
    assert_eq!(worker(&book, "w1").state, State::Disabled);
    assert!(delete(&book).is_ok());
}

#[test]
fn what_was_given_back_as_its_agent_left_is_forgotten() {
    let (mut book, made) = left(Some(drain_terms(Cause::Operator)));
    let held = book.fleet().allocation(&made).unwrap();
    let end = End {
        at: at(7),
        reason: "no longer wanted".into(),
    };
    let releasing = held.with_life(Life::Releasing(end));
    book.take(&[Change::Allocation(releasing.into())]);
    assert!(!take(decide::clear_over(&book, &w1(), at(8)), &mut book));
    assert_eq!(worker(&book, "w1").state, State::Disabled);
    assert!(book.fleet().allocation(&made).is_none());
    // What is held is its owner's to give back.
    let (book, _) = left(None);
    let cleared = decide::clear_over(&book, &w1(), at(8));
    assert!(cleared.draft.changes.is_empty());
}

#[test]
fn a_worker_that_has_left_is_disabled_by_force_at_once_and_is_not_unconfirmed() {
    for terms in [None, Some(drain_terms(Cause::Shutdown))] {
        let (mut book, made) = left(terms);
        force(&mut book);
        let disabled = worker(&book, "w1");
        assert_eq!(
            (disabled.state, disabled.unconfirmed),
            (State::Disabled, false)
        );
        assert_eq!((disabled.generation, disabled.revoked_through), (2, 1));
        assert!(book.fleet().allocation(&made).is_none());
        assert!(delete(&book).is_ok());
    }
}

#[test]
fn a_forced_deadline_ends_the_drain_of_a_worker_that_has_left() {
    let (mut book, _) = left(Some(forced(100)));
    assert!(!decide::call_deadline(&book, &w1(), at(99)).answer);
    assert!(take(
        decide::call_deadline(&book, &w1(), at(100)),
        &mut book
    ));
    let worker = worker(&book, "w1");
    assert_eq!((worker.state, worker.unconfirmed), (State::Disabled, false));
    let by = By::system("the drain's deadline has passed, and the agent has left");
    assert_eq!(worker.state_by, by);
    assert!(!decide::call_deadline(&book, &w1(), at(101)).answer);
}
