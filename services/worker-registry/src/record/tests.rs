use super::*;
use crate::domain::fixture::{book, entry, join_with, kind, machine};
use crate::domain::gpus::GpuKind;
use crate::grpc::convert::render_worker;
use crate::seen::{Observed, Seen};

/// A worker with accelerators of three runs, of two kinds.
fn worker() -> Arc<Worker> {
    let mut book = book();
    let mut mixed = machine("w1", &[("H100", 8), ("A10", 1)]);
    let named = GpuKind {
        product_name: "NVIDIA H100 80GB HBM3".into(),
        ..kind("H100")
    };
    let gpus = mixed.gpus.iter().enumerate();
    let gpus = gpus.map(|(place, gpu)| match place {
        3 => (gpu.uuid, &named),
        _ => (gpu.uuid, gpu.kind),
    });
    mixed.gpus = gpus.collect();
    join_with(&mut book, "w1", mixed);
    Arc::clone(&entry(&book, "w1").worker)
}

fn read_worker(value: &[u8]) -> Result<Worker, Unreadable> {
    match read("workers/w1", value)? {
        Some(Change::Worker(worker)) => Ok(Worker::clone(&worker)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_worker_is_read_as_it_was_written() {
    let worker = worker();
    let value = value_of(&Change::Worker(Arc::clone(&worker))).unwrap();
    assert_eq!(read_worker(&value).unwrap(), *worker);
}

#[test]
fn a_record_with_its_accelerators_in_the_contracts_message_is_read() {
    let worker = worker();
    let mut record = render_worker_record(&worker);
    assert!(
        !record
            .worker
            .as_ref()
            .unwrap()
            .capacity
            .as_ref()
            .unwrap()
            .gpus
            .is_empty()
    );
    record.gpus = None;
    assert_eq!(read_worker(&record.encode_to_vec()).unwrap(), *worker);
}

#[test]
fn accelerators_that_do_not_add_up_are_refused() {
    let value = value_of(&Change::Worker(worker())).unwrap();
    let record = message::Worker::decode(&*value).unwrap();
    let spoil = |change: &dyn Fn(&mut message::Gpus)| {
        let mut record = record.clone();
        change(record.gpus.as_mut().unwrap());
        read_worker(&record.encode_to_vec())
    };
    assert!(spoil(&|_| {}).is_ok());
    assert!(spoil(&|gpus| drop(gpus.uuids.pop())).is_err());
    assert!(spoil(&|gpus| gpus.runs[0].count = u32::MAX).is_err());
    assert!(spoil(&|gpus| gpus.runs[1].kind = None).is_err());
    assert!(spoil(&|gpus| gpus.runs.clear()).is_err());
}

/// As an earlier release wrote it.
fn render_worker_record(worker: &Arc<Worker>) -> message::Worker {
    let value = value_of(&Change::Worker(Arc::clone(worker))).unwrap();
    let mut record = message::Worker::decode(&*value).unwrap();
    let mut book = book();
    book.take(&[Change::Worker(Arc::clone(worker))]);
    let seen = Seen::new(entry(&book, "w1"), Observed::of(worker, None), None);
    let whole = render_worker(&seen, "").capacity;
    record.worker.as_mut().unwrap().capacity = whole;
    record
}
