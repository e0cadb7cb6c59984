//! Real catalogues, where they are at hand: every row is an offer or is counted.

use offers_gateway::config::{Config, catalogs};
use offers_gateway::domain::skypilot;

use crate::reload::until;
use crate::support::{config, gpu, prices, real_catalogs, start};
use muster_proto::offers::v1 as pb;

/// Rows in each file, and of them those that can be no offer.
const ROWS: [(&str, u32, u32); 5] = [
    ("azure", 56_671, 0),
    ("gcp", 31_285, 42),
    ("lambda", 425, 0),
    ("runpod", 616, 0),
    ("vast", 64, 0),
];

#[test]
fn every_row_of_real_catalogues_is_accounted_for() {
    let Some(folder) = real_catalogs() else {
        return;
    };
    for (name, rows, skipped) in ROWS {
        let text = std::fs::read(folder.join(name).join("vms.csv")).unwrap();
        let snapshot = skypilot::read(name, "vms.csv", &text).unwrap();
        let intake = snapshot.intake();
        eprintln!("{name}: {} offers, {intake:?}", snapshot.len());
        assert_eq!(
            (intake.rows, intake.skipped_rows()),
            (rows, skipped),
            "{name}: {intake:?}"
        );
        assert!(
            intake.unknown_gpus.is_empty(),
            "{name}: {:?}",
            intake.unknown_gpus
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_catalogues_are_served_as_five_backends() {
    let Some(folder) = real_catalogs() else {
        return;
    };
    let backends = catalogs(&folder).unwrap();
    assert_eq!(backends.len(), 5);
    let wait = std::time::Duration::from_secs(60);
    let gateway = start(Config {
        timeouts: offers_gateway::config::Timeouts::always(wait),
        ..config(backends)
    })
    .await;
    let request = pb::ListOffersRequest {
        filter: gpu("H100", 8),
        page_size: 50,
        ..Default::default()
    };
    // On a busy machine reading them may take longer than a call waits.
    let all_read = async || {
        let answer = gateway.list(request.clone()).await;
        let mut reports = answer.backends.iter();
        reports.all(|one| one.offers_total > 0).then_some(answer)
    };
    let answer = until("every catalogue is read", all_read).await;
    assert_eq!(answer.offers.len(), 50);
    assert!(prices(&answer.offers).is_sorted());
    assert!(
        answer
            .offers
            .iter()
            .all(|offer| offer.gpus[0].name == "H100" && offer.gpus[0].count == 8)
    );
    assert_eq!(answer.backends.len(), 5);
    let totals: i32 = answer
        .backends
        .iter()
        .map(|report| report.offers_total)
        .sum();
    assert!(totals > 50_000, "{totals}");
    let matched: i32 = answer
        .backends
        .iter()
        .map(|report| report.offers_matched)
        .sum();
    assert_eq!(matched, answer.total_size);
    let backends = gateway
        .client
        .clone()
        .list_backends(pb::ListBackendsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let rows: i32 = backends
        .backends
        .iter()
        .map(|backend| backend.rows_read)
        .sum();
    assert_eq!(rows, 89_061);
    gateway.stop().await;
}
