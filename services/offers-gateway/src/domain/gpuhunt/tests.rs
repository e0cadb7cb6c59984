use super::*;
use muster_model::quantity::MicroUsd;
use proptest::prelude::*;

const COLUMNS: &str = "instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size,gpu_vendor,flags,cpu_arch,provider_data";

fn load(rows: &str) -> Snapshot {
    read("aws", "aws.csv", format!("{COLUMNS}\n{rows}").as_bytes()).unwrap()
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

#[test]
fn a_row_is_an_offer() {
    let snapshot = load(
        "p5.48xlarge,us-east-1,98.32,192,2048.0,8,H100,80.0,False,30400.0,nvidia,,x86,\"{\"\"a\"\": 1, \"\"b\"\": 2}\"\n\
        p5.48xlarge,us-east-1,31.5,192,2048.0,8,H100,80.0,True,30400.0,nvidia,,x86,{}\n",
    );
    assert_eq!(
        ids(&snapshot),
        [
            "aws/us-east-1/p5.48xlarge/ondemand",
            "aws/us-east-1/p5.48xlarge/spot"
        ]
    );
    let row = snapshot.row(1);
    assert_eq!(
        (row.price, row.availability),
        (Some(MicroUsd(98_320_000)), Availability::Unknown)
    );
    let machine = snapshot.machine(row);
    assert_eq!(
        (machine.cpu_milli, machine.memory_mib, machine.disk_mib),
        (Some(192_000), Some(2_097_152), Some(31_129_600))
    );
    let group = &machine.gpus[0];
    assert_eq!(
        (group.name.as_str(), group.count, group.memory_mib),
        ("H100", 8, Some(80 * 1024))
    );
    assert_eq!(machine.arch, Some(Arch::X86_64));
    assert!(
        snapshot
            .raw_of(row)
            .contains(&("provider_data", "{\"a\": 1, \"b\": 2}"))
    );
    assert_eq!(snapshot.intake().skipped_rows(), 0);
}

#[test]
fn a_file_without_rows_is_refused() {
    let read = read("aws", "aws.csv", format!("{COLUMNS}\n").as_bytes());
    assert_eq!(read.unwrap_err(), Unreadable::NoRows);
}

#[test]
fn one_name_for_different_machines_hides_none() {
    let snapshot = load(
        "n1-standard-8,us,0.38,8,30,0,,,False,,,,,\nn1-standard-8,us,0.73,8,30,1,T4,16,False,,nvidia,,,\n\
        n1-standard-8,us,1.08,8,30,2,T4,16,False,,nvidia,,,\na2-highgpu-1g,us,3.6,12,85,1,A100,40,False,,nvidia,,,\n",
    );
    assert_eq!(
        ids(&snapshot),
        [
            "aws/us/a2-highgpu-1g/ondemand",
            "aws/us/n1-standard-8%2BT4x1/ondemand",
            "aws/us/n1-standard-8%2BT4x2/ondemand",
            "aws/us/n1-standard-8/ondemand",
        ]
    );
}

#[test]
fn a_small_card_is_not_a_large_one_and_tpus_are_google_s() {
    let name = |gpu: &str, memory: &str, vendor: &str| {
        let snapshot = load(&format!("t,us,1,1,1,1,{gpu},{memory},False,,{vendor},,,\n"));
        let group = snapshot.machine(snapshot.row(0)).gpus[0].clone();
        (
            group.name.to_string(),
            group.vendor.map(|vendor| vendor.to_string()),
        )
    };
    assert_eq!(name("A100", "40.0", "nvidia").0, "A100");
    assert_eq!(name("A100", "80.0", "nvidia").0, "A100-80GB");
    assert_eq!(name("H100NVL", "94", "nvidia").0, "H100-NVL");
    assert_eq!(
        name("v5p-8", "", "google"),
        ("tpu-v5p-8".to_owned(), Some("google".to_owned()))
    );
    assert_eq!(name("tpu-v2-8", "", "").0, "tpu-v2-8");
    assert_eq!(name("Quantum9", "1", "nvidia").0, "Quantum9");
}

#[test]
fn one_bad_row_costs_only_itself() {
    let snapshot = load(
        "a,us,1,1,1,0,,,False,,,,,\nb,us,cheap,1,1,0,,,False,,,,,\nc,us,1,1,1,0,,,Maybe,,,,,\nd,us,1,1,1,2,,,False,,,,,\n\
        e,us,1\nf,us,0,1,1,0,,,False,,,,,\n,us,1,1,1,0,,,False,,,,,\ng,us,1,1,1,1.5,T4,16,False,,,,,\nh,us,1,1,1,8,H100,80,False,,nvidia,runpod-cluster,,\n\
        a,us,1,1,1,0,,,False,,,,,\n\"i,us,1\n",
    );
    let intake = snapshot.intake();
    assert_eq!(ids(&snapshot), ["aws/us/a/ondemand"]);
    assert_eq!(
        (intake.rows, intake.skipped_rows(), intake.repeated),
        (11, 9, 1),
        "{intake:?}"
    );
    assert_eq!(
        intake.skipped["price is not a number"].example,
        "aws.csv line 3"
    );
    assert_eq!(intake.skipped["no price"].count, 1);
}

#[test]
fn a_file_that_is_no_catalogue_is_refused_whole() {
    let refuse = |text: &str| read("c", "f", text.as_bytes()).unwrap_err();
    assert_eq!(refuse(""), Unreadable::Empty);
    assert_eq!(refuse("<html>"), Unreadable::NoColumn("instance_name"));
    assert_eq!(
        refuse("instance_name,location,price\nx,y,1"),
        Unreadable::NoColumn("spot")
    );
    assert!(matches!(
        refuse(&format!("{COLUMNS}\nx,y\n")),
        Unreadable::NothingUsable(_)
    ));
}

proptest! {
    /// Whatever the bytes, every row is an offer, repeated or skipped, and nothing panics.
    #[test]
    fn every_row_is_accounted_for(body in prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..400),
        proptest::collection::vec("(t[a-c]|[a-z]?),us,[0-9.]{0,3},1,[0-9]?,[0-3],(H100|T4|),[0-9]{0,2},(True|False|x),,(nvidia|google|),,,\n", 1..12).prop_map(|rows| rows.concat().into_bytes()),
    ]) {
        let mut text = format!("{COLUMNS}\n").into_bytes();
        text.extend_from_slice(&body);
        if let Ok(snapshot) = read("c", "f", &text) {
            let intake = snapshot.intake();
            prop_assert_eq!(snapshot.len(), (intake.rows - intake.skipped_rows() - intake.repeated) as usize);
        }
    }
}
