use super::*;
use crate::domain::offer::Source;
use crate::domain::snapshot::Snapshot;
use muster_model::quantity::MicroUsd;

fn load(sizes: &str) -> Snapshot {
    let mut builder = Builder::new("digitalocean", Source::Provider);
    let text = format!("{{\"sizes\":[{sizes}],\"links\":{{}},\"meta\":{{\"total\":9}}}}");
    assert_eq!(read(&mut builder, text.as_bytes()).unwrap(), None);
    builder.finish()
}

fn size(slug: &str, regions: &str, gpu: &str) -> String {
    format!(
        r#"{{"slug":"{slug}","price_hourly":0.00893,"price_monthly":6.0,"vcpus":2,"memory":2048,"disk":50,"available":true,
        "regions":[{regions}]{gpu}}}"#
    )
}

#[test]
fn sizes_are_offers_in_each_region() {
    let snapshot = load(&size("s-2vcpu-2gb", r#""nyc1","ams3""#, ""));
    assert_eq!(snapshot.len(), 2);
    let row = snapshot.row(0);
    assert_eq!(
        snapshot.id_of(row).render(),
        "digitalocean/ams3/s-2vcpu-2gb/ondemand"
    );
    assert_eq!(
        (row.price, row.availability),
        (Some(MicroUsd(8_930)), Availability::Available)
    );
    let machine = snapshot.machine(row);
    assert_eq!(
        (machine.cpu_milli, machine.memory_mib, machine.disk_mib),
        (Some(2000), Some(2048), Some(51_200))
    );
}

#[test]
fn a_size_in_no_region_has_no_capacity() {
    let snapshot = load(&size("gone", "", ""));
    assert_eq!(
        snapshot.id_of(snapshot.row(0)).render(),
        "digitalocean//gone/ondemand"
    );
    assert_eq!(snapshot.row(0).availability, Availability::NoCapacity);
    let closed = load(&size("closed", r#""nyc1""#, "").replace("true", "false"));
    assert_eq!(closed.row(0).availability, Availability::NoCapacity);
}

#[test]
fn accelerators_are_named_and_measured_one_by_one() {
    let gpu = |model: &str, count: u32, amount: &str, unit: &str| {
        let info = format!(
            r#","gpu_info":{{"count":{count},"model":"{model}","vram":{{"amount":{amount},"unit":"{unit}"}}}}"#
        );
        let snapshot = load(&size("gpu", r#""tor1""#, &info));
        let group = snapshot.machine(snapshot.row(0)).gpus[0].clone();
        (group.name.to_string(), group.count, group.memory_mib)
    };
    let h100 = |count| ("H100".to_owned(), count, Some(80 * 1024));
    assert_eq!(gpu("nvidia_h100", 1, "80", "gib"), h100(1));
    assert_eq!(gpu("nvidia_h100", 8, "640", "gib"), h100(8), "of all");
    assert_eq!(gpu("nvidia_h100", 8, "80.0", "GiB"), h100(8), "of one");
    assert_eq!(gpu("amd_mi300x", 8, "1572864", "mib").0, "MI300X");
    assert_eq!(
        gpu("nvidia_rtx6000_ada", 1, "48", "gib"),
        ("RTX6000-Ada".to_owned(), 1, Some(48 * 1024))
    );
    assert_eq!(
        gpu("nvidia_quantum9", 1, "500", "gib").0,
        "nvidia_quantum9",
        "unknown names pass through"
    );
}

#[test]
fn one_odd_size_costs_only_itself() {
    let sizes = [
        size("good", r#""nyc1""#, ""),
        size("a", r#"1"#, ""),
        size("b", r#""nyc1""#, "").replace("0.00893", "\"x\""),
        size("c", r#""nyc1""#, r#","gpu_info":{"model":"nvidia_h100"}"#),
        size(
            "d",
            r#""nyc1""#,
            r#","gpu_info":{"count":1,"model":"nvidia_h100","vram":{"amount":1,"unit":"acres"}}"#,
        ),
        size("e", r#""nyc1""#, "").replace("2048", "-1"),
        r#"{"slug":"f"}"#.to_owned(),
        "{}".to_owned(),
    ];
    let snapshot = load(&sizes.join(","));
    assert_eq!(
        (
            snapshot.len(),
            snapshot.intake().rows,
            snapshot.intake().skipped_rows()
        ),
        (1, 8, 7),
        "{:?}",
        snapshot.intake()
    );
}

#[test]
fn the_next_page_is_where_the_link_leads() {
    let mut builder = Builder::new("digitalocean", Source::Provider);
    let text =
        br#"{"sizes":[],"links":{"pages":{"last":"l","next":"https://api/v2/sizes?page=2"}}}"#;
    assert_eq!(
        read(&mut builder, text).unwrap().as_deref(),
        Some("https://api/v2/sizes?page=2")
    );
}
