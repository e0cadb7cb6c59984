//! Real catalogues, where they are at hand: every row is an offer or is counted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

use std::path::PathBuf;

use offers_gateway::domain::skypilot;
use offers_gateway::domain::snapshot::Snapshot;

/// A real catalogue, or nothing, loudly.
fn catalog(name: &str) -> Option<Snapshot> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/catalog");
    let path = root.join(name).join("vms.csv");
    match std::fs::read(&path) {
        Ok(text) => Some(skypilot::read(name, "vms.csv", &text).unwrap()),
        Err(error) => {
            eprintln!("SKIPPED: no catalogue at {}: {error}", path.display());
            None
        }
    }
}

#[test]
fn every_row_of_real_catalogues_is_accounted_for() {
    for name in ["azure", "gcp", "lambda", "vast", "runpod"] {
        let Some(snapshot) = catalog(name) else {
            return;
        };
        let intake = snapshot.intake();
        eprintln!("{name}: {} offers, {intake:?}", snapshot.len());
        assert!(
            intake.unknown_gpus.is_empty(),
            "{name}: {:?}",
            intake.unknown_gpus
        );
    }
}
