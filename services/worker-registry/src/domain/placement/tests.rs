use std::collections::BTreeSet;
use std::sync::Arc;

use muster_model::constraints::Constraints;
use muster_model::requirements::{GpuRequest, fits};
use proptest::prelude::*;

use super::*;
use crate::domain::book::Book;
use crate::domain::decide;
use crate::domain::fixture::{
    EPOCH, allocate, ask, at, book, by, item, join, join_with, lose, machine, take, unconditionally,
};
use crate::domain::liveness::Liveness;
use crate::domain::machine::{Machine, common_labels};
use crate::domain::worker::Worker;

fn found(book: &Book, ask: &Ask) -> Option<String> {
    find(book.fleet(), book.index(), ask, &[]).map(|site| site.worker.to_string())
}

fn fill(book: &mut Book, worker: &str, count: u32) {
    let only = Ask {
        worker: Some(worker.into()),
        ..ask("H100", count)
    };
    let id = format!("fill-{worker}-{count}-{}", book.next_revision());
    allocate(book, &item(&id, only)).unwrap();
}

#[test]
fn small_asks_go_where_the_fewest_stay_free() {
    let mut book = book();
    for name in ["w1", "w2", "w3"] {
        join(&mut book, name, &[("H100", 8)]);
    }
    fill(&mut book, "w2", 5);
    fill(&mut book, "w3", 7);
    assert_eq!(found(&book, &ask("H100", 1)).as_deref(), Some("w3"));
    assert_eq!(found(&book, &ask("H100", 2)).as_deref(), Some("w2"));
    assert_eq!(found(&book, &ask("H100", 4)).as_deref(), Some("w1"));
    assert_eq!(found(&book, &ask("H100", 9)), None);
    assert_eq!(found(&book, &ask("A100", 1)), None);
}

#[test]
fn what_needs_no_accelerator_goes_where_none_is_free() {
    let mut book = book();
    join(&mut book, "gpu", &[("H100", 8)]);
    join(&mut book, "plain", &[]);
    assert_eq!(found(&book, &ask("H100", 0)).as_deref(), Some("plain"));
    fill(&mut book, "gpu", 8);
    let busy = Ask {
        avoid_workers: vec!["plain".into()],
        ..ask("H100", 0)
    };
    assert_eq!(found(&book, &busy).as_deref(), Some("gpu"));
}

#[test]
fn alternatives_are_taken_in_their_order() {
    let mut book = book();
    join(&mut book, "a", &[("A100-80GB", 8)]);
    join(&mut book, "h", &[("H100", 8)]);
    let mut either = ask("H100", 1);
    either
        .requirements
        .gpu_any_of
        .push(GpuRequest::named("A100-80GB"));
    assert_eq!(found(&book, &either).as_deref(), Some("h"));
    fill(&mut book, "h", 8);
    let site = find(book.fleet(), book.index(), &either, &[]).unwrap();
    assert_eq!((&*site.worker, site.taken.gpus.len()), ("a", 1));
}

#[test]
fn one_key_spreads_over_workers_before_it_packs() {
    let mut book = book();
    for name in ["w1", "w2", "w3"] {
        join(&mut book, name, &[("H100", 8)]);
    }
    let mut taken = Vec::new();
    for number in 0..6 {
        let ask = Ask {
            spread_key: "chat".into(),
            ..ask("H100", 1)
        };
        taken.push(
            allocate(&mut book, &item(&format!("r{number}"), ask))
                .unwrap()
                .worker
                .to_string(),
        );
    }
    let first: BTreeSet<_> = taken[..3].iter().collect();
    let second: BTreeSet<_> = taken[3..].iter().collect();
    assert_eq!((first.len(), second.len()), (3, 3), "{taken:?}");
}

#[test]
fn what_may_not_be_there_is_not_put_there() {
    let mut book = book();
    let mut far = machine("far", &[("H100", 8)]);
    far.region = "us".into();
    far.labels = common_labels([("tier".to_owned(), "gold".to_owned())].into());
    join_with(&mut book, "far", far);
    join(&mut book, "near", &[("H100", 8)]);
    let constrained = |constraints| Ask {
        constraints,
        ..ask("H100", 1)
    };
    let in_us = Constraints {
        regions: vec!["us".to_owned()],
        ..Constraints::default()
    };
    assert_eq!(found(&book, &constrained(in_us)).as_deref(), Some("far"));
    let gold = Constraints {
        labels: [("tier".to_owned(), "gold".to_owned())].into(),
        ..Constraints::default()
    };
    assert_eq!(found(&book, &constrained(gold)).as_deref(), Some("far"));
    let cheap = Constraints {
        max_price: Some(muster_model::quantity::MicroUsd(1)),
        ..Constraints::default()
    };
    assert_eq!(found(&book, &constrained(cheap)), None);
    let not_us = Ask {
        avoid_regions: vec!["us".into()],
        ..ask("H100", 1)
    };
    assert_eq!(found(&book, &not_us).as_deref(), Some("near"));
}

#[test]
fn a_host_port_is_given_once_on_a_worker() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let port = |port| Ask {
        host_ports: vec![port],
        ..ask("H100", 1)
    };
    allocate(&mut book, &item("r1", port(8000))).unwrap();
    assert_eq!(found(&book, &port(8000)), None);
    assert_eq!(found(&book, &port(8001)).as_deref(), Some("w1"));
}

#[test]
fn a_silent_or_lost_worker_gets_nothing_new() {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    book.set_suspect(&"w1".into(), true);
    assert_eq!(found(&book, &ask("H100", 1)), None);
    book.set_suspect(&"w1".into(), false);
    assert_eq!(found(&book, &ask("H100", 1)).as_deref(), Some("w1"));
    lose(&mut book, "w1");
    assert_eq!(found(&book, &ask("H100", 1)), None);
}

#[test]
fn refusals_are_grouped_with_what_the_closest_lacks() {
    let mut book = book();
    for place in 0..7 {
        let name = format!("small-{place}");
        join(&mut book, &name, &[("H100", 1 + place % 2)]);
    }
    join(&mut book, "off", &[("H100", 8)]);
    let disabled =
        decide::disable(&book, &"off".into(), false, &by(), &unconditionally, at(9)).unwrap();
    take(disabled, &mut book);
    join(&mut book, "quiet", &[("H100", 8)]);
    let liveness = |worker: &Worker| match &*worker.name {
        "quiet" => Liveness::Suspect,
        _ => Liveness::Alive,
    };
    let asked = ask("H100", 4);
    let mut survey = Survey::new(&asked, EPOCH);
    let workers = book.fleet().workers();
    workers.for_each(|entry| survey.look_at(entry, liveness));
    let refusals = survey.refusals();
    let counts: Vec<_> = refusals
        .iter()
        .map(|group| (group.reason, group.count))
        .collect();
    assert_eq!(counts, [("GPU", 7), ("SUSPECT", 1), ("WRONG_STATE", 1)]);
    assert_eq!(refusals[0].workers.len(), 5);
    assert_eq!(&*refusals[0].workers[0], "small-0");
    let short = refusals[0].shortfall.as_ref().unwrap();
    assert!(
        short.requested().contains('4') && short.available().contains('2'),
        "{short}"
    );
    assert!(
        summary(&refusals).starts_with("7 workers: needs 4"),
        "{}",
        summary(&refusals)
    );
}

/// What a search without an index would find: all workers, looked at one by one.
fn naive(book: &Book, ask: &Ask) -> Option<(u32, u32)> {
    let fleet = book.fleet();
    let takes_work = fleet
        .workers()
        .filter(|entry| book.index().contains(&entry.worker.name));
    let ranks = takes_work.filter_map(|entry| {
        let room = ask.room(entry, &[]);
        assert_eq!(
            ask.take(entry, &[]).is_some(),
            fits(&ask.requirements, &room.capacity)
        );
        let taken = ask.take(entry, &[])?;
        Some((
            fleet.spread().count(&ask.spread_key, &entry.worker.name),
            taken.left,
        ))
    });
    ranks.min()
}

proptest! {
    #[test]
    fn the_index_finds_as_good_a_place_as_looking_at_every_worker(
        workers in prop::collection::vec((0_usize..9, 0_usize..5, 1_u32..65), 1..12),
        asks in prop::collection::vec((0_u32..9, any::<bool>(), 0_u32..40, 0_usize..3), 1..40),
    ) {
        let mut book = book();
        for (place, (h100, a100, cpus)) in workers.into_iter().enumerate() {
            let name = format!("w{place}");
            let machine = machine(&name, &[("H100", h100), ("A100-80GB", a100)]);
            join_with(&mut book, &name, Machine { cpu_milli: cpus * 1000, ..machine });
        }
        for (number, (count, any_kind, cpus, key)) in asks.into_iter().enumerate() {
            let mut ask = ask("H100", count);
            ask.requirements.cpu_milli = cpus * 1000;
            ask.spread_key = ["", "a", "b"][key].into();
            if any_kind && let Some(request) = ask.requirements.gpu_any_of.first_mut() {
                request.names.clear();
            }
            let expected = naive(&book, &ask);
            let site = find(book.fleet(), book.index(), &ask, &[]);
            let rank = site.as_ref().map(|site| {
                (book.fleet().spread().count(&ask.spread_key, &site.worker), site.taken.left)
            });
            prop_assert_eq!(rank, expected, "ask {}", number);
            if site.is_some() {
                let made = allocate(&mut book, &item(&format!("r{number}"), ask)).unwrap();
                prop_assert_eq!(made.gpus.len(), usize::try_from(count).unwrap());
            }
        }
        for entry in book.fleet().workers() {
            let mut seen = BTreeSet::new();
            for uuid in entry.allocations().iter().flat_map(|one| &one.gpus) {
                prop_assert!(seen.insert(Arc::clone(uuid)), "given twice: {uuid}");
            }
        }
    }
}
