use muster_model::constraints::CapacityType;
use muster_model::quantity::MicroUsd;

use super::*;
use crate::domain::book::Book;
use crate::domain::drain::Cause;
use crate::domain::fixture::{
    EPOCH, allocate, ask, at, book, drain, drain_terms, entry, item, join_with, kind, machine,
};
use crate::domain::gpus::GpuKind;
use crate::domain::liveness::Liveness;
use crate::domain::machine::common_labels;
use crate::domain::text::Text;
use crate::domain::worker::{Check, CheckStatus};
use crate::grpc::convert::render_worker;
use crate::seen::Observed;

fn seen(book: &Book, name: &str) -> Seen {
    let observed = Observed {
        liveness: Liveness::Suspect,
        since: at(7),
        heard: Some(at(8)),
    };
    Seen::new(entry(book, name), observed, None)
}

#[track_caller]
fn check(seen: &Seen) {
    let mut written = Vec::new();
    put_worker(seen, EPOCH, &mut written);
    let read = proto::Worker::decode(written.as_slice()).unwrap();
    assert_eq!(read, render_worker(seen, EPOCH));
    let mut record = Vec::new();
    put_record(&seen.worker, &mut record);
    let record = proto::Worker::decode(record.as_slice()).unwrap();
    assert_eq!(record.history, render_history(&seen.worker));
    let mut capacity = read.capacity.unwrap();
    capacity.gpus.clear();
    assert_eq!(record.capacity, Some(capacity));
}

#[test]
fn a_worker_is_what_its_message_says() {
    let mut book = book();
    let mut mixed = machine("w1", &[("H100", 8), ("A10", 1)]);
    mixed.labels = common_labels([("tier".to_owned(), "gold".to_owned())].into());
    let other = GpuKind {
        product_name: "NVIDIA H100 80GB HBM3".repeat(12).as_str().into(),
        compute_capability: "9.0".into(),
        simulated: false,
        ..kind("H100")
    };
    let gpus = mixed.gpus.iter().enumerate();
    let gpus = gpus.map(|(place, gpu)| match place {
        3 => (gpu.uuid, &other),
        _ => (gpu.uuid, gpu.kind),
    });
    mixed.gpus = gpus.collect();
    join_with(&mut book, "w1", mixed);
    join_with(&mut book, "bare", machine("bare", &[]));
    check(&seen(&book, "w1"));
    check(&seen(&book, "bare"));
    allocate(&mut book, &item("r1", ask("H100", 2))).unwrap();
    drain(&mut book, "w1", drain_terms(Cause::Operator)).unwrap();
    check(&seen(&book, "w1"));
}

#[test]
fn a_worker_that_has_everything_is_what_its_message_says() {
    let mut book = book();
    let place = |text: &str| Text::from(text);
    let full = Machine {
        backend: place("lambda"),
        region: place("eu"),
        zone: place("eu-1"),
        agent_version: place("1.2.3"),
        agent_address: place("192.0.2.1:7403"),
        advertise_host: place("w1.example"),
        price: Some(MicroUsd(1_500_000)),
        capacity_type: Some(CapacityType::Spot),
        ..machine("w1", &[("H100", 8)])
    };
    join_with(&mut book, "w1", full);
    let plain = seen(&book, "w1");
    check(&plain);
    let mut worker = Worker::clone(&plain.worker);
    worker.unconfirmed = true;
    worker.revoked_through = 3;
    worker.writes = 7;
    worker.price = Some(MicroUsd(2_000_000));
    worker.capacity_type = Some(CapacityType::OnDemand);
    worker.presence = Presence::Lost {
        at: at(9),
        fenced: true,
    };
    worker.checks = [CheckStatus::Passed, CheckStatus::Failed]
        .map(|status| Check {
            name: "gpus".into(),
            status,
            message: "eight are there".into(),
            duration: std::time::Duration::from_millis(12),
            ended: Some(at(3)),
        })
        .into();
    worker.set_labels([("tier".to_owned(), "gold".to_owned())].into());
    check(&Seen {
        worker: worker.into(),
        ..plain
    });
}
