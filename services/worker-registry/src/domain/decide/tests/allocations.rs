//! Taking room and giving it back.

use std::collections::BTreeSet;

use crate::domain::allocation::{Allocation, Life};
use crate::domain::decide::{self, Item, Refused};
use crate::domain::fixture::*;
use crate::domain::fleet::{Change, Key};
use crate::domain::placement::Ask;
use crate::domain::text::Text;

fn replacing(id: &str, old: &Text, count: u32) -> Item {
    item(
        id,
        Ask {
            replaces: Some(old.clone()),
            ..ask("H100", count)
        },
    )
}

#[test]
fn what_two_instances_make_of_one_call_conflicts_and_their_ids_differ() {
    let mut one = book().shared_by("one".into());
    join(&mut one, "w1", &[("H100", 8)]);
    let mut two = one.clone().shared_by("two".into());
    let items = [item("r1", ask("H100", 2))];
    let decide = |book: &_| {
        let decision = decide::allocate(book, &items, true, at(9));
        let keys: BTreeSet<_> = decision.draft.changes.iter().map(Change::key).collect();
        (decision, keys)
    };
    let ((first, here), (second, there)) = (decide(&one), decide(&two));
    let call = |key: &&Key| matches!(key, Key::Spent(_));
    assert_eq!(here.intersection(&there).filter(call).count(), 1);
    let id = |made: &[Result<std::sync::Arc<Allocation>, Refused>]| {
        made[0].as_ref().map(|made| made.id.clone()).unwrap()
    };
    assert_ne!(id(&first.answer), id(&second.answer));
    one.hand_out();
    assert_ne!(id(&decide(&one).0.answer), id(&first.answer));
    // The loser sees what won, and answers that.
    two.follow(&first.draft.changes, 100);
    assert_eq!(two.next_revision(), 101);
    let again = decide(&two).0;
    assert!(again.draft.changes.is_empty());
    assert_eq!(id(&again.answer), id(&first.answer));
    // The record of the call lives as long as what it made.
    let year = at(365 * 86_400);
    assert!(decide::sweep(&two, 10, year).draft.changes.is_empty());
}

#[test]
fn a_repeated_call_gets_what_the_first_one_made() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let made = allocate(&mut book, &item("r1", ask("H100", 2))).unwrap();
    let mut later = item("r1", ask("H100", 2));
    later.term = term(2);
    assert_eq!(allocate(&mut book, &later).unwrap(), made);
    assert_eq!(entry(&book, "w1").usage().gpus, 2);
    later.request.as_mut().unwrap().body = 8;
    assert_eq!(
        allocate(&mut book, &later).unwrap_err(),
        Refused::RequestReused("r1".into())
    );
    let mut other = item("r1", ask("H100", 2));
    other.request.as_mut().unwrap().principal = "someone-else".into();
    assert_ne!(allocate(&mut book, &other).unwrap().id, made.id);
}

#[test]
fn a_call_replayed_after_release_makes_nothing_new() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let made = allocate(&mut book, &item("r1", ask("H100", 2))).unwrap();
    release(&mut book, &made.id).unwrap();
    let released = Refused::AlreadyReleased("r1".into());
    assert_eq!(
        allocate(&mut book, &item("r1", ask("H100", 2))).unwrap_err(),
        released
    );
    end(&mut book, "w1", &made.id).unwrap();
    assert!(book.fleet().allocation(&made.id).is_none());
    assert_eq!(
        allocate(&mut book, &item("r1", ask("H100", 2))).unwrap_err(),
        released
    );
    let kept = decide::sweep(
        &book,
        100,
        at(4) + decide::REQUEST_KEPT - std::time::Duration::from_secs(1),
    );
    assert!(kept.draft.changes.is_empty());
    let swept = decide::sweep(&book, 100, at(4) + decide::REQUEST_KEPT);
    take(swept, &mut book);
    assert!(allocate(&mut book, &item("r1", ask("H100", 2))).is_ok());
}

#[test]
fn room_is_freed_by_release_and_end_in_either_order() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let first = allocate(&mut book, &item("r1", ask("H100", 2))).unwrap();
    assert!(matches!(
        release(&mut book, &first.id).unwrap().unwrap().life,
        Life::Releasing(_)
    ));
    assert_eq!(entry(&book, "w1").usage().gpus, 2);
    end(&mut book, "w1", &first.id).unwrap();
    assert_eq!(entry(&book, "w1").usage().gpus, 0);
    let second = allocate(&mut book, &item("r2", ask("H100", 2))).unwrap();
    end(&mut book, "w1", &second.id).unwrap();
    assert_eq!(entry(&book, "w1").usage().gpus, 2);
    assert!(release(&mut book, &second.id).unwrap().is_none());
    assert_eq!(entry(&book, "w1").usage().gpus, 0);
    assert!(release(&mut book, &second.id).unwrap().is_none());
}

#[test]
fn only_its_owner_of_the_current_term_gives_room_back() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let made = allocate(&mut book, &item("r1", ask("H100", 2))).unwrap();
    let reason: Text = "".into();
    let other = decide::release(
        &book,
        &made.id,
        &"other".into(),
        &term(1),
        None,
        &reason,
        at(3),
    );
    assert!(matches!(other.unwrap_err(), Refused::OtherOwner { .. }));
    let claimed = decide::claim_owner(&book, &OWNER.into(), &term(5)).unwrap();
    assert_eq!(take(claimed, &mut book), None);
    let stale =
        |refused: Refused| assert!(matches!(refused, Refused::StaleOwner { .. }), "{refused}");
    stale(
        decide::release(
            &book,
            &made.id,
            &OWNER.into(),
            &term(4),
            None,
            &reason,
            at(3),
        )
        .unwrap_err(),
    );
    stale(allocate(&mut book, &item("r2", ask("H100", 1))).unwrap_err());
    stale(decide::may_report(&book, &OWNER.into(), &term(4), &"w1".into()).unwrap_err());
    stale(decide::claim_owner(&book, &OWNER.into(), &term(4)).unwrap_err());
    let again = decide::claim_owner(&book, &OWNER.into(), &term(5)).unwrap();
    assert!(again.draft.changes.is_empty());
    assert_eq!(again.answer, Some(term(5)));
}

#[test]
fn a_replacement_takes_over_the_room_in_one_go() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 4)]);
    let old = allocate(&mut book, &item("r1", ask("H100", 4))).unwrap();
    let new = allocate(&mut book, &replacing("r2", &old.id, 4)).unwrap();
    assert_eq!(new.gpus, old.gpus);
    assert_eq!(new.replaces, Some(old.id.clone()));
    assert!(matches!(
        book.fleet().allocation(&old.id).unwrap().life,
        Life::Releasing(_)
    ));
    assert_eq!(entry(&book, "w1").usage().gpus, 4);
    assert_eq!(
        allocate(&mut book, &item("r3", ask("H100", 1))).unwrap_err(),
        Refused::NoCapacity
    );
    let twice = allocate(&mut book, &replacing("r4", &old.id, 4)).unwrap_err();
    assert!(matches!(twice, Refused::Unfit(_)), "{twice}");
    let chain = allocate(&mut book, &replacing("r5", &new.id, 4)).unwrap_err();
    assert!(chain.to_string().contains("itself waits"), "{chain}");
    end(&mut book, "w1", &old.id).unwrap();
    assert!(allocate(&mut book, &replacing("r6", &new.id, 4)).is_ok());
}

#[test]
fn a_replacement_given_back_first_leaves_the_room_to_the_old_one() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 4)]);
    let old = allocate(&mut book, &item("r1", ask("H100", 4))).unwrap();
    let new = allocate(&mut book, &replacing("r2", &old.id, 4)).unwrap();
    release(&mut book, &new.id).unwrap();
    end(&mut book, "w1", &new.id).unwrap();
    assert_eq!(
        allocate(&mut book, &item("r3", ask("H100", 1))).unwrap_err(),
        Refused::NoCapacity
    );
    end(&mut book, "w1", &old.id).unwrap();
    assert!(allocate(&mut book, &item("r3", ask("H100", 4))).is_ok());
}

#[test]
fn the_room_of_one_that_has_ended_is_taken_over_at_once() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 4)]);
    let old = allocate(&mut book, &item("r1", ask("H100", 4))).unwrap();
    end(&mut book, "w1", &old.id).unwrap();
    let new = allocate(&mut book, &replacing("r2", &old.id, 4)).unwrap();
    assert!(book.fleet().allocation(&old.id).is_none());
    assert_eq!(entry(&book, "w1").allocations().len(), 1);
    assert_eq!(new.gpus, old.gpus);
}

#[test]
fn what_an_earlier_generation_named_ended_frees_nothing_that_a_later_one_may_run() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 4)]);
    let old = allocate(&mut book, &item("r1", ask("H100", 2))).unwrap();
    let other = allocate(&mut book, &item("r2", ask("H100", 2))).unwrap();
    end(&mut book, "w1", &old.id).unwrap();
    end(&mut book, "w1", &other.id).unwrap();
    // Its agent comes back without its memory, and is told to run what is held.
    let mut again = arrival("w1", machine("w1", &[("H100", 4)]));
    again.boot_id = "boot-2".into();
    again.proof.credential = Some("uid-of-w1".into());
    take(decide::register(&book, &again, at(5)).unwrap(), &mut book);
    take(
        decide::activate(&book, checked("w1", 2), at(6)).unwrap(),
        &mut book,
    );
    // What is still under way of the earlier one says nothing either.
    book.note_ended(&old.id, 1);
    let refused = decide::leave(&book, &"w1".into(), 2, at(7)).unwrap_err();
    assert_eq!(refused, Refused::StillRunning("w1".into()));
    let releasing = release(&mut book, &old.id).unwrap().unwrap();
    assert!(matches!(releasing.life, Life::Releasing(_)));
    allocate(&mut book, &replacing("r3", &other.id, 2)).unwrap();
    assert!(book.fleet().allocation(&other.id).is_some());
    assert_eq!(
        allocate(&mut book, &item("r4", ask("H100", 1))).unwrap_err(),
        Refused::NoCapacity
    );
    end(&mut book, "w1", &old.id).unwrap();
    assert!(allocate(&mut book, &item("r4", ask("H100", 2))).is_ok());
}

#[test]
fn all_or_nothing_takes_all_or_nothing() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 4)]);
    let items = [item("r1", ask("H100", 3)), item("r2", ask("H100", 2))];
    let decision = decide::allocate(&book, &items, true, at(2));
    assert_eq!(decision.draft.changes.len(), 0);
    assert_eq!(decision.answer.last().unwrap(), &Err(Refused::NoCapacity));
    let decision = decide::allocate(&book, &items, false, at(2));
    let results = take(decision, &mut book);
    assert!(results[0].is_ok());
    assert_eq!(results[1], Err(Refused::NoCapacity));
}

#[test]
fn those_of_one_batch_do_not_meet_on_an_accelerator() {
    let mut book = book();
    for name in ["w1", "w2"] {
        join(&mut book, name, &[("H100", 4)]);
    }
    let spread = |id: usize| {
        item(
            &format!("r{id}"),
            Ask {
                spread_key: "chat".into(),
                ..ask("H100", 2)
            },
        )
    };
    let items: Vec<_> = (0..4).map(spread).collect();
    let decision = decide::allocate(&book, &items, true, at(2));
    let made: Vec<_> = take(decision, &mut book)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let gpus: BTreeSet<_> = made.iter().flat_map(|one| one.gpus.clone()).collect();
    let ids: BTreeSet<_> = made.iter().map(|one| one.id.clone()).collect();
    assert_eq!((gpus.len(), ids.len()), (8, 4));
    assert_ne!(made[0].worker, made[1].worker);
}

#[test]
fn the_same_call_twice_in_a_batch_is_one_allocation() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 4)]);
    let items = [item("r1", ask("H100", 1)), item("r1", ask("H100", 1))];
    let decision = decide::allocate(&book, &items, true, at(2));
    let made = take(decision, &mut book);
    assert_eq!(made[0], made[1]);
    assert_eq!(entry(&book, "w1").usage().gpus, 1);
}

#[test]
fn nothing_on_a_lost_worker_is_given_away() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 4)]);
    let made = allocate(&mut book, &item("r1", ask("H100", 4))).unwrap();
    lose(&mut book, "w1");
    assert!(matches!(
        release(&mut book, &made.id).unwrap().unwrap().life,
        Life::Revoked(_)
    ));
    assert_eq!(entry(&book, "w1").usage().gpus, 4);
    let taken = allocate(&mut book, &replacing("r2", &made.id, 4)).unwrap_err();
    assert!(matches!(taken, Refused::Unfit(_)));
    take(
        decide::heard(&book, &"w1".into(), 1, true, at(7)).unwrap(),
        &mut book,
    );
    assert_eq!(entry(&book, "w1").usage().gpus, 4);
    end(&mut book, "w1", &made.id).unwrap();
    assert_eq!(entry(&book, "w1").usage().gpus, 0);
}

#[test]
fn an_agent_cannot_leave_what_is_allocated() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 4)]);
    let made = allocate(&mut book, &item("r1", ask("H100", 4))).unwrap();
    let refused = decide::leave(&book, &"w1".into(), 1, at(3)).unwrap_err();
    assert_eq!(refused, Refused::StillRunning("w1".into()));
    release(&mut book, &made.id).unwrap();
    end(&mut book, "w1", &made.id).unwrap();
    take(
        decide::leave(&book, &"w1".into(), 1, at(3)).unwrap(),
        &mut book,
    );
    assert_eq!(
        allocate(&mut book, &item("r2", ask("H100", 1))).unwrap_err(),
        Refused::NoCapacity
    );
}

#[test]
fn an_agent_may_leave_what_it_has_named_ended() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 4)]);
    let made = allocate(&mut book, &item("r1", ask("H100", 4))).unwrap();
    end(&mut book, "w1", &made.id).unwrap();
    let left = decide::leave(&book, &"w1".into(), 1, at(3)).unwrap();
    take(left, &mut book);
    assert!(!worker(&book, "w1").is_expected());
}

#[test]
fn room_is_taken_over_only_where_it_is() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 4)]);
    let made = allocate(&mut book, &item("r1", ask("H100", 4))).unwrap();
    join(&mut book, "w2", &[("H100", 4)]);
    let mut elsewhere = replacing("r2", &made.id, 4);
    elsewhere.ask.worker = Some("w2".into());
    let refused = allocate(&mut book, &elsewhere).unwrap_err();
    assert!(matches!(refused, Refused::Unfit(_)), "{refused:?}");
    assert!(book.fleet().allocation(&made.id).unwrap().is_held());
}

#[test]
fn what_force_disabling_took_is_not_given_again_to_a_repeated_call() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 4)]);
    let made = item("r1", ask("H100", 4));
    allocate(&mut book, &made).unwrap();
    lose(&mut book, "w1");
    let disabled = decide::disable(&book, &"w1".into(), true, &by(), &unconditionally, at(8));
    take(disabled.unwrap(), &mut book);
    let refused = allocate(&mut book, &made).unwrap_err();
    assert_eq!(refused, Refused::AlreadyReleased("r1".into()));
}
