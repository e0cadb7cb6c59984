use super::*;

const NOTHING: [&str; 0] = [];

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What stands against a machine in region r1, on demand, at 2 dollars, with two labels.
fn against_here(constraints: &Constraints) -> Vec<String> {
    let labels = labels(&[("tier", "gold"), ("rack", "7")]);
    let here = Place {
        backend: Some("aws"),
        region: Some("r1"),
        zone: Some("r1-a"),
        labels: &labels,
        capacity_type: Some(CapacityType::OnDemand),
        price: Some(MicroUsd(2_000_000)),
    };
    words(constraints, &here)
}

fn words(constraints: &Constraints, place: &Place<'_>) -> Vec<String> {
    let answer = check(constraints, place);
    assert_eq!(answer.is_ok(), admits(constraints, place));
    let short = answer.err().unwrap_or_default();
    assert_eq!(short.is_empty(), admits(constraints, place));
    short.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_not_set_does_not_bind() {
    assert_eq!(only(|_| ()), NOTHING);
}

fn only(set: impl FnOnce(&mut Constraints)) -> Vec<String> {
    let mut constraints = Constraints::default();
    set(&mut constraints);
    against_here(&constraints)
}

#[test]
fn each_constraint_is_met() {
    assert_eq!(only(|c| c.backends = strings(&["gcp", "aws"])), NOTHING);
    assert_eq!(only(|c| c.regions = strings(&["r1"])), NOTHING);
    assert_eq!(only(|c| c.zones = strings(&["r1-b", "r1-a"])), NOTHING);
    assert_eq!(
        only(|c| c.labels = labels(&[("tier", "gold"), ("rack", "7")])),
        NOTHING
    );
    assert_eq!(
        only(|c| c.capacity_type = Some(CapacityType::OnDemand)),
        NOTHING
    );
    assert_eq!(only(|c| c.max_price = Some(MicroUsd(2_000_000))), NOTHING);
}

#[test]
fn each_constraint_binds_alone() {
    let backend = only(|c| c.backends = strings(&["gcp"]));
    assert_eq!(backend, ["needs backend gcp, is aws"]);
    let region = only(|c| c.regions = strings(&["r2", "r3"]));
    assert_eq!(region, ["needs region r2 or r3, is r1"]);
    let zone = only(|c| c.zones = strings(&["r1-b"]));
    assert_eq!(zone, ["needs zone r1-b, is r1-a"]);
    let value = only(|c| c.labels = labels(&[("tier", "iron")]));
    assert_eq!(value, ["needs label tier=iron, has tier=gold"]);
    let key = only(|c| c.labels = labels(&[("disk", "nvme")]));
    assert_eq!(key, ["needs label disk=nvme, has none of that key"]);
    let spot = only(|c| c.capacity_type = Some(CapacityType::Spot));
    assert_eq!(spot, ["needs spot capacity, is on-demand"]);
    let price = only(|c| c.max_price = Some(MicroUsd(1_999_999)));
    assert_eq!(
        price,
        ["needs a price of at most $1.999999 an hour, costs $2"]
    );
}

#[test]
fn what_is_not_known_meets_nothing_and_is_said() {
    let nothing = Labels::new();
    let unknown = Place {
        backend: None,
        region: None,
        zone: None,
        labels: &nothing,
        capacity_type: None,
        price: None,
    };
    let all = Constraints {
        backends: strings(&["aws"]),
        regions: strings(&["r1"]),
        zones: strings(&["r1-a"]),
        labels: labels(&[("tier", "gold")]),
        capacity_type: Some(CapacityType::Spot),
        max_price: Some(MicroUsd(1)),
    };
    let expected = [
        "needs backend aws, but its backend is not known",
        "needs region r1, but its region is not known",
        "needs zone r1-a, but its zone is not known",
        "needs spot capacity, but its capacity type is not known",
        "needs a price of at most $0.000001 an hour, but its price is not known",
        "needs label tier=gold, has none of that key",
    ];
    assert_eq!(words(&all, &unknown), expected);
}

#[test]
fn everything_that_stands_against_it_is_told() {
    let constraints = Constraints {
        regions: strings(&["r2"]),
        labels: labels(&[("a", "1"), ("tier", "x")]),
        ..Constraints::default()
    };
    assert_eq!(against_here(&constraints).len(), 3);
}

#[test]
fn capacity_types_are_read_and_printed() {
    for text in ["on-demand", "spot"] {
        assert_eq!(
            text.parse::<CapacityType>().map(|kind| kind.to_string()),
            Ok(text.to_owned())
        );
    }
    assert!(
        "any"
            .parse::<CapacityType>()
            .unwrap_err()
            .to_string()
            .contains("write on-demand or spot")
    );
}
