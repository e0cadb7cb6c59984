use muster_model::gpu::GpuGroup;

use super::*;
use crate::domain::builder::Builder;
use crate::domain::id;
use crate::domain::offer::{Draft, Machine, Source};
use crate::domain::snapshot::Row;

const START: SystemTime = SystemTime::UNIX_EPOCH;
const HALF_LIFE: Duration = Duration::from_secs(900);

/// Two zones and a region without, with some H100 and one T4 in each.
fn snapshot() -> Snapshot {
    let mut builder = Builder::new("cloud", Source::Catalog);
    let machine = |name: &str| Machine {
        gpus: vec![GpuGroup::named(name, 1)],
        ..Machine::default()
    };
    for (zone, gpu, types) in [("z1", "H100", 4), ("z2", "H100", 4), ("z1", "T4", 1)] {
        for number in 0..types {
            for capacity_type in [CapacityType::OnDemand, CapacityType::Spot] {
                let instance_type = format!("{gpu}-{number}");
                let machine = machine(gpu);
                let draft = Draft {
                    region: "eu",
                    zone,
                    instance_type: &instance_type,
                    capacity_type,
                    machine: &machine,
                    price: Some(MicroUsd(5)),
                    availability: Availability::Unknown,
                };
                builder.add(&draft, None);
            }
        }
    }
    builder.finish()
}

/// A book after each of these was told of an offer, one a second.
fn told(outcomes: &[(&str, Outcome)]) -> (Book, SystemTime) {
    let mut book = Book::default();
    let mut now = START;
    for (id, outcome) in outcomes {
        now += Duration::from_secs(1);
        let gpus = if id.contains("T4") { "T4" } else { "H100" };
        let record = book.told(id, gpus, *outcome, now);
        book = book.with(id, Some(record));
    }
    (book, now)
}

fn marked_ids(book: &Book, now: SystemTime) -> Vec<String> {
    let snapshot = snapshot();
    let marks = book.marks(&snapshot, now);
    let mut ids: Vec<String> = marks
        .keys()
        .map(|row| snapshot.id_of(snapshot.row(*row)).render())
        .collect();
    ids.sort();
    ids
}

fn scope(book: &Book, id: &str, now: SystemTime) -> Scope {
    book.scope(&id::parse(id).unwrap(), now)
}

const FIRST: &str = "cloud/eu/z1/H100-0/ondemand";
const SECOND: &str = "cloud/eu/z1/H100-1/ondemand";

#[test]
fn a_failure_marks_its_offer_until_it_has_faded() {
    let (book, now) = told(&[(FIRST, Outcome::NoCapacity)]);
    assert_eq!(marked_ids(&book, now), [FIRST]);
    assert_eq!(scope(&book, FIRST, now), Scope::Offer);
    let end = book.expiry(FIRST).unwrap();
    assert_eq!(
        end.duration_since(now).unwrap().as_secs(),
        HALF_LIFE.as_secs()
    );
    assert_eq!(book.next_change(now), Some(end));
    assert_eq!(marked_ids(&book, end), Vec::<String>::new());
    assert!(
        book.forgotten(end).is_empty(),
        "it still counts towards the zone"
    );
    let faded = book.next_change(end).unwrap();
    assert_eq!(book.forgotten(faded), [FIRST]);
    assert_eq!(book.next_change(faded), None);
}

#[test]
fn failures_add_up_to_the_zone_and_the_region() {
    let fail = |id| (id, Outcome::NoCapacity);
    let (book, now) = told(&[fail(FIRST), fail(FIRST), fail(SECOND)]);
    let zone: Vec<String> = (0..4)
        .map(|number| format!("cloud/eu/z1/H100-{number}/ondemand"))
        .collect();
    assert_eq!(
        marked_ids(&book, now),
        zone,
        "on demand only, H100 only, this zone only"
    );
    assert_eq!(scope(&book, FIRST, now), Scope::Zone);
    let other = "cloud/eu/z2/H100-0/ondemand";
    let (book, now) = told(&[
        fail(FIRST),
        fail(FIRST),
        fail(SECOND),
        fail(other),
        fail(other),
    ]);
    assert_eq!(
        marked_ids(&book, now).len(),
        8,
        "all H100 on demand of the region"
    );
    assert_eq!(scope(&book, FIRST, now), Scope::Region);
    let later = book.next_change(now).unwrap();
    assert!(
        marked_ids(&book, later).len() < 8,
        "the region is the first to be believed in again"
    );
}

#[test]
fn each_kind_of_machine_is_its_own() {
    let fail = |id| (id, Outcome::NoCapacity);
    let spot = "cloud/eu/z1/H100-0/spot";
    let small = "cloud/eu/z1/T4-0/ondemand";
    let (book, now) = told(&[fail(FIRST), fail(spot), fail(small)]);
    assert_eq!(marked_ids(&book, now), [FIRST, spot, small]);
}

#[test]
fn a_launch_speaks_against_what_was_told_before() {
    let fail = |id| (id, Outcome::NoCapacity);
    let (book, now) = told(&[
        fail(FIRST),
        fail(FIRST),
        fail(SECOND),
        (FIRST, Outcome::Launched),
    ]);
    assert_eq!(
        marked_ids(&book, now),
        [SECOND],
        "what was told of the other offer itself stands"
    );
    assert_eq!(book.expiry(FIRST), None);
    let (book, now) = told(&[
        (FIRST, Outcome::Launched),
        fail(SECOND),
        fail(SECOND),
        fail(SECOND),
    ]);
    assert!(
        !marked_ids(&book, now).contains(&FIRST.to_owned()),
        "it was had a moment ago"
    );
    assert_eq!(marked_ids(&book, now).len(), 3);
}

#[test]
fn what_was_told_is_what_is_shown() {
    let (book, now) = told(&[
        (FIRST, Outcome::NoQuota),
        (SECOND, Outcome::PriceChanged(Some(MicroUsd(9)))),
    ]);
    let snapshot = snapshot();
    let marks = book.marks(&snapshot, now);
    let mark = |id: &str| marks[&snapshot.find(&id::parse(id).unwrap()).unwrap()];
    assert_eq!(
        mark(FIRST),
        Mark {
            availability: Some(Availability::NoQuota),
            price: None
        }
    );
    assert_eq!(
        mark(SECOND),
        Mark {
            availability: None,
            price: Some(MicroUsd(9))
        }
    );
}

#[test]
fn failures_add_up_whatever_their_reasons() {
    let (book, now) = told(&[(FIRST, Outcome::NoCapacity), (FIRST, Outcome::NoCapacity)]);
    assert!(book.record(FIRST).unwrap().failed.unwrap().weight > 1.9);
    assert!(book.expiry(FIRST).unwrap() > now + HALF_LIFE);
    let changed = book.told(FIRST, "H100", Outcome::NoQuota, now);
    let failed = changed.failed.unwrap();
    assert_eq!(failed.why, Why::NoQuota, "the last reason stands");
    assert!(failed.weight > 2.9, "a failure is a failure");
}

const THIRD: &str = "cloud/eu/z2/H100-0/ondemand";

#[test]
fn what_a_launch_has_voided_does_not_come_back() {
    let fail = |id| (id, Outcome::NoCapacity);
    let five = [fail(FIRST); 5];
    let launch = (THIRD, Outcome::Launched);
    // The machine that was launched fails after all; then the one that failed before fails again.
    let (book, now) = told(&[&five[..], &[launch, fail(THIRD)]].concat());
    assert_eq!(scope(&book, THIRD, now), Scope::Offer);
    let (book, now) = told(&[&five[..], &[launch, fail(FIRST)]].concat());
    assert_eq!(
        scope(&book, FIRST, now),
        Scope::Zone,
        "nothing was launched there"
    );
    assert!(!marked_ids(&book, now).contains(&THIRD.to_owned()));
    // And failures count again from then on.
    let (book, now) = told(&[&five[..], &[launch], &five[..]].concat());
    assert_eq!(scope(&book, FIRST, now), Scope::Region);
}

#[test]
fn a_launch_is_remembered_for_as_long_as_what_it_voids() {
    let mut told_of = vec![(FIRST, Outcome::NoCapacity); 60];
    told_of.push((SECOND, Outcome::Launched));
    let (mut book, mut now) = told(&told_of);
    while let Some(next) = book.next_change(now) {
        now = next;
        for id in book.forgotten(now) {
            book = book.with(&id, None);
        }
        let marked = marked_ids(&book, now);
        assert!(marked.iter().all(|id| id == FIRST), "{marked:?}");
    }
    assert_eq!(book, Book::default(), "in the end all is forgotten");
}

#[test]
fn a_price_and_a_failure_are_known_side_by_side() {
    let price = (FIRST, Outcome::PriceChanged(Some(MicroUsd(9))));
    let fail = (FIRST, Outcome::NoCapacity);
    let both = Mark {
        availability: Some(Availability::NoCapacity),
        price: Some(MicroUsd(9)),
    };
    for order in [[price, fail], [fail, price]] {
        let (book, now) = told(&order);
        let snapshot = snapshot();
        let marks = book.marks(&snapshot, now);
        let row = snapshot.find(&id::parse(FIRST).unwrap()).unwrap();
        assert_eq!(marks.get(&row), Some(&both));
    }
}

#[test]
fn a_row_is_marked_by_the_place_that_it_is_in_and_by_no_other() {
    let failed = |id: &'static str| [(id, Outcome::NoCapacity); 3];
    let mut told_of = [failed(FIRST), failed("cloud/eu/z2/H100-3/spot")].concat();
    // Neither its region, nor its accelerator, nor its zone is in the snapshot.
    told_of.extend(failed("cloud/us/z1/H100-0/ondemand"));
    told_of.extend(failed("cloud/eu/z3/T4-0/ondemand"));
    let (book, now) = told(&told_of);
    let (snapshot, places) = (snapshot(), book.marked_places("cloud", now));
    assert!(places.len() > 2, "{places:?}");
    let is_in_one = |row: &Row| {
        let (id, gpus) = (snapshot.id_of(row), gpu_names(snapshot.machine(row)));
        Place::all_of(&id, &gpus).any(|place| places.contains_key(&place))
    };
    let marks = book.marks(&snapshot, now);
    for (number, row) in (0u32..).zip(snapshot.rows()) {
        let id = snapshot.id_of(row).render();
        assert_eq!(marks.contains_key(&number), is_in_one(row), "{id}");
    }
    assert!(marks.len() < snapshot.len());
}
