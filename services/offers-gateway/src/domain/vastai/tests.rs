use super::*;
use crate::domain::offer::Source;
use crate::domain::snapshot::Snapshot;
use muster_model::constraints::CapacityType;
use muster_model::requirements::Arch;

fn load(offers: &str) -> (Snapshot, Page) {
    let mut builder = Builder::new("vastai", Source::Provider);
    let text = format!("{{\"success\":true,\"offers\":[{offers}]}}");
    let page = read(&mut builder, text.as_bytes()).unwrap();
    (builder.finish(), page)
}

const WHOLE: &str = r#"{"id": 12345678901, "num_gpus": 2, "gpu_name": "RTX 4090", "gpu_ram": 24564,
    "cpu_cores": 64, "cpu_cores_effective": 16.0, "cpu_ram": 257840, "disk_space": 500.5, "cpu_arch": "amd64",
    "dph_base": 0.7, "dph_total": 0.81, "storage_cost": 0.15, "min_bid": 0.3, "geolocation": "Texas, US",
    "rentable": true, "rented": false, "reliability2": 0.99, "new_field": {"x": 1}}"#;

#[test]
fn a_machine_is_an_offer_on_demand_and_spot_with_its_storage() {
    let (snapshot, page) = load(WHOLE);
    assert_eq!(
        page,
        Page {
            offers: 1,
            last: Some(0.81)
        }
    );
    let ids: Vec<String> = snapshot
        .rows()
        .iter()
        .map(|row| snapshot.id_of(row).render())
        .collect();
    assert_eq!(
        ids,
        [
            "vastai/Texas%2C%20US/12345678901/spot",
            "vastai/Texas%2C%20US/12345678901/ondemand"
        ]
    );
    let row = snapshot.row(1);
    // 500.5 GB at 0.15 dollars a month of 720 hours are 104,271 millionths an hour.
    assert_eq!(row.price, Some(MicroUsd(804_271)));
    assert_eq!(
        (snapshot.row(0).capacity_type, snapshot.row(0).price),
        (CapacityType::Spot, Some(MicroUsd(404_271)))
    );
    assert_eq!(row.availability, Availability::Available);
    let machine = snapshot.machine(row);
    assert_eq!(
        (machine.cpu_milli, machine.memory_mib, machine.disk_mib),
        (Some(16_000), Some(64_460), Some(512_512))
    );
    let group = &machine.gpus[0];
    assert_eq!(
        (group.name.as_str(), group.count, group.memory_mib),
        ("RTX4090", 2, Some(24 * 1024))
    );
    assert_eq!(machine.arch, Some(Arch::X86_64));
    assert!(snapshot.raw_of(row).contains(&("reliability2", "0.99")));
}

#[test]
fn availability_is_what_they_say_and_no_more() {
    let said = |flags: &str| {
        let (snapshot, _) = load(&format!(
            r#"{{"id":1,"num_gpus":0,"dph_base":1,"storage_cost":0,"disk_space":1{flags}}}"#
        ));
        snapshot.row(0).availability
    };
    assert_eq!(said(""), Availability::Unknown);
    assert_eq!(said(r#","rentable":true"#), Availability::Available);
    assert_eq!(
        said(r#","rentable":true,"rented":true"#),
        Availability::NoCapacity
    );
    assert_eq!(
        said(r#","rentable":false,"rented":false"#),
        Availability::NoCapacity
    );
    assert_eq!(said(r#","rentable":"yes""#), Availability::Unknown);
}

#[test]
fn one_odd_row_costs_only_itself() {
    let odd = [
        r#"{"id":1}"#,
        r#"{"id":2,"num_gpus":"two","dph_base":1}"#,
        r#"{"id":3,"num_gpus":1,"gpu_ram":1,"dph_base":1}"#,
        r#"{"id":4,"num_gpus":0,"dph_base":"free","storage_cost":0,"disk_space":1}"#,
        r#"{"id":5,"num_gpus":0,"dph_base":1,"disk_space":9}"#,
        r#"{"id":6,"num_gpus":0,"dph_base":-1,"storage_cost":0,"disk_space":1}"#,
        r#"{"id":7,"num_gpus":0,"dph_base":0,"storage_cost":0,"disk_space":1,"min_bid":0}"#,
        r#"{"id":8,"num_gpus":0,"dph_base":1,"storage_cost":0,"disk_space":99999999999}"#,
        r#"{"num_gpus":0,"dph_base":1,"storage_cost":0,"disk_space":1}"#,
        "null",
        "7",
        "[]",
    ];
    let (snapshot, page) = load(&format!("{},{WHOLE}", odd.join(",")));
    let intake = snapshot.intake();
    assert_eq!(
        (snapshot.len(), page.offers, intake.rows),
        (2, 13, 13),
        "{intake:?}"
    );
    assert_eq!(intake.skipped_rows(), 12, "{intake:?}");
    assert_eq!(
        intake.skipped["there is no storage_cost"].example,
        "offers 4"
    );
    assert_eq!(intake.skipped["no price"].count, 1);
}

#[test]
fn pages_are_asked_for_by_price() {
    let first: serde_json::Value = serde_json::from_str(&question(None, 3000)).unwrap();
    assert_eq!(
        (first["limit"].as_u64(), first.get("dph_total")),
        (Some(3000), None)
    );
    assert_eq!(first["order"][0][0], "dph_total");
    let next: serde_json::Value = serde_json::from_str(&question(Some(0.25), 3000)).unwrap();
    assert_eq!(next["dph_total"]["gte"], 0.25);
}
