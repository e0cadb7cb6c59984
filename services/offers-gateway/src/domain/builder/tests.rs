use super::*;
use crate::domain::offer::Availability;
use muster_model::gpu::GpuGroup;
use proptest::prelude::*;

fn machine(cpu_milli: u32) -> Machine {
    Machine {
        gpus: vec![GpuGroup::named("H100", 8)],
        cpu_milli: Some(cpu_milli),
        ..Machine::default()
    }
}

fn draft<'a>(
    region: &'a str,
    instance_type: &'a str,
    machine: &'a Machine,
    price: i64,
) -> Draft<'a> {
    Draft {
        region,
        zone: "",
        instance_type,
        capacity_type: CapacityType::OnDemand,
        machine,
        price: Some(MicroUsd(price)),
        availability: Availability::Available,
    }
}

#[test]
fn one_offer_stands_for_rows_that_say_the_same() {
    let (one, other) = (machine(1), machine(2));
    let mut builder = Builder::new("b", Source::Provider);
    assert_eq!(builder.add(&draft("r", "t", &one, 5), None), Added::New);
    assert_eq!(
        builder.add(&draft("r", "t", &one, 5), None),
        Added::Repeated
    );
    assert_eq!(
        builder.add(&draft("r", "t", &other, 4), None),
        Added::Conflict
    );
    assert_eq!(
        builder.add(&draft("r", "t", &one, 9), None),
        Added::Conflict
    );
    let snapshot = builder.finish();
    assert_eq!(snapshot.len(), 1);
    assert_eq!(snapshot.row(0).price, Some(MicroUsd(4)), "the cheaper one");
    assert_eq!(snapshot.machine(snapshot.row(0)), &other);
}

#[test]
fn a_name_that_cannot_be_shown_is_skipped_and_counted() {
    let (long, machine) = ("x".repeat(257), machine(1));
    let mut builder = Builder::new("b", Source::Catalog);
    for (region, instance_type) in [("r", long.as_str()), (&long, "t"), ("r", "t\u{1b}[2J")] {
        let row = draft(region, instance_type, &machine, 0);
        let added = builder.add_priced(&row, Some(MicroUsd(1)), None, None);
        builder.tally(added, || "line 1".to_owned());
    }
    let mut carries = machine.clone();
    carries.gpus = vec![GpuGroup::named(&long, 1)];
    let added = builder.add(&draft("r", "t", &carries, 1), None);
    assert!(matches!(added, Added::Refused(_)));
    assert_eq!((builder.len(), builder.intake.skipped_rows()), (0, 3));
    let fits = draft("r", &long[..256], &machine, 1);
    assert_eq!(builder.add(&fits, None), Added::New);
}

#[test]
fn a_row_that_adds_a_price_to_what_was_said_is_a_new_offer() {
    let machine = machine(1);
    let mut builder = Builder::new("b", Source::Catalog);
    let (row, one) = (draft("r", "t", &machine, 0), Some(MicroUsd(1)));
    builder.add_priced(&row, one, None, None);
    assert_eq!(builder.add_priced(&row, one, one, None), Some(Added::New));
}

#[test]
fn a_row_without_any_price_is_no_offer() {
    let machine = machine(1);
    let mut builder = Builder::new("b", Source::Catalog);
    let row = draft("r", "t", &machine, 0);
    let added = builder.add_priced(&row, None, None, None);
    builder.tally(added, || "line 1".to_owned());
    let added = builder.add_priced(&row, None, Some(MicroUsd(3)), None);
    builder.tally(added, || "line 2".to_owned());
    assert_eq!(builder.intake.skipped_rows(), 1);
    let snapshot = builder.finish();
    assert_eq!(snapshot.id_of(snapshot.row(0)).render(), "b/r/t/spot");
    assert_eq!(
        snapshot.row(0).availability,
        Availability::Unknown,
        "it is a price list"
    );
}

#[test]
fn raw_fields_are_kept_with_their_keys() {
    let machine = machine(1);
    let mut builder = Builder::new("b", Source::Catalog);
    let raw = builder.raw([("Price", "1.5"), ("Empty", ""), ("Region", "eu")].into_iter());
    builder.add(&draft("eu", "t", &machine, 1), raw);
    let raw = builder.raw([("Region", "us")].into_iter());
    builder.add(&draft("us", "t", &machine, 2), raw);
    let snapshot = builder.finish();
    assert_eq!(
        snapshot.raw_of(snapshot.row(0)),
        [("Price", "1.5"), ("Region", "eu")]
    );
    assert_eq!(snapshot.raw_of(snapshot.row(1)), [("Region", "us")]);
}

#[test]
fn unknown_accelerators_are_listed() {
    let odd = Machine {
        gpus: vec![GpuGroup::named("Quantum9", 1)],
        ..Machine::default()
    };
    let mut builder = Builder::new("b", Source::Catalog);
    builder.add(&draft("r", "t", &odd, 1), None);
    builder.add(&draft("r", "u", &machine(1), 1), None);
    let snapshot = builder.finish();
    assert_eq!(
        snapshot.intake().unknown_gpus.iter().collect::<Vec<_>>(),
        ["Quantum9"]
    );
    let found = snapshot.machines_with_gpu(|name| name.as_str() == "Quantum9");
    assert_eq!(found.len(), 1);
    assert_eq!(snapshot.rows_of(found[0]), [0]);
}

type Place = (String, String, String, bool, Option<i64>);

fn places() -> impl Strategy<Value = Vec<Place>> {
    let word = || "[a-b%/ .-]{0,3}|spot|ondemand|spot-1";
    let price = proptest::option::of(0i64..4);
    proptest::collection::vec((word(), word(), word(), any::<bool>(), price), 0..40)
}

proptest! {
    /// The order of rows is that of (price, id as text), and every id finds its row.
    #[test]
    fn rows_are_in_order_of_price_and_id(places in places()) {
        let machine = machine(1);
        let mut builder = Builder::new("b", Source::Catalog);
        for (region, zone, instance_type, spot, price) in &places {
            let capacity_type = if *spot { CapacityType::Spot } else { CapacityType::OnDemand };
            let price = price.map(MicroUsd);
            builder.add(&Draft { zone, capacity_type, price, ..draft(region, instance_type, &machine, 0) }, None);
        }
        let snapshot = builder.finish();
        let keys: Vec<(i64, String)> =
            snapshot.rows().iter().map(|row| (price_key(row.price), snapshot.id_of(row).render())).collect();
        prop_assert!(keys.is_sorted(), "{keys:?}");
        for (number, (_, id)) in (0u32..).zip(&keys) {
            let parsed = id::parse(id);
            // A zone that looks like nothing cannot be told from none; it is not made by any source.
            let found = parsed.as_ref().and_then(|id| snapshot.find(id));
            prop_assert_eq!(found, Some(number), "{}", id);
        }
    }
}

#[test]
fn of_a_row_with_more_fields_than_can_be_shown_some_are_kept() {
    let machine = machine(1);
    let mut builder = Builder::new("b", Source::Provider);
    let (long, many) = ("x".repeat(1024), 0..20_000);
    let names: Vec<String> = many.map(|number| format!("field{number}")).collect();
    let fields = names.iter().map(|name| (name.as_str(), long.as_str()));
    let endless = "n".repeat(1 << 20);
    let fields = [(endless.as_str(), "1")].into_iter().chain(fields);
    let raw = builder.raw(fields.chain([("last", "1")]));
    builder.add(&draft("r", "t", &machine, 5), raw);
    let snapshot = builder.finish();
    let kept = snapshot.raw_of(snapshot.row(0));
    let size: usize = kept
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    assert!(size <= 64 << 10, "{size} bytes");
    assert_eq!(kept.first().unwrap().0, "field0");
    assert_eq!(kept.last().unwrap(), &("last", "1"), "there is room for it");
}
