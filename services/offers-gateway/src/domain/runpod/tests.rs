use super::*;
use crate::domain::offer::Source;
use crate::domain::snapshot::Snapshot;

fn load(aliases: &str) -> Snapshot {
    let mut builder = Builder::new("runpod", Source::Provider);
    read(
        &mut builder,
        format!("{{\"data\":{{{aliases}}}}}").as_bytes(),
        Cloud::Secure,
        "EU-RO-1",
    )
    .unwrap();
    builder.finish()
}

fn kind(price: &str) -> String {
    format!(
        r#"{{"id":"NVIDIA H100 80GB HBM3","displayName":"H100 SXM","memoryInGb":80,"lowestPrice":{price}}}"#
    )
}

const SOLD: &str = r#"{"minimumBidPrice":1.5,"uninterruptablePrice":2.69,"minVcpu":16,"minMemory":125,"stockStatus":"Low"}"#;

#[test]
fn prices_are_for_one_accelerator_and_told_for_the_machine() {
    let snapshot = load(&format!("\"n2\":[{}]", kind(SOLD)));
    let ids: Vec<String> = snapshot
        .rows()
        .iter()
        .map(|row| snapshot.id_of(row).render())
        .collect();
    assert_eq!(
        ids,
        [
            "runpod/EU-RO-1/2x%20NVIDIA%20H100%2080GB%20HBM3/spot",
            "runpod/EU-RO-1/2x%20NVIDIA%20H100%2080GB%20HBM3/ondemand"
        ]
    );
    let row = snapshot.row(1);
    assert_eq!(
        (snapshot.row(0).price, row.price),
        (Some(MicroUsd(3_000_000)), Some(MicroUsd(5_380_000)))
    );
    assert_eq!(row.availability, Availability::Available);
    let machine = snapshot.machine(row);
    assert_eq!(
        (machine.cpu_milli, machine.memory_mib),
        (Some(16_000), Some(125 * 1024))
    );
    assert_eq!(
        (machine.gpus[0].name.as_str(), machine.gpus[0].count),
        ("H100", 2)
    );
}

#[test]
fn stock_is_the_availability() {
    let said = |stock: &str| {
        load(&format!(
            "\"n1\":[{}]",
            kind(&SOLD.replace("\"Low\"", stock))
        ))
        .row(0)
        .availability
    };
    assert_eq!(said("\"High\""), Availability::Available);
    assert_eq!(said("\"Medium\""), Availability::Available);
    assert_eq!(said("null"), Availability::NoCapacity);
    assert_eq!(said("\"Tomorrow\""), Availability::Unknown);
}

#[test]
fn what_is_not_sold_is_no_row_and_what_is_odd_is_counted() {
    let rows = [
        kind("null"),
        kind(r#"{"minimumBidPrice":null,"uninterruptablePrice":null,"stockStatus":null}"#),
        kind(SOLD),
        kind(SOLD).replace("2.69", "\"much\""),
        kind(SOLD).replace(r#""NVIDIA H100 80GB HBM3""#, "null"),
    ];
    let snapshot = load(&format!(
        "\"n1\":[{}],\"n2\":null,\"other\":[]",
        rows.join(",")
    ));
    let intake = snapshot.intake();
    assert_eq!(
        (snapshot.len(), intake.rows, intake.skipped_rows()),
        (2, 5, 4),
        "{intake:?}"
    );
}

#[test]
fn what_there_is_to_ask_for() {
    let text = br#"{"data":{"gpuTypes":[{"id":"a","maxGpuCountSecureCloud":8},{"id":"b","maxGpuCountSecureCloud":10},{"id":"c"}],
        "dataCenters":[{"id":"EU-RO-1","listed":true},{"id":"US-OLD","listed":false},{"id":"X\"){y}"},{"id":"CA-MTL-1"},{}]}}"#;
    let secure = |text: &[u8]| plan(text, Cloud::Secure);
    assert_eq!(
        secure(text).unwrap(),
        Plan {
            places: vec!["EU-RO-1".to_owned(), "CA-MTL-1".to_owned()],
            max_count: 10
        }
    );
    assert!(secure(br#"{"data":{"gpuTypes":[]}}"#).is_err());
    assert!(
        secure(br#"{"data":null,"errors":[{"message":"busy"}]}"#)
            .unwrap_err()
            .to_string()
            .contains("busy")
    );
    let endless = br#"{"data":{"gpuTypes":[{"maxGpuCountSecureCloud":4000000}],"dataCenters":[]}}"#;
    assert_eq!(secure(endless).unwrap().max_count, MAX_COUNT);
}

#[test]
fn the_community_cloud_is_asked_for_by_countries() {
    let text = br#"{"data":{"gpuTypes":[{"id":"a","maxGpuCountSecureCloud":10,"maxGpuCountCommunityCloud":4},{"id":"b","maxGpuCountCommunityCloud":null}],
        "countryCodes":["NO",null,"CA",7,"X\"){y}",""]}}"#;
    let expected = Plan {
        places: vec!["NO".to_owned(), "CA".to_owned()],
        max_count: 4,
    };
    assert_eq!(plan(text, Cloud::Community).unwrap(), expected);
    let error = plan(text, Cloud::Secure).unwrap_err().to_string();
    assert!(error.contains("dataCenters"), "{error}");
    let codes = vec!["\"NO\""; 1000].join(",");
    let endless = format!("{{\"data\":{{\"gpuTypes\":[],\"countryCodes\":[{codes}]}}}}");
    let plan = plan(endless.as_bytes(), Cloud::Community).unwrap();
    assert_eq!(plan.places, ["NO"], "no country is asked twice");
}

#[test]
fn a_question_has_an_alias_for_each_number() {
    let asked = |cloud, place| {
        let question: serde_json::Value = serde_json::from_str(&question(cloud, place, 3)).unwrap();
        question["query"].as_str().unwrap().to_owned()
    };
    let query = asked(Cloud::Secure, "EU-RO-1");
    assert_eq!(query.matches("gpuTypes{").count(), 3);
    assert!(
        query.contains("n3:gpuTypes")
            && query.contains("gpuCount:3,secureCloud:true,dataCenterId:\"EU-RO-1\""),
        "{query}"
    );
    assert_eq!(query.matches('{').count(), query.matches('}').count());
    let query = asked(Cloud::Community, "NO");
    assert!(
        query.contains("gpuCount:3,secureCloud:false,countryCode:\"NO\""),
        "{query}"
    );
}

#[test]
fn a_part_with_an_error_is_no_part() {
    let mut builder = Builder::new("runpod", Source::Provider);
    let text = format!(
        r#"{{"data":{{"n1":[{}],"n2":null}},"errors":[{{"message":"n2 timed out"}}]}}"#,
        kind(SOLD)
    );
    let error = read(&mut builder, text.as_bytes(), Cloud::Secure, "x").unwrap_err();
    assert_eq!(error, Unexpected::Complaint("n2 timed out".to_owned()));
}

#[test]
fn whose_machine_it_is_stands_in_what_the_provider_tells() {
    for (cloud, told) in [(Cloud::Secure, "true"), (Cloud::Community, "false")] {
        let mut builder = Builder::new("runpod", Source::Provider);
        let text = format!("{{\"data\":{{\"n1\":[{}]}}}}", kind(SOLD));
        read(&mut builder, text.as_bytes(), cloud, "NO").unwrap();
        let snapshot = builder.finish();
        let raw = snapshot.raw_of(snapshot.row(0));
        assert!(raw.contains(&("secureCloud", told)), "{raw:?}");
        assert!(raw.contains(&("displayName", "H100 SXM")), "{raw:?}");
    }
}
