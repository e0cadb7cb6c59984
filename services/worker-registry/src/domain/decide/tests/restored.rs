//! A registry that was restored from a backup: agents are the witnesses.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::allocation::{Allocation, FencingToken};
use crate::domain::book::Book;
use crate::domain::decide::{self, Arrival, Decision, Named, Proof, Refused};
use crate::domain::fixture::*;
use crate::domain::fleet::{Change, Key};
use crate::domain::liveness::Longest;
use crate::domain::state::State;

/// The same records in a later epoch.
fn restored(book: &Book) -> Book {
    Book::new(book.fleet().clone(), "000000000003-0000cafe".into(), 100)
}

fn arrives(last_generation: u64, recreates: bool) -> Arrival {
    Arrival {
        last_generation,
        recreates,
        proof: Proof {
            credential: Some("uid-of-w1".into()),
            ..Proof::default()
        },
        ..arrival("w1", machine("w1", &[("H100", 8)]))
    }
}

/// The agent of w1 that has registered with this generation tells what is missing.
fn recreate(
    book: &Book,
    generation: u64,
    records: &[Arc<Allocation>],
) -> Result<Decision<bool>, Refused> {
    decide::recreate(book, &"w1".into(), generation, records, at(9))
}

/// What an agent tells of an allocation that was made after the backup.
fn told(id: &str, generation: u64) -> Arc<Allocation> {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let made = allocate(&mut book, &item("lost", ask("H100", 2))).unwrap();
    Arc::new(Allocation {
        id: id.into(),
        generation,
        fencing: FencingToken {
            epoch: EPOCH.into(),
            revision: 77,
        },
        request: None,
        ..Allocation::clone(&made)
    })
}

#[test]
fn nothing_new_is_placed_on_a_worker_before_it_has_registered_in_this_epoch() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let held = allocate(&mut book, &item("r1", ask("H100", 2))).unwrap();
    let mut book = restored(&book);
    assert_eq!(
        allocate(&mut book, &item("r2", ask("H100", 1))).unwrap_err(),
        Refused::NoCapacity
    );
    let refused = decide::heard(&book, &"w1".into(), 1, true, at(9)).unwrap_err();
    assert_eq!(refused, Refused::Reregister("w1".into()));
    let back = take(
        decide::register(&book, &arrives(5, false), at(9)).unwrap(),
        &mut book,
    )
    .worker;
    assert_eq!((back.generation, back.state), (6, State::Provisioning));
    take(
        decide::activate(&book, checked("w1", 6), at(10)).unwrap(),
        &mut book,
    );
    let new = allocate(&mut book, &item("r2", ask("H100", 1))).unwrap();
    assert!(new.fencing > held.fencing);
    assert!(!held.gpus.contains(&new.gpus[0]));
    assert_eq!(
        Named::of(entry(&book, "w1"), &held.id, book.epoch()),
        Named::Known
    );
}

#[test]
fn what_an_agent_runs_and_the_backup_lacks_is_made_again() {
    let mut old = book();
    join(&mut old, "w1", &[("H100", 8)]);
    let mut book = restored(&old);
    let records = [told("a-000000000077-0000beef", 1)];
    take(
        decide::register(&book, &arrives(1, true), at(9)).unwrap(),
        &mut book,
    );
    assert_eq!(
        Named::of(entry(&book, "w1"), &records[0].id, book.epoch()),
        Named::Unknown
    );
    assert!(!take(recreate(&book, 2, &records).unwrap(), &mut book));
    assert_eq!(entry(&book, "w1").usage().gpus, 2);
    assert!(
        recreate(&book, 2, &records)
            .unwrap()
            .draft
            .changes
            .is_empty()
    );
    take(
        decide::activate(&book, checked("w1", 2), at(10)).unwrap(),
        &mut book,
    );
    assert!(allocate(&mut book, &item("r9", ask("H100", 7))).is_err());
    assert!(allocate(&mut book, &item("r9", ask("H100", 6))).is_ok());
}

#[test]
fn what_was_freed_in_this_epoch_or_taken_by_force_is_not_made_again() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let freed = allocate(&mut book, &item("r1", ask("H100", 2))).unwrap();
    release(&mut book, &freed.id).unwrap();
    end(&mut book, "w1", &freed.id).unwrap();
    assert_eq!(
        Named::of(entry(&book, "w1"), &freed.id, book.epoch()),
        Named::Over
    );
    assert!(!decide::recreatable(
        &book,
        Some(entry(&book, "w1")),
        &freed
    ));

    // Nor what claims an earlier epoch under an id of this one.
    let mut invented = Allocation::clone(&freed);
    invented.fencing.epoch = "0".into();
    assert!(invented.fencing.epoch < *book.epoch());
    assert!(!decide::recreatable(&book, None, &invented));

    let held = allocate(&mut book, &item("r2", ask("H100", 2))).unwrap();
    lose(&mut book, "w1");
    take(
        decide::disable(&book, &"w1".into(), true, &by(), &unconditionally, at(8)).unwrap(),
        &mut book,
    );
    assert_eq!(
        Named::of(entry(&book, "w1"), &held.id, book.epoch()),
        Named::Taken
    );
    let book = restored(&book);
    assert!(!decide::recreatable(
        &book,
        Some(entry(&book, "w1")),
        &told("a-x-0000beef", 1)
    ));
    assert!(decide::recreatable(
        &book,
        Some(entry(&book, "w1")),
        &told("a-x-0000beef", 2)
    ));
}

#[test]
fn a_worker_that_joined_after_the_backup_is_accepted_by_its_credential() {
    let mut book = restored(&book());
    let back = take(
        decide::register(&book, &arrives(3, true), at(9)).unwrap(),
        &mut book,
    );
    assert!(back.had_credential);
    assert_eq!(
        (&*back.worker.uid, back.worker.generation),
        ("uid-of-w1", 4)
    );
}

#[test]
fn a_worker_that_was_enabled_after_the_backup_is_not_called_empty() {
    let mut old = book();
    join(&mut old, "w1", &[("H100", 8)]);
    take(
        decide::disable(&old, &"w1".into(), false, &by(), &unconditionally, at(8)).unwrap(),
        &mut old,
    );
    let mut book = restored(&old);
    let back = take(
        decide::register(&book, &arrives(1, true), at(9)).unwrap(),
        &mut book,
    )
    .worker;
    assert_eq!(back.state, State::Provisioning);
}

#[test]
fn a_worker_that_was_disabled_before_its_records_were_made_again_is_not_called_empty() {
    let mut old = book();
    join(&mut old, "w1", &[("H100", 8)]);
    let mut book = restored(&old);
    let records = [told("a-000000000077-0000beef", 1)];
    let back = decide::register(&book, &arrives(1, true), at(9)).unwrap();
    take(back, &mut book);
    let disabled = decide::disable(&book, &"w1".into(), false, &by(), &unconditionally, at(9));
    take(disabled.unwrap(), &mut book);

    // It rests on the record: whoever deletes the worker meanwhile, at any instance, makes it conflict.
    let made = recreate(&book, 2, &records).unwrap();
    let of_worker = |change: &Change| change.key() == Key::Worker("w1".into());
    assert!(made.draft.changes.iter().any(of_worker));
    let mut deleted = book.clone();
    take(made, &mut book);
    let w1 = worker(&book, "w1");
    assert_eq!((w1.state, w1.is_proved()), (State::Provisioning, false));
    assert_eq!(entry(&book, "w1").usage().allocations, 1);

    let gone = decide::delete(
        &deleted,
        &"w1".into(),
        &"alice".into(),
        &unconditionally,
        at(9),
    );
    take(gone.unwrap(), &mut deleted);
    let refused = recreate(&deleted, 2, &records).map(drop).unwrap_err();
    assert_eq!(refused, Refused::Reregister("w1".into()));
}

#[test]
fn what_an_earlier_generation_told_is_not_made_again() {
    let mut old = book();
    join(&mut old, "w1", &[("H100", 8)]);
    let mut book = restored(&old);
    for boot in ["boot-2", "boot-3"] {
        let arrival = Arrival {
            boot_id: boot.into(),
            ..arrives(1, true)
        };
        take(decide::register(&book, &arrival, at(9)).unwrap(), &mut book);
    }
    let records = [told("a-000000000077-0000beef", 1)];
    let refused = recreate(&book, 2, &records).map(drop).unwrap_err();
    assert!(matches!(refused, Refused::Fenced { .. }), "{refused}");
    assert!(recreate(&book, 3, &records).is_ok());
}

#[test]
fn many_records_are_made_again_chunk_by_chunk() {
    let mut old = book();
    join(&mut old, "w1", &[("H100", 8)]);
    let mut book = restored(&old);
    take(
        decide::register(&book, &arrives(1, true), at(9)).unwrap(),
        &mut book,
    );
    let records: Vec<_> = (0..60)
        .map(|id| told(&format!("a-{id:012}-0000beef"), 1))
        .collect();
    let mut rounds = 1;
    while take(recreate(&book, 2, &records).unwrap(), &mut book) {
        rounds += 1;
    }
    assert_eq!((rounds, book.fleet().allocation_count()), (3, 60));
}

#[test]
fn what_was_handed_out_is_never_taken_for_something_shorter() {
    let mut book = book();
    let times = |lost, fence| Longest {
        lost_after: Duration::from_secs(lost),
        fence_after: Duration::from_secs(fence),
    };
    take(decide::hand_out(&book, times(10, 40)), &mut book);
    assert_eq!(book.fleet().longest(), times(10, 40));
    let shorter = decide::hand_out(&book, times(5, 20));
    assert!(shorter.draft.changes.is_empty());
    // Each for itself.
    take(decide::hand_out(&book, times(20, 30)), &mut book);
    assert_eq!(book.fleet().longest(), times(20, 40));
}
