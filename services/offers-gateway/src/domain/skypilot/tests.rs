use super::*;
use crate::domain::snapshot;
use proptest::prelude::*;

const GPU_COLUMNS: &str =
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region";

fn load(text: &str) -> Snapshot {
    read("cloud", "vms.csv", text.as_bytes()).unwrap()
}

/// A file of rows under the usual columns.
fn gpus(rows: &str) -> Snapshot {
    load(&format!("{GPU_COLUMNS}\n{rows}"))
}

fn ids(snapshot: &Snapshot) -> Vec<String> {
    let mut ids: Vec<String> = snapshot
        .rows()
        .iter()
        .map(|row| snapshot.id_of(row).render())
        .collect();
    ids.sort();
    ids
}

fn only(snapshot: &Snapshot) -> (&snapshot::Row, &Machine) {
    assert_eq!(snapshot.len(), 1, "{:?}", snapshot.intake());
    (snapshot.row(0), snapshot.machine(snapshot.row(0)))
}

fn gpu(snapshot: &Snapshot) -> (String, u32, Option<u32>) {
    let group = &only(snapshot).1.gpus[0];
    (group.name.to_string(), group.count, group.memory_mib)
}

#[test]
fn columns_are_read_by_name_and_unknown_ones_ignored() {
    let snapshot = load("New,Region,Price,InstanceType\nx,eu,1.5,small\n");
    let (row, machine) = only(&snapshot);
    assert_eq!(row.price, Some(MicroUsd(1_500_000)));
    assert_eq!(machine, &Machine::default());
    assert_eq!(
        snapshot.raw_of(row),
        [
            ("New", "x"),
            ("Region", "eu"),
            ("Price", "1.5"),
            ("InstanceType", "small")
        ]
    );
}

#[test]
fn a_file_that_is_no_catalogue_is_refused_whole() {
    let refuse = |text: &str| read("c", "f", text.as_bytes()).unwrap_err();
    assert_eq!(refuse(""), Unreadable::Empty);
    assert_eq!(
        refuse("<html><body>Not found</body></html>"),
        Unreadable::NoColumn("InstanceType")
    );
    assert_eq!(
        refuse("InstanceType,Region\na,b"),
        Unreadable::NoColumn("Price")
    );
    assert!(matches!(
        refuse("InstanceType,Region,Price\na,b,x\n"),
        Unreadable::NothingUsable(_)
    ));
    for half_replaced in [
        "InstanceType,Region,Price\n",
        "InstanceType,Region,Price\n\n",
    ] {
        assert_eq!(refuse(half_replaced), Unreadable::NoRows);
    }
}

#[test]
fn unquoted_commas_are_mended_and_counted() {
    let snapshot = load(
        "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,Generation\n\
         Standard_B12ms,,,12,48,,0.634,,eastus,V1,V2\nStandard_A1_v2,,,1,2,,0.05,0.01,eastus,V1\n",
    );
    assert_eq!(ids(&snapshot).len(), 3);
    assert_eq!(snapshot.intake().mended, 1);
    assert_eq!(snapshot.intake().skipped_rows(), 0);
}

#[test]
fn one_bad_row_costs_only_itself() {
    let snapshot = gpus(
        "a,,,2,4,,0.5,,eu\nb,,,two,4,,0.5,,eu\nc,,,2\n\"d,,,2,4,,0.5,,eu\ne,,,2,4,,free,,eu\nf,,,2,4,,0.5,,eu,x,y\n\
         g,H100,,8,80,,3,,eu\nh,H100,1.5,8,80,,3,,eu\n,,,2,4,,0.5,,eu\ni,,,2,4,,0.7,,eu\n",
    );
    assert_eq!(
        ids(&snapshot),
        [
            "cloud/eu%2C%20x%2C%20y/f/ondemand",
            "cloud/eu/a/ondemand",
            "cloud/eu/i/ondemand"
        ]
    );
    let intake = snapshot.intake();
    assert_eq!(
        (intake.rows, intake.skipped_rows(), intake.mended),
        (10, 7, 1)
    );
    assert_eq!(
        intake.skipped["a quote is not closed"].example,
        "vms.csv line 5"
    );
    assert_eq!(intake.skipped["an accelerator without a count"].count, 1);
}

#[test]
fn zero_and_empty_prices_are_no_offer() {
    let snapshot =
        gpus("a,,,1,1,,0.5,0.00,eu\nb,,,1,1,,,0.2,eu\nc,,,1,1,,0,0.1,eu\nd,,,1,1,,0.0,,eu\n");
    assert_eq!(
        ids(&snapshot),
        ["cloud/eu/a/ondemand", "cloud/eu/b/spot", "cloud/eu/c/spot"]
    );
    assert_eq!(snapshot.intake().skipped["no price"].count, 1);
}

const GCP: &str = "InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,GpuInfo,Region,AvailabilityZone,Price,SpotPrice\n\
    a3-highgpu-8g,208.0,1872.0,,,,us,us-a,10.0,3.0\n\
    a4-highgpu-8g,224.0,3968.0,,,,us,us-a,0.0,0.0\n\
    n1-standard-8,8.0,30.0,,,,us,us-a,0.38,0.08\n\
    n1-standard-64,64.0,240.0,,,,us,us-a,3.0,0.6\n\
    n1-standard-8,8.0,30.0,,,,us,us-b,0.38,0.08\n\
    ,,,H100,8,{'Gpus': [{'MemoryInfo': {'SizeInMiB': 81920}}]},us,us-a,33.0,32.0\n";

#[test]
fn gcp_accelerators_become_whole_machines() {
    let snapshot = load(&format!("{GCP},,,T4,1,,us,us-a,0.35,\n"));
    let expected = [
        "cloud/us/us-a/a3-highgpu-8g/ondemand",
        "cloud/us/us-a/a3-highgpu-8g/spot",
        "cloud/us/us-a/n1-standard-64/ondemand",
        "cloud/us/us-a/n1-standard-64/spot",
        "cloud/us/us-a/n1-standard-8%2BT4x1/ondemand",
        "cloud/us/us-a/n1-standard-8/ondemand",
        "cloud/us/us-a/n1-standard-8/spot",
        "cloud/us/us-b/n1-standard-8/ondemand",
        "cloud/us/us-b/n1-standard-8/spot",
    ];
    assert_eq!(
        ids(&snapshot),
        expected,
        "no T4 in a machine too large for one, none in another zone, no bare a3 or a4"
    );
    let whole = snapshot
        .find(&crate::domain::id::parse(expected[0]).unwrap())
        .unwrap();
    let (row, machine) = (snapshot.row(whole), snapshot.machine(snapshot.row(whole)));
    assert_eq!(
        row.price,
        Some(MicroUsd(43_000_000)),
        "accelerators and host"
    );
    assert_eq!(
        (machine.cpu_milli, machine.gpus[0].count),
        (Some(208_000), 8)
    );
    assert_eq!(
        snapshot.intake().skipped_rows(),
        0,
        "a host row is no bad row"
    );
}

#[test]
fn gcp_rows_that_cannot_be_completed_are_not_offers() {
    let snapshot = load(&format!(
        "{GCP},,,B200,8,,us,us-a,90.2,34.2\n,,,T4,3,,us,us-a,1,\n,,,H100,8,,us,us-b,33.0,32.0\n,,,H100,8,,us,us-a,33.0,32.0\n"
    ));
    let intake = snapshot.intake();
    assert_eq!(intake.repeated, 1);
    let reasons: Vec<(&str, u32)> = intake
        .skipped
        .iter()
        .map(|(why, skips)| (why.as_ref(), skips.count))
        .collect();
    assert_eq!(
        reasons,
        [
            ("no instance type, and no known machine carries it", 1),
            ("no machine in its zone carries it", 1),
            ("the machine that carries it has no price", 1),
        ]
    );
}

#[test]
fn rows_with_instance_type_and_accelerator_are_complete() {
    let snapshot = load(
        "InstanceType,AcceleratorName,AcceleratorCount,Region,Price\na2-highgpu-1g,A100,1,us,3.6\n",
    );
    assert_eq!(gpu(&snapshot), ("A100".to_owned(), 1, Some(40_960)));
}

#[test]
fn tpus_are_complete_as_they_stand() {
    let snapshot = gpus(",tpu-v2-8,1,,,tpu-v2-8,4.5,1.35,us-central1\n");
    assert_eq!(
        ids(&snapshot),
        [
            "cloud/us-central1/tpu-v2-8/ondemand",
            "cloud/us-central1/tpu-v2-8/spot"
        ]
    );
    let group = &snapshot.machine(snapshot.row(0)).gpus[0];
    assert_eq!((group.vendor, group.count), (Some(Vendor::Google), 1));
    assert!(snapshot.intake().unknown_gpus.is_empty());
}

#[test]
fn a_tpu_told_twice_is_one_offer() {
    let row = ",tpu-v5p-8,1,,,tpu-v5p-8,33.6,,us-east5\n";
    let snapshot = gpus(&format!("{row}{row}{row}"));
    assert_eq!(ids(&snapshot), ["cloud/us-east5/tpu-v5p-8/ondemand"]);
    let intake = snapshot.intake();
    assert_eq!((intake.repeated, intake.skipped_rows()), (2, 0));
}

#[test]
fn machines_that_only_carry_accelerators_are_not_sold_alone() {
    let hosts = [
        "a2-highgpu-1g",
        "a3-megagpu-8g",
        "a4-highgpu-8g",
        "g2-standard-4",
    ];
    for host in hosts {
        let snapshot = gpus(&format!("{host},,,12,85,,1.5,0.5,us\nplain,,,1,1,,1,,us\n"));
        assert_eq!(ids(&snapshot), ["cloud/us/plain/ondemand"], "{host}");
    }
}

#[test]
fn one_price_in_many_zones_is_an_offer_in_each() {
    let rows: Vec<String> = (0..48)
        .map(|zone| format!("1x_A40_SECURE,A40,1,9,50,US,US-{zone},0.44\n"))
        .collect();
    let columns = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Region,AvailabilityZone,Price";
    let snapshot = load(&format!("{columns}\n{}", rows.concat()));
    assert_eq!((snapshot.len(), snapshot.intake().repeated), (48, 0));
}

#[test]
fn memory_is_read_in_every_dialect() {
    let python = "\"{'Gpus': [{'Name': 'V100', 'Count': 8.0, 'MemoryInfo': {'SizeInMiB': 16384}}], 'TotalGpuMemoryInMiB': 16384}\"";
    let json = "\"{\"\"Gpus\"\": [{\"\"MemoryInfo\"\": {\"\"SizeInMiB\"\": 24576}}]}\"";
    let gib = "\"{'Gpus': [{'MemoryInfo': {'SizeInMiB': 48}}]}\"";
    let total = "\"{'Gpus': [{'Count': 8, 'MemoryInfo': {'SizeInMiB': 260856}}]}\"";
    let row = |name: &str, count: u32, info: &str| {
        gpu(&gpus(&format!("t,{name},{count},4,16,{info},1,,eu\n")))
    };
    assert_eq!(
        row("V100", 8, python),
        ("V100".to_owned(), 8, Some(16 * 1024))
    );
    assert_eq!(row("A10", 1, json), ("A10".to_owned(), 1, Some(24 * 1024)));
    assert_eq!(
        row("A6000", 2, gib).2,
        Some(48 * 1024),
        "GiB written as MiB"
    );
    assert_eq!(
        row("RTX5090", 8, total).2,
        Some(32 * 1024),
        "the total over all"
    );
    assert_eq!(
        row("A100-80GB-SXM4", 1, "A100_SXM_80GB"),
        ("A100-80GB".to_owned(), 1, Some(80 * 1024))
    );
}

#[test]
fn names_are_canonical_and_a_small_card_is_never_sold_as_a_large_one() {
    let name =
        |written: &str, info: &str| gpu(&gpus(&format!("t,{written},1,4,16,{info},1,,eu\n"))).0;
    let one = name("RTX6000-Ada", "");
    assert_eq!(name("RTX6000Ada", ""), one);
    assert_eq!(name("RTX-6000-Ada", ""), one);
    assert_eq!(name("RTXA6000", ""), name("A6000", ""));
    assert_eq!(name("H100-SXM", ""), name("H100-NVLINK", ""));
    assert_eq!(name("A100", ""), "A100");
    assert_eq!(
        name(
            "A100",
            "\"{'Gpus': [{'MemoryInfo': {'SizeInMiB': 81251}}]}\""
        ),
        "A100-80GB"
    );
    assert_eq!(
        name(
            "A100-80GB",
            "\"{'Gpus': [{'MemoryInfo': {'SizeInMiB': 40960}}]}\""
        ),
        "A100"
    );
    assert_eq!(
        name("Quantum9", ""),
        "Quantum9",
        "unknown names pass through"
    );
}

#[test]
fn a_part_of_a_card_is_a_share() {
    let snapshot = gpus("Standard_NV6ads_A10_v5,A10,0.167,6,55,A10,0.454,,eastus\n");
    let group = &only(&snapshot).1.gpus[0];
    assert_eq!(
        (group.count, group.share_milli, group.memory_mib),
        (1, 167, Some(4096))
    );
}

#[test]
fn odd_regions_are_tidied_and_zones_stay_apart() {
    let snapshot = gpus("t,,,1,1,,1,,\", US, NA\"\n");
    assert_eq!(ids(&snapshot), ["cloud/US%2C%20NA/t/ondemand"]);
    let zones = load(
        "InstanceType,Region,AvailabilityZone,Price\nt,US,US-1,2\nt,US,US-2,2\nt,US,US,2\nt,US,US-1,2\n",
    );
    assert_eq!(
        ids(&zones),
        [
            "cloud/US/US-1/t/ondemand",
            "cloud/US/US-2/t/ondemand",
            "cloud/US/t/ondemand"
        ]
    );
    assert_eq!(zones.intake().repeated, 1);
}

/// How rows of real catalogues are written, with what is wrong with some of them.
const REAL: [&str; 9] = [
    "Standard_D2s_v3,,,2.0,8.0,,0.096,0.0192,eastus",
    "Standard_NV6ads_A10_v5,A10,0.167,6.0,55.0,A10,0.454,0.0908,eastus",
    "Standard_ND96isr_H100_v5,H100,8.0,96.0,1900.0,\"{'Gpus': [{'Name': 'H100', 'Count': 8.0, 'MemoryInfo': {'SizeInMiB': 81920}}], 'TotalGpuMemoryInMiB': 81920}\",98.32,19.66,eastus",
    ",tpu-v2-8,1.0,,,tpu-v2-8,4.5,1.35,us-central1",
    ",T4,1.0,,,\"{'Gpus': [{'MemoryInfo': {'SizeInMiB': 16384}}]}\",0.35,0.14,us-central1",
    "n1-standard-8,,,8.0,30.0,,0.38,0.08,us-central1",
    "8x_RTX4090,RTX4090,8.0,128.0,512.0,\"{\"\"Gpus\"\": [{\"\"MemoryInfo\"\": {\"\"SizeInMiB\"\": 196512}}]}\",2.8,0.00,\", US, NA\"",
    "1x_A100-80GB_SECURE,A100-80GB,1.0,8.0,117.0,{'Gpus': [{'MemoryInfo': {'SizeInMiB': 80}}]},1.19,,SE",
    "Standard_B12ms,,,12,48,,0.634,,eastus,V1,V2",
];

/// Lines of real rows, some with bytes changed, cut off or put in.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let damage = (any::<prop::sample::Index>(), any::<u8>(), 0..4u8);
    let row = (0..REAL.len(), proptest::collection::vec(damage, 0..3));
    proptest::collection::vec(row, 1..20).prop_map(|rows| {
        let mut text = Vec::new();
        for (row, damages) in rows {
            let mut line = REAL[row].as_bytes().to_vec();
            for (at, byte, how) in damages {
                let at = at.index(line.len().max(1)).min(line.len());
                match how {
                    0 if at < line.len() => line[at] = byte,
                    1 if at < line.len() => {
                        line.remove(at);
                    }
                    2 => line.truncate(at),
                    _ => line.insert(at, byte),
                }
            }
            text.extend_from_slice(&line);
            text.push(b'\n');
        }
        text
    })
}

proptest! {
    /// However real rows are damaged: nothing panics, and what is offered is no more than the rows
    /// that are left after those that were skipped or said twice.
    #[test]
    fn damaged_rows_are_offers_or_counted(body in damaged()) {
        let mut text = format!("{GPU_COLUMNS}\n").into_bytes();
        text.extend_from_slice(&body);
        if let Ok(snapshot) = read("cloud", "f", &text) {
            let intake = snapshot.intake();
            let used = intake.rows.checked_sub(intake.skipped_rows() + intake.repeated);
            let used = used.expect("no row is counted twice") as usize;
            // An accelerator is offered in each machine that carries it: here, at most one a row.
            let machines = used.max(1) * used.max(1);
            prop_assert!(snapshot.len() <= 2 * machines, "{} of {used}: {intake:?}", snapshot.len());
        }
    }

    /// Whatever the bytes, every row is accounted for and nothing panics.
    #[test]
    fn no_file_panics(body in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut text = format!("{GPU_COLUMNS}\n").into_bytes();
        text.extend_from_slice(&body);
        let _ = read("cloud", "vms.csv", &text);
        let _ = read("cloud", "vms.csv", &body);
    }

    #[test]
    fn rows_of_odd_fields_are_offers_or_counted(
        rows in proptest::collection::vec(proptest::collection::vec("[a-z]?|[0-9.]{0,3}|H100|\\{'SizeInMiB': 4\\}|\"|n1-standard-4", 9), 1..12)
    ) {
        let lines: Vec<String> = rows.iter().map(|row| row.join(",")).collect();
        if let Ok(snapshot) = read("cloud", "f", format!("{GPU_COLUMNS}\n{}", lines.join("\n")).as_bytes()) {
            let intake = snapshot.intake();
            let used = usize::try_from(intake.rows - intake.skipped_rows() - intake.repeated).unwrap();
            prop_assert!(used <= rows.len());
            prop_assert!(snapshot.len() <= 2 * used);
        }
    }
}
