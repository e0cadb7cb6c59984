use super::*;
use crate::domain::offer::Source;
use crate::domain::snapshot::Snapshot;
use muster_model::quantity::MicroUsd;
use muster_model::requirements::Arch;

fn load(types: &str) -> Snapshot {
    let mut builder = Builder::new("lambda", Source::Provider);
    read(&mut builder, format!("{{\"data\":{{{types}}}}}").as_bytes()).unwrap();
    builder.finish()
}

fn kind(name: &str, description: &str, regions: &str) -> String {
    format!(
        r#""{name}":{{"instance_type":{{"name":"{name}","description":"{description}","price_cents_per_hour":2392,
        "specs":{{"vcpus":208,"memory_gib":1800,"storage_gib":22000}}}},"regions_with_capacity_available":[{regions}]}}"#
    )
}

#[test]
fn each_region_with_capacity_is_an_available_offer() {
    let regions = r#"{"name":"us-west-1","description":"x"},{"name":"us-east-1"}"#;
    let snapshot = load(&kind("gpu_8x_h100_sxm5", "8x H100 (80 GB SXM5)", regions));
    let ids: Vec<String> = snapshot
        .rows()
        .iter()
        .map(|row| snapshot.id_of(row).render())
        .collect();
    assert_eq!(
        ids,
        [
            "lambda/us-east-1/gpu_8x_h100_sxm5/ondemand",
            "lambda/us-west-1/gpu_8x_h100_sxm5/ondemand"
        ]
    );
    let row = snapshot.row(0);
    assert_eq!(
        (row.price, row.availability),
        (Some(MicroUsd(23_920_000)), Availability::Available)
    );
    let machine = snapshot.machine(row);
    assert_eq!(
        (machine.cpu_milli, machine.memory_mib, machine.disk_mib),
        (Some(208_000), Some(1_843_200), Some(22_528_000))
    );
    let group = &machine.gpus[0];
    assert_eq!(
        (group.name.as_str(), group.count, group.memory_mib),
        ("H100", 8, Some(80 * 1024))
    );
    assert_eq!(snapshot.intake().rows, 1);
}

#[test]
fn without_capacity_anywhere_it_is_told_as_such() {
    let snapshot = load(&kind("gpu_1x_gh200", "1x GH200 (96 GB)", ""));
    let row = snapshot.row(0);
    assert_eq!(
        snapshot.id_of(row).render(),
        "lambda//gpu_1x_gh200/ondemand"
    );
    assert_eq!(row.availability, Availability::NoCapacity);
    assert_eq!(snapshot.machine(row).arch, Some(Arch::Arm64));
}

#[test]
fn descriptions_are_taken_apart() {
    let carried = |description: &str| {
        let snapshot = load(&kind("t", description, ""));
        let gpus = snapshot
            .rows()
            .first()
            .map(|row| snapshot.machine(row).gpus.clone());
        gpus.map(|gpus| {
            gpus.first()
                .map(|group| (group.name.to_string(), group.count))
        })
    };
    let of = |name: &str, count| Some(Some((name.to_owned(), count)));
    assert_eq!(carried("1x A100 (40 GB SXM4)"), of("A100", 1));
    assert_eq!(carried("8x A100 (80 GB SXM4)"), of("A100-80GB", 8));
    assert_eq!(carried("8x Tesla V100 (16 GB)"), of("V100", 8));
    assert_eq!(carried("1x RTX 6000 (24 GB)"), of("RTX6000", 1));
    assert_eq!(carried("16x B200 (180 GiB SXM6)"), of("B200", 16));
    assert_eq!(carried("4x CPU General (16 GiB)"), Some(None));
    assert_eq!(carried("something new"), None, "skipped, not guessed");
    assert_eq!(carried("99999999999x H100 (80 GB)"), None);
}

#[test]
fn one_odd_type_costs_only_itself() {
    let types = [
        kind("good", "1x A10 (24 GB PCIe)", ""),
        r#""a":{}"#.to_owned(),
        r#""b":{"instance_type":{"name":"b","description":"1x A10 (24 GB)","specs":{}},"regions_with_capacity_available":[]}"#.to_owned(),
        kind("c", "1x A10 (24 GB)", r#""just-a-name""#),
        kind("d", "1x A10 (24 GB)", "").replace("2392", "\"cheap\""),
        kind("e", "1x A10 (24 GB)", "").replace("[]", "null"),
        r#""f":[1,2]"#.to_owned(),
    ];
    let snapshot = load(&types.join(","));
    assert_eq!(
        (
            snapshot.len(),
            snapshot.intake().rows,
            snapshot.intake().skipped_rows()
        ),
        (1, 7, 6),
        "{:?}",
        snapshot.intake()
    );
    assert!(
        snapshot
            .intake()
            .skipped
            .values()
            .any(|skips| skips.example == "data a")
    );
}
