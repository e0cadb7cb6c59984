use super::*;
use crate::domain::offer::Source;
use crate::domain::snapshot::Snapshot;
use muster_model::requirements::Arch;

fn load(plans: Plans, rows: &str, capacity: &Capacity) -> Snapshot {
    let mut builder = Builder::new("vultr", Source::Provider);
    let text = format!("{{\"{}\":[{rows}]}}", plans.member());
    read(&mut builder, text.as_bytes(), plans, capacity).unwrap();
    builder.finish()
}

fn plan(id: &str, more: &str) -> String {
    format!(
        r#"{{"id":"{id}","vcpu_count":4,"ram":8192,"disk":100,"hourly_cost":0.055,"monthly_cost":40,"locations":["ewr"]{more}}}"#
    )
}

fn gpu(name: &str, vram: u32) -> Result<GpuGroup, String> {
    let more = format!(r#","type":"vcg","gpu_type":"{name}","gpu_vram_gb":{vram}"#);
    let snapshot = load(Plans::Shared, &plan("p", &more), &Capacity::new());
    match snapshot.rows().first() {
        Some(row) => Ok(snapshot.machine(row).gpus[0].clone()),
        None => Err(snapshot.intake().worst().unwrap_or_default()),
    }
}

#[test]
fn availability_is_what_the_region_says() {
    let known = |plans: &[&str]| Some(plans.iter().map(|plan| (*plan).to_owned()).collect());
    let capacity = Capacity::from([
        ("ewr".to_owned(), known(&["a"])),
        ("ams".to_owned(), known(&[])),
        ("sjc".to_owned(), None),
    ]);
    let row = plan("a", "").replace(r#"["ewr"]"#, r#"["ewr","","ams","sjc","new"]"#);
    let snapshot = load(Plans::Shared, &row, &capacity);
    let mut told: Vec<_> = snapshot
        .rows()
        .iter()
        .map(|row| (snapshot.id_of(row).region.into_owned(), row.availability))
        .collect();
    told.sort();
    let expected = [
        ("ams", Availability::NoCapacity),
        ("ewr", Availability::Available),
        ("new", Availability::Unknown),
        ("sjc", Availability::Unknown),
    ];
    assert_eq!(
        told,
        expected.map(|(region, availability)| (region.to_owned(), availability))
    );
    let nowhere = load(
        Plans::Shared,
        &plan("a", "").replace(r#"["ewr"]"#, "[]"),
        &capacity,
    );
    assert_eq!(nowhere.row(0).availability, Availability::NoCapacity);
}

#[test]
fn a_month_has_730_hours() {
    let priced = |row: String| {
        load(Plans::Shared, &row, &Capacity::new())
            .rows()
            .first()
            .and_then(|row| row.price)
    };
    assert_eq!(priced(plan("a", "")), Some(MicroUsd(55_000)));
    assert_eq!(
        priced(plan("a", "").replace("0.055", "null")),
        Some(MicroUsd(54_795))
    );
    assert_eq!(
        priced(plan("a", "").replace("0.055", "0")),
        Some(MicroUsd(54_795))
    );
    assert_eq!(
        priced(plan("a", "").replace("0.055", "0").replace("40", "0")),
        None,
        "free is no price"
    );
}

#[test]
fn shared_cards_are_shares_and_a100_means_the_large_one() {
    let whole = gpu("NVIDIA_A100", 80).unwrap();
    assert_eq!(
        (whole.name.as_str(), whole.count, whole.share_milli),
        ("A100-80GB", 1, WHOLE)
    );
    assert_eq!(gpu("NVIDIA_A100", 640).unwrap().count, 8);
    let part = gpu("NVIDIA_A100", 20).unwrap();
    assert_eq!(
        (part.count, part.share_milli, part.memory_mib),
        (1, 250, Some(20 * 1024))
    );
    let sixth = gpu("NVIDIA_A16", 2).unwrap();
    assert_eq!(
        (sixth.name.as_str(), sixth.share_milli, sixth.memory_mib),
        ("A16", 125, Some(2048))
    );
    assert_eq!(gpu("NVIDIA_A16", 256).unwrap().count, 16);
    let b200 = gpu("NVIDIA_B200", 1536).unwrap();
    assert_eq!(
        (b200.count, b200.memory_mib),
        (8, Some(180 * 1024)),
        "sold as 192 GB each"
    );
    assert_eq!(gpu("NVIDIA_QUANTUM9", 96).unwrap().count, 1);
    assert!(gpu("NVIDIA_A40", 70).is_err(), "neither one nor two");
}

#[test]
fn bare_metal_says_in_its_id_what_it_carries() {
    let metal = |id: &str| {
        let row = format!(
            r#"{{"id":"{id}","cpu_threads":112,"ram":2097152,"disk":960,"hourly_cost":23.92,"locations":["ord"]}}"#
        );
        let snapshot = load(Plans::Metal, &row, &Capacity::new());
        snapshot.machine(snapshot.row(0)).clone()
    };
    let h100 = metal("vbm-112c-2048gb-8-h100-gpu");
    assert_eq!(
        (
            h100.gpus[0].name.as_str(),
            h100.gpus[0].count,
            h100.cpu_milli
        ),
        ("H100", 8, Some(112_000))
    );
    assert_eq!(
        metal("vbm-48c-1024gb-4-a100-gpu").gpus[0].name.as_str(),
        "A100-80GB"
    );
    let gh200 = metal("vbm-72c-480gb-gh200-gpu");
    assert_eq!((gh200.gpus[0].count, gh200.arch), (1, Some(Arch::Arm64)));
    assert!(metal("vbm-4c-32gb").gpus.is_empty());
}

#[test]
fn one_odd_plan_costs_only_itself() {
    let rows = [
        plan("good", ""),
        plan("a", r#","deploy_ondemand":false"#),
        plan("b", r#","type":"vcg""#),
        plan("c", "").replace("8192", "\"much\""),
        plan("d", r#","gpu_type":"NVIDIA_A40""#),
        "{}".to_owned(),
        "[1]".to_owned(),
    ];
    let snapshot = load(Plans::Shared, &rows.join(","), &Capacity::new());
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
}

#[test]
fn regions_and_pages_are_found() {
    let mut found = BTreeSet::new();
    let text = br#"{"plans":[{"locations":["ewr","","ams"]},{"locations":["ewr"]},{},7],"meta":{"links":{"next":"bmV4dA=="}}}"#;
    assert_eq!(
        regions(text, Plans::Shared, &mut found).unwrap().as_deref(),
        Some("bmV4dA==")
    );
    assert_eq!(found, BTreeSet::from(["ams".to_owned(), "ewr".to_owned()]));
    let last = br#"{"plans_metal":[],"meta":{"links":{"next":""}}}"#;
    assert_eq!(regions(last, Plans::Metal, &mut found).unwrap(), None);
    assert_eq!(
        available(br#"{"available_plans":["a",7,null,"b"]}"#)
            .unwrap()
            .len(),
        2
    );
    assert!(available(br#"{"error":"Invalid API token.","status":401}"#).is_err());
}
