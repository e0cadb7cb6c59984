//! Registering, proving, fencing, deleting.

use std::sync::Arc;

use crate::domain::book::Book;
use crate::domain::decide::{self, Arrival, NewToken, Proof, Refused};
use crate::domain::drain::Cause;
use crate::domain::event;
use crate::domain::fixture::*;
use crate::domain::machine::common_labels;
use crate::domain::state::State;
use crate::domain::text::Text;
use crate::domain::token::{JoinToken, Unfit};
use crate::domain::worker::{CheckStatus, Presence, Worker};

fn with_proof(name: &str, boot: &str, proof: Proof) -> Arrival {
    Arrival {
        boot_id: boot.into(),
        proof,
        ..arrival(name, machine(name, &[("H100", 8)]))
    }
}

fn credential(name: &str) -> Proof {
    Proof {
        credential: Some(format!("uid-of-{name}").into()),
        ..Proof::default()
    }
}

fn token(id: &str, worker: Option<&str>) -> NewToken {
    NewToken {
        token: JoinToken {
            id: id.into(),
            secret_hash: [9; 32],
            worker: worker.map(Into::into),
            max_uses: Some(1),
            uses: 0,
            expires: Some(at(1000)),
            created: at(0),
            actor: "alice".into(),
            labels: [("tier".to_owned(), "gold".to_owned())].into(),
        },
        uid: "uid-ahead".into(),
        request: None,
    }
}

fn by_token(id: &str, hash: u8) -> Proof {
    Proof {
        token: Some((id.into(), [hash; 32])),
        ..Proof::default()
    }
}

#[test]
fn a_repeated_registration_gets_the_same_generation() {
    let mut book = book();
    for _ in 0..2 {
        let arrival = with_proof(
            "w1",
            "boot-1",
            Proof {
                insecure: true,
                ..Proof::default()
            },
        );
        let decision = decide::register(&book, &arrival, at(1)).unwrap();
        assert_eq!(take(decision, &mut book).worker.generation, 1);
    }
    let decision =
        decide::register(&book, &with_proof("w1", "boot-2", credential("w1")), at(2)).unwrap();
    let again = take(decision, &mut book);
    assert!(again.had_credential);
    assert_eq!(
        (again.worker.generation, again.worker.state),
        (2, State::Provisioning)
    );
}

/// The agent of `join`, once more, with other accelerators; it had `last` before.
fn with_gpus(gpus: &[(&str, usize)], last: u64) -> Arrival {
    Arrival {
        last_generation: last,
        proof: credential("w1"),
        ..arrival("w1", machine("w1", gpus))
    }
}

fn register(book: &mut Book, arrival: &Arrival, second: u64) -> Arc<Worker> {
    let decision = decide::register(book, arrival, at(second)).unwrap();
    take(decision, book).worker
}

fn uuids(worker: &Worker) -> Vec<&str> {
    worker.machine.gpus.uuids().collect()
}

#[test]
fn a_process_whose_accelerators_change_is_a_new_incarnation_that_keeps_its_allocations() {
    let mut book = book();
    join(&mut book, "w1", &[("A100", 1), ("H100", 2)]);
    let held = allocate(&mut book, &item("r1", ask("H100", 2))).unwrap();
    let less = register(&mut book, &with_gpus(&[("A100", 1), ("H100", 1)], 1), 2);
    assert_eq!((less.generation, less.state), (2, State::Provisioning));
    assert_eq!(uuids(&less), ["w1-A100-0", "w1-H100-0"]);
    assert_eq!(entry(&book, "w1").allocations()[0].id, held.id);
    take(
        decide::activate(&book, checked("w1", 2), at(3)).unwrap(),
        &mut book,
    );
    // The one that is there is taken, and the one that is free is gone.
    let refused = |book: &mut Book, id, count| allocate(book, &item(id, ask("H100", count)));
    assert_eq!(refused(&mut book, "r2", 1), Err(Refused::NoCapacity));
    // Its owner gives it back, its agent names it ended: only what is there is free.
    release(&mut book, &held.id).unwrap();
    end(&mut book, "w1", &held.id).unwrap();
    assert_eq!(refused(&mut book, "r3", 2), Err(Refused::NoCapacity));
    let one = allocate(&mut book, &item("r4", ask("H100", 1))).unwrap();
    assert_eq!(&*one.gpus[0], "w1-H100-0");
    let more = register(&mut book, &with_gpus(&[("A100", 1), ("H100", 2)], 2), 4);
    assert_eq!((more.generation, more.state), (3, State::Provisioning));
    take(
        decide::activate(&book, checked("w1", 3), at(5)).unwrap(),
        &mut book,
    );
    let other = allocate(&mut book, &item("r5", ask("H100", 1))).unwrap();
    assert_eq!(&*other.gpus[0], "w1-H100-1", "it has come back");
}

#[test]
fn a_late_call_brings_back_nothing_that_is_gone() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 2)]);
    let less = register(&mut book, &with_gpus(&[("H100", 1)], 1), 2);
    assert_eq!(less.generation, 2);
    // Those of before it was known to be gone, and the same call again.
    for late in [
        with_gpus(&[("H100", 2)], 0),
        with_gpus(&[("H100", 2)], 1),
        with_gpus(&[("H100", 1)], 1),
        with_gpus(&[("H100", 1)], 2),
    ] {
        assert_eq!(register(&mut book, &late, 3), less);
    }
}

#[test]
fn a_worker_that_is_emptied_goes_on_being_emptied_with_other_accelerators() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 2)]);
    let held = allocate(&mut book, &item("r1", ask("H100", 2))).unwrap();
    drain(&mut book, "w1", drain_terms(Cause::Operator)).unwrap();
    let less = register(&mut book, &with_gpus(&[("H100", 1)], 1), 7);
    assert_eq!((less.generation, less.state), (2, State::Draining));
    release(&mut book, &held.id).unwrap();
    end(&mut book, "w1", &held.id).unwrap();
    assert_eq!(worker(&book, "w1").state, State::Disabled);
}

#[test]
fn that_accelerators_are_gone_or_have_come_is_told() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 12)]);
    let before = worker(&book, "w1");
    assert_eq!(event::of_change(None, &before).len(), 2, "nothing is gone");
    let less = register(&mut book, &with_gpus(&[("A10", 1), ("H100", 2)], 1), 2);
    let told = event::of_change(Some(&before), &less);
    let told: Vec<_> = told
        .iter()
        .map(|event| (&*event.kind, &*event.message))
        .collect();
    let gone = "gone: w1-H100-2 (H100), w1-H100-3 (H100), \
        w1-H100-4 (H100), w1-H100-5 (H100), w1-H100-6 (H100), w1-H100-7 (H100), w1-H100-8 (H100), \
        w1-H100-9 (H100) and 2 more; left: 3";
    let expected = [
        ("WorkerRegistered", "ACTIVE to PROVISIONING: registered"),
        ("AcceleratorsGone", gone),
        ("AcceleratorsFound", "found: w1-A10-0 (A10)"),
    ];
    assert_eq!(told, expected);
    let same = register(&mut book, &with_proof("w1", "boot-2", credential("w1")), 3);
    let again = register(&mut book, &with_proof("w1", "boot-3", credential("w1")), 4);
    assert_eq!(event::of_change(Some(&same), &again).len(), 1);
}

#[test]
fn a_second_machine_of_one_name_is_refused_and_the_first_is_untouched() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let before = worker(&book, "w1");
    for proof in [
        Proof {
            insecure: true,
            ..Proof::default()
        },
        credential("w2"),
        by_token("t1", 9),
    ] {
        let refused = decide::register(&book, &with_proof("w1", "boot-2", proof), at(2));
        assert_eq!(refused.unwrap_err(), Refused::NameTaken("w1".into()));
    }
    assert_eq!(worker(&book, "w1"), before);
}

#[test]
fn the_first_registration_needs_a_proof() {
    let mut book = book();
    let refused = |book: &_, proof| {
        decide::register(book, &with_proof("w1", "boot-1", proof), at(2)).unwrap_err()
    };
    assert_eq!(
        refused(&book, Proof::default()),
        Refused::TokenNeeded("w1".into())
    );
    let bad = Proof {
        bad_credential: true,
        ..Proof::default()
    };
    assert_eq!(refused(&book, bad), Refused::BadCredential("w1".into()));
    assert_eq!(refused(&book, by_token("t1", 9)), Refused::UnknownToken);
    take(
        decide::create_token(&book, &token("t1", None), at(0)).unwrap(),
        &mut book,
    );
    assert_eq!(refused(&book, by_token("t1", 8)), Refused::UnknownToken);
    let joined =
        decide::register(&book, &with_proof("w1", "boot-1", by_token("t1", 9)), at(2)).unwrap();
    let joined = take(joined, &mut book).worker;
    assert_eq!(joined.labels["tier"], "gold");
    // The same process again is the same machine; another one finds the token used up.
    let again =
        decide::register(&book, &with_proof("w1", "boot-1", by_token("t1", 9)), at(3)).unwrap();
    assert_eq!(take(again, &mut book).worker.generation, 1);
    assert_eq!(book.fleet().token("t1").unwrap().uses, 1);
    let refused = decide::register(&book, &with_proof("w2", "boot-1", by_token("t1", 9)), at(3));
    assert_eq!(refused.unwrap_err(), Refused::TokenUnfit(Unfit::UsedUp));
}

#[test]
fn a_bound_token_makes_the_record_ahead() {
    let mut book = book();
    take(
        decide::create_token(&book, &token("t1", Some("w1")), at(0)).unwrap(),
        &mut book,
    );
    let ahead = worker(&book, "w1");
    assert_eq!(
        (ahead.generation, ahead.state, ahead.presence),
        (0, State::Provisioning, Presence::Awaited)
    );
    let joined =
        decide::register(&book, &with_proof("w1", "boot-1", by_token("t1", 9)), at(2)).unwrap();
    let joined = take(joined, &mut book).worker;
    assert_eq!((joined.generation, &*joined.uid), (1, "uid-ahead"));
    let taken = decide::create_token(&book, &token("t2", Some("w1")), at(3));
    assert_eq!(taken.unwrap_err(), Refused::WorkerExists("w1".into()));
}

#[test]
fn the_call_of_a_token_is_kept_for_a_while_after_the_token() {
    for expires in [None, Some(at(10_000))] {
        let mut book = book();
        let mut new = token("t1", None);
        new.token.expires = expires;
        new.request = Some(("alice".into(), "r1".into(), 1));
        take(decide::create_token(&book, &new, at(0)).unwrap(), &mut book);
        let swept = |book: &Book, now| decide::sweep(book, 100, now).draft.changes;
        assert!(swept(&book, at(9_999_999)).is_empty());
        take(
            decide::revoke_token(&book, &"t1".into(), at(10_000)).unwrap(),
            &mut book,
        );
        let again = decide::create_token(&book, &new, at(10_001));
        assert_eq!(again.unwrap_err(), Refused::AlreadyReleased("r1".into()));
        assert!(swept(&book, at(10_599)).is_empty());
        assert_eq!(swept(&book, at(10_600)).len(), 1);
    }
}

#[test]
fn a_certificate_binds_its_worker() {
    let mut book = book();
    let certificate = |san: &str| Proof {
        san: Some(san.into()),
        ..Proof::default()
    };
    let joined = decide::register(
        &book,
        &with_proof("w1", "boot-1", certificate("w1.fleet")),
        at(2),
    )
    .unwrap();
    take(joined, &mut book);
    let other = decide::register(
        &book,
        &with_proof("w1", "boot-2", certificate("w2.fleet")),
        at(3),
    );
    assert_eq!(other.unwrap_err(), Refused::NameTaken("w1".into()));
    let again = decide::register(
        &book,
        &with_proof("w1", "boot-2", certificate("w1.fleet")),
        at(3),
    )
    .unwrap();
    assert_eq!(take(again, &mut book).worker.generation, 2);
}

#[test]
fn calls_of_an_older_incarnation_are_fenced() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let again =
        decide::register(&book, &with_proof("w1", "boot-2", credential("w1")), at(2)).unwrap();
    take(again, &mut book);
    let name = "w1".into();
    let fenced = Refused::Fenced {
        name: "w1".into(),
        asked: 1,
        current: 2,
    };
    let is_fenced = |refused: Refused| assert_eq!(refused, fenced);
    is_fenced(decide::activate(&book, checked("w1", 1), at(3)).unwrap_err());
    is_fenced(decide::end(&book, &name, 1, &[], at(3)).unwrap_err());
    is_fenced(decide::heard(&book, &name, 1, false, at(3)).unwrap_err());
    is_fenced(decide::leave(&book, &name, 1, at(3)).unwrap_err());
    let terms = drain_terms(Cause::Shutdown);
    let asked = decide::DrainAsked {
        name: name.clone(),
        terms,
        generation: Some(1),
    };
    is_fenced(decide::drain(&book, &asked, &unconditionally, at(3)).unwrap_err());
    let ahead = decide::heard(&book, &name, 3, false, at(3)).unwrap_err();
    assert_eq!(ahead, Refused::Reregister("w1".into()));
    let unknown = decide::heard(&book, &"w9".into(), 1, false, at(3)).unwrap_err();
    assert_eq!(unknown, Refused::Reregister("w9".into()));
}

#[test]
fn failed_checks_keep_a_worker_provisioning() {
    let mut book = book();
    let joined = decide::register(
        &book,
        &with_proof(
            "w1",
            "b",
            Proof {
                insecure: true,
                ..Proof::default()
            },
        ),
        at(1),
    )
    .unwrap();
    take(joined, &mut book);
    let mut failed = checked("w1", 1);
    failed.checks = checks(CheckStatus::Failed);
    let decision = decide::activate(&book, failed, at(2)).unwrap();
    assert_eq!(take(decision, &mut book).state, State::Provisioning);
    assert_eq!(worker(&book, "w1").checks[0].status, CheckStatus::Failed);
    let decision = decide::activate(&book, checked("w1", 1), at(3)).unwrap();
    assert_eq!(take(decision, &mut book).state, State::Active);
    let repeated = decide::activate(&book, checked("w1", 1), at(4)).unwrap();
    assert!(repeated.draft.changes.is_empty());
}

#[test]
fn a_deleted_name_comes_back_above_its_old_generations_and_as_another() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let in_use = decide::delete(
        &book,
        &"w1".into(),
        &"alice".into(),
        &unconditionally,
        at(2),
    );
    assert!(matches!(in_use.unwrap_err(), Refused::WrongState(_)));
    take(
        decide::disable(&book, &"w1".into(), false, &by(), &unconditionally, at(2)).unwrap(),
        &mut book,
    );
    take(
        decide::delete(
            &book,
            &"w1".into(),
            &"alice".into(),
            &unconditionally,
            at(3),
        )
        .unwrap(),
        &mut book,
    );
    assert!(book.fleet().worker("w1").is_none());
    let refused = decide::register(&book, &with_proof("w1", "boot-2", credential("w1")), at(4));
    assert_eq!(refused.unwrap_err(), Refused::BadCredential("w1".into()));
    let fresh = Arrival {
        uid: "uid-second".into(),
        ..with_proof(
            "w1",
            "boot-3",
            Proof {
                insecure: true,
                ..credential("w1")
            },
        )
    };
    let fresh = take(decide::register(&book, &fresh, at(5)).unwrap(), &mut book).worker;
    assert_eq!((fresh.generation, &*fresh.uid), (2, "uid-second"));
    // Owners that were away when it was deleted learn from this that what they had there is gone.
    assert_eq!(fresh.revoked_through, 1);
    // Nor does the first one's credential open anything once the second is deleted too.
    let (name, alice): (Text, Text) = ("w1".into(), "alice".into());
    let disabled = decide::disable(&book, &name, false, &by(), &unconditionally, at(6)).unwrap();
    take(disabled, &mut book);
    let deleted = decide::delete(&book, &name, &alice, &unconditionally, at(7)).unwrap();
    take(deleted, &mut book);
    let refused = decide::register(&book, &with_proof("w1", "boot-2", credential("w1")), at(8));
    assert_eq!(refused.unwrap_err(), Refused::BadCredential("w1".into()));
    let made = decide::create_token(&book, &token("t1", Some("w1")), at(9)).unwrap();
    take(made, &mut book);
    let ahead = &book.fleet().worker("w1").unwrap().worker;
    assert_eq!((ahead.generation, ahead.revoked_through), (0, 2));
}

#[test]
fn what_was_disabled_ahead_of_its_machine_stays_so() {
    let mut book = book();
    let made = decide::create_token(&book, &token("t1", Some("w1")), at(0)).unwrap();
    take(made, &mut book);
    let name: Text = "w1".into();
    let disabled = decide::disable(&book, &name, false, &by(), &unconditionally, at(1)).unwrap();
    take(disabled, &mut book);
    let joined = with_proof("w1", "boot-1", by_token("t1", 9));
    let joined = take(decide::register(&book, &joined, at(2)).unwrap(), &mut book).worker;
    assert_eq!((joined.generation, joined.state), (1, State::Disabled));
}

#[test]
fn history_tells_who_why_and_when_and_stays_bounded() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    for round in 0..60 {
        take(
            decide::disable(
                &book,
                &"w1".into(),
                false,
                &by(),
                &unconditionally,
                at(10 + round),
            )
            .unwrap(),
            &mut book,
        );
        take(
            decide::enable(&book, &"w1".into(), &by(), &unconditionally, at(10 + round)).unwrap(),
            &mut book,
        );
    }
    let worker = worker(&book, "w1");
    assert_eq!(worker.history.len(), 100);
    let last = worker.history.last().unwrap();
    assert_eq!(
        (last.from, last.to),
        (Some(State::Disabled), State::Provisioning)
    );
    assert_eq!(
        (&*last.by.actor, &*last.by.reason, last.at),
        ("alice", "because", at(69))
    );
}

#[test]
fn an_etag_is_required_to_be_current() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let stale = |_: &Worker| Err(Refused::StaleEtag);
    let edit = decide::Edit {
        labels: Some([("a".to_owned(), "b".to_owned())].into()),
        ..Default::default()
    };
    let refused = decide::update(&book, &"w1".into(), &edit, &stale, at(2));
    assert_eq!(refused.unwrap_err(), Refused::StaleEtag);
    let writes = worker(&book, "w1").writes;
    let updated = take(
        decide::update(&book, &"w1".into(), &edit, &unconditionally, at(2)).unwrap(),
        &mut book,
    );
    assert_eq!(
        (updated.writes, updated.effective_labels["a"].as_str()),
        (writes + 1, "b")
    );
    let nothing = decide::update(&book, &"w1".into(), &edit, &unconditionally, at(3)).unwrap();
    assert!(nothing.draft.changes.is_empty());
    assert!(Arc::ptr_eq(&nothing.answer, &entry(&book, "w1").worker));
}

#[test]
fn the_operators_word_on_labels_and_price_wins_and_survives() {
    use muster_model::quantity::MicroUsd;
    let mut book = book();
    let mut here = machine("w1", &[("H100", 8)]);
    here.labels = common_labels(
        [
            ("tier".to_owned(), "lead".to_owned()),
            ("rack".to_owned(), "7".to_owned()),
        ]
        .into(),
    );
    here.price = Some(MicroUsd(5));
    join_with(&mut book, "w1", here.clone());
    let edit = decide::Edit {
        labels: Some([("tier".to_owned(), "gold".to_owned())].into()),
        price: Some(Some(MicroUsd(9))),
        capacity_type: None,
    };
    take(
        decide::update(&book, &"w1".into(), &edit, &unconditionally, at(2)).unwrap(),
        &mut book,
    );
    let again = Arrival {
        machine: Arc::new(here),
        ..with_proof("w1", "boot-2", credential("w1"))
    };
    let again = take(decide::register(&book, &again, at(3)).unwrap(), &mut book).worker;
    assert_eq!(again.effective_labels["tier"], "gold");
    assert_eq!(again.effective_labels["rack"], "7");
    assert_eq!(again.effective_price(), Some(MicroUsd(9)));
}
