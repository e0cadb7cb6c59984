use crate::domain::allocation::Life;
use crate::domain::fixture::{allocate, ask, at, book, entry, item, join, release};
use crate::domain::fleet::{Change, Key, RequestKey, Spent};

#[test]
fn a_record_knows_the_revision_that_put_it() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let fleet = book.fleet();
    assert_eq!(fleet.modified(&Key::Worker("w1".into())), Some(2));
    assert_eq!(fleet.modified(&Key::Room("w1".into())), None);
    let made = allocate(&mut book, &item("r1", ask("H100", 1))).unwrap();
    let fleet = book.fleet();
    assert_eq!(fleet.modified(&Key::Allocation(made.id.clone())), Some(3));
    assert_eq!(fleet.modified(&Key::Room("w1".into())), Some(3));
    assert_eq!(fleet.modified(&Key::Worker("w1".into())), Some(2));
    assert_eq!(fleet.revision(), 3);
    assert_eq!(made.fencing.revision, 3);
}

#[test]
fn what_follows_from_records_follows_their_changes() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let mut spread = ask("H100", 3);
    spread.spread_key = "chat".into();
    let made = allocate(&mut book, &item("r1", spread)).unwrap();
    assert_eq!(entry(&book, "w1").usage().gpus, 3);
    assert_eq!(book.fleet().spread().count("chat", "w1"), 1);
    let request = made.request.clone().unwrap();
    assert!(
        book.fleet()
            .made_by(&request.principal, &request.id)
            .is_some()
    );
    release(&mut book, &made.id).unwrap();
    assert!(matches!(
        book.fleet().allocation(&made.id).unwrap().life,
        Life::Releasing(_)
    ));
    book.take(&[Change::AllocationGone(made.id.clone())]);
    assert_eq!(entry(&book, "w1").usage().allocations, 0);
    assert_eq!(book.fleet().spread().count("chat", "w1"), 0);
    assert!(
        book.fleet()
            .made_by(&request.principal, &request.id)
            .is_none()
    );
}

#[test]
fn calls_are_found_by_when_they_may_be_forgotten() {
    let mut book = book();
    let key = |id: &str| RequestKey {
        method: "allocate",
        principal: "p".into(),
        id: id.into(),
    };
    let spent = |until| Spent {
        body: 1,
        made: "a-1".into(),
        until: at(until),
    };
    book.take(&[
        Change::Spent(key("a"), spent(10)),
        Change::Spent(key("b"), spent(20)),
    ]);
    book.take(&[Change::Spent(key("a"), spent(30))]);
    let by = |now| {
        book.fleet()
            .spent_by(at(now))
            .map(|(key, _)| key.id.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(by(9), [""; 0]);
    assert_eq!(by(20), ["b"]);
    assert_eq!(by(30), ["b", "a"]);
}
