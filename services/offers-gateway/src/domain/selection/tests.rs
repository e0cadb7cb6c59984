use std::sync::Arc;
use std::time::{Duration, SystemTime};

use muster_model::constraints::CapacityType;
use muster_model::gpu::GpuGroup;
use muster_model::quantity::MicroUsd;
use muster_model::requirements::{Bounds, GpuRequest};
use proptest::prelude::*;
use rustc_hash::FxHashMap;

use super::*;
use crate::domain::builder::Builder;
use crate::domain::group::{self, By, price_per_gpu};
use crate::domain::market::Mark;
use crate::domain::offer::{Availability, Draft, Source};

#[derive(Clone, Debug)]
struct Made {
    region: String,
    instance_type: String,
    spot: bool,
    gpu: Option<(&'static str, u32, u32)>,
    memory_mib: Option<u32>,
    price: Option<i64>,
    availability: Availability,
}

fn made() -> impl Strategy<Value = Made> {
    let gpu = (
        prop_oneof![Just("H100"), Just("A100"), Just("T4"), Just("Odd")],
        1u32..4,
        prop_oneof![Just(1000u32), Just(500)],
    );
    let availability = prop_oneof![
        Just(Availability::Available),
        Just(Availability::Unknown),
        Just(Availability::NoCapacity)
    ];
    let memory = prop_oneof![Just(None), (1u32..3).prop_map(|gib| Some(gib * 1024))];
    (
        "r[0-2]",
        "t[0-5]",
        any::<bool>(),
        proptest::option::of(gpu),
        memory,
        proptest::option::of(0i64..6),
        availability,
    )
        .prop_map(
            |(region, instance_type, spot, gpu, memory_mib, price, availability)| Made {
                region,
                instance_type,
                spot,
                gpu,
                memory_mib,
                price,
                availability,
            },
        )
}

fn snapshot(backend: &str, offers: &[Made]) -> Snapshot {
    let mut builder = Builder::new(backend, Source::Provider);
    for offer in offers {
        let gpus = offer
            .gpu
            .iter()
            .map(|(name, count, share)| GpuGroup::observed(name, *count, None, *share))
            .collect();
        let machine = Machine {
            gpus,
            memory_mib: offer.memory_mib,
            ..Machine::default()
        };
        let draft = Draft {
            region: &offer.region,
            zone: "",
            instance_type: &offer.instance_type,
            capacity_type: if offer.spot {
                CapacityType::Spot
            } else {
                CapacityType::OnDemand
            },
            machine: &machine,
            price: offer.price.map(MicroUsd),
            availability: offer.availability,
        };
        builder.add(&draft, None);
    }
    builder.finish()
}

/// Some marks, so that shown prices and availabilities differ from the snapshots'.
fn marks(snapshot: &Snapshot, every: u32) -> FxHashMap<RowNumber, Mark> {
    let rows = (0u32..)
        .take(snapshot.len())
        .filter(|row| every > 0 && row % every == 0);
    rows.map(|row| {
        (
            row,
            Mark {
                availability: Some(Availability::NoQuota),
                price: (row % 2 == 0).then_some(MicroUsd(3)),
            },
        )
    })
    .collect()
}

fn market(parts: &[Vec<Made>], every: u32) -> Market {
    let names = ["b", "b-1", "a"];
    let shelves = parts
        .iter()
        .zip(names)
        .zip(0u64..)
        .map(|((offers, name), age)| {
            let snapshot = snapshot(name, offers);
            let marks = marks(&snapshot, every);
            let observed = SystemTime::UNIX_EPOCH + Duration::from_secs(age % 2);
            Shelf::new(Arc::new(snapshot), observed, Arc::new(marks))
        });
    Market::new(shelves.collect())
}

fn markets() -> impl Strategy<Value = Market> {
    let parts = proptest::collection::vec(proptest::collection::vec(made(), 0..14), 0..=3);
    (parts, 0u32..4).prop_map(|(parts, every)| market(&parts, every))
}

fn requirements() -> impl Strategy<Value = Requirements> {
    let names = prop_oneof![Just(vec![]), Just(vec!["H100"]), Just(vec!["a100", "T4"])];
    let request = (names, 0u32..3, proptest::option::of(Just(400u32)));
    let requests = proptest::collection::vec(request, 0..3);
    (requests, prop_oneof![Just(0u32), Just(1024), Just(2048)]).prop_map(
        |(requests, memory_mib)| {
            let gpu_any_of = requests
                .into_iter()
                .map(|(names, count, share_milli)| GpuRequest {
                    names: names
                        .into_iter()
                        .map(muster_model::gpu::canonical)
                        .collect(),
                    count: if count == 0 {
                        Bounds::ANY
                    } else {
                        Bounds::exactly(count)
                    },
                    share_milli,
                    ..GpuRequest::default()
                });
            Requirements {
                gpu_any_of: gpu_any_of.collect(),
                memory_mib,
                ..Requirements::default()
            }
        },
    )
}

fn filters() -> impl Strategy<Value = Filter> {
    let texts = |pattern: &'static str| proptest::collection::vec(pattern, 0..3);
    let known = vec![
        Availability::NoQuota,
        Availability::Unknown,
        Availability::Available,
    ];
    let availabilities = proptest::sample::subsequence(known, 0..3);
    let kind = prop_oneof![
        Just(None),
        Just(Some(CapacityType::Spot)),
        Just(Some(CapacityType::OnDemand))
    ];
    let price = || proptest::option::of((0i64..6).prop_map(MicroUsd));
    let backends = proptest::sample::subsequence(vec!["a".to_owned(), "b".to_owned()], 0..3);
    let places = (texts("r[0-3]"), texts("t[0-6]"), backends);
    (
        requirements(),
        places,
        availabilities,
        kind,
        price(),
        price(),
    )
        .prop_map(
            |(
                requirements,
                (regions, instance_types, backends),
                availabilities,
                capacity_type,
                min_price,
                max_price,
            )| {
                let zones = Vec::new();
                Filter {
                    backends,
                    regions,
                    zones,
                    instance_types,
                    requirements,
                    capacity_type,
                    min_price,
                    max_price,
                    availabilities,
                }
            },
        )
}

fn orders() -> impl Strategy<Value = Order> {
    let keys = prop_oneof![
        Just(Key::Price),
        Just(Key::PricePerGpu),
        Just(Key::PricePerGpuGib),
        Just(Key::Memory),
        Just(Key::Age)
    ];
    let directions = prop_oneof![Just(Direction::Ascending), Just(Direction::Descending)];
    (keys, directions).prop_map(|(key, direction)| Order { key, direction })
}

/// Everything that is on offer, looked at one by one.
fn all(market: &Market) -> Vec<Hit> {
    let shelves = (0u32..).zip(market.shelves());
    shelves
        .flat_map(|(shelf, rows)| {
            (0u32..)
                .take(rows.snapshot.len())
                .map(move |row| Hit { shelf, row })
        })
        .collect()
}

fn shelf_of(market: &Market, hit: Hit) -> &Shelf {
    &market.shelves()[hit.shelf as usize]
}

/// The order as the contract words it, with exact fractions.
fn compare(market: &Market, order: Order, a: Hit, b: Hit) -> Ordering {
    let known = |hit: Hit| {
        let shelf = shelf_of(market, hit);
        let row = shelf.snapshot.row(hit.row);
        let machine = shelf.snapshot.machine(row);
        let price = shelf
            .shown(hit.row, row)
            .price
            .map(|price| i128::from(price.0));
        let value: Option<(i128, i128)> = match order.key {
            Key::Price => price.map(|price| (price, 1)),
            Key::PricePerGpu => {
                price.zip(Some(i128::from(machine.gpu_milli())).filter(|milli| *milli > 0))
            }
            Key::PricePerGpuGib => price.zip(machine.gpu_memory_mib().map(i128::from)),
            Key::Memory => machine.memory_mib.map(|memory| (i128::from(memory), 1)),
            Key::Age => {
                let age = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
                let age = age.duration_since(shelf.observed).unwrap();
                Some((i128::try_from(age.as_nanos()).unwrap(), 1))
            }
        };
        (value, price, shelf.snapshot.id_of(row).render())
    };
    let ((a, price_a, id_a), (b, price_b, id_b)) = (known(a), known(b));
    let by_key = match (a, b) {
        (Some(a), Some(b)) => {
            let ascending = (a.0 * b.1).cmp(&(b.0 * a.1));
            if order.direction == Direction::Descending {
                ascending.reverse()
            } else {
                ascending
            }
        }
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    let price = |price: Option<i128>| price.unwrap_or(i128::MAX);
    by_key
        .then(price(price_a).cmp(&price(price_b)))
        .then(id_a.cmp(&id_b))
}

proptest! {
    #[test]
    fn merged_order_is_a_sort_of_everything(market in markets(), order in orders()) {
        let mut expected = all(&market);
        expected.sort_by(|a, b| compare(&market, order, *a, *b));
        prop_assert_eq!(select(&market, &Filter::default(), order).hits, expected);
    }

    #[test]
    fn a_filter_finds_what_a_scan_finds(market in markets(), filter in filters(), order in orders()) {
        let mut expected: Vec<Hit> = all(&market).into_iter().filter(|hit| meets(shelf_of(&market, *hit), hit.row, &filter)).collect();
        expected.sort_by(|a, b| compare(&market, order, *a, *b));
        let found = select(&market, &filter, order);
        for (shelf, matched) in (0u32..).zip(&found.matched) {
            let of_shelf = expected.iter().filter(|hit| hit.shelf == shelf).count();
            prop_assert_eq!(*matched as usize, of_shelf);
        }
        prop_assert_eq!(found.hits, expected);
    }

    #[test]
    fn groups_add_up(market in markets(), filter in filters()) {
        let found = select(&market, &filter, Order::default());
        for by in [By::Gpu, By::Backend, By::Region] {
            let groups = group::group(&market, &found, by);
            let offers: usize = groups.values().map(|group| group.offers as usize).sum();
            prop_assert_eq!(offers, found.hits.len());
            let cheapest = groups.values().filter_map(|group| group.min_price).min();
            let first = found.hits.first().and_then(|hit| {
                let shelf = shelf_of(&market, *hit);
                shelf.shown(hit.row, shelf.snapshot.row(hit.row)).price
            });
            prop_assert_eq!(cheapest, first);
        }
    }
}

#[test]
fn groups_say_who_has_what_at_which_price() {
    let offer = |instance_type: &str, gpu, price| Made {
        region: "r1".to_owned(),
        instance_type: instance_type.to_owned(),
        spot: false,
        gpu,
        memory_mib: None,
        price,
        availability: Availability::Unknown,
    };
    let first = vec![
        offer("t1", Some(("H100", 2, 1000)), Some(10)),
        offer("t2", None, Some(1)),
        offer("t3", None, None),
    ];
    let second = vec![offer("t1", Some(("H100", 1, 1000)), Some(6))];
    let market = market(&[first, second], 0);
    let groups = group::group(
        &market,
        &select(&market, &Filter::default(), Order::default()),
        By::Gpu,
    );
    let h100 = &groups["H100"];
    assert_eq!((h100.offers, h100.regions), (2, 2));
    assert_eq!(
        (h100.min_price, h100.max_price),
        (Some(MicroUsd(6)), Some(MicroUsd(10)))
    );
    assert_eq!(h100.min_price_per_gpu, Some(MicroUsd(5)));
    assert_eq!(h100.backends.iter().collect::<Vec<_>>(), ["b", "b-1"]);
    assert_eq!(groups[group::NO_GPU].min_price_per_gpu, None);
    let share = Machine {
        gpus: vec![GpuGroup::observed("A10", 1, None, 500)],
        ..Machine::default()
    };
    assert_eq!(price_per_gpu(&share, MicroUsd(3)), Some(MicroUsd(6)));
}
