use std::time::UNIX_EPOCH;

use muster_model::quantity::MicroUsd;
use muster_model::requirements::Arch;

use super::*;
use crate::domain::book::Book;
use crate::domain::decide::{self, Arrival, Decision, DrainAsked, Edit, Proof};
use crate::domain::drain::{Cause, Terms};
use crate::domain::fixture::{
    self, allocate, arrival, ask, at, book, by, checked, drain, drain_terms, end, entry, item,
    join_with, kind, lose, machine, release, take, unconditionally,
};
use crate::domain::gpus::GpuKind;
use crate::domain::machine::Machine;
use crate::domain::worker::{By, HISTORY};
use crate::grpc::convert::{render_history, render_record_around, render_worker as shown_worker};
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

/// What a worker `w1` goes through, and how its record is after each step.
struct Life {
    book: Book,
    pasts: Vec<(&'static str, Worker)>,
}

impl Life {
    /// It makes a decision, after which its past is such.
    fn go<T>(&mut self, past: &'static str, decide: impl FnOnce(&Book) -> Decision<T>) {
        let decision = decide(&self.book);
        take(decision, &mut self.book);
        self.note(past);
    }

    fn note(&mut self, past: &'static str) {
        self.pasts.push((past, fixture::worker(&self.book, "w1")));
    }

    fn come(&mut self) {
        let ahead = Worker::ahead("w1".into(), "uid-of-w1".into(), by(), at(0));
        self.book.take(&[Change::Worker(Arc::new(ahead))]);
        self.note("made ahead");
        let arrival = arrival("w1", machine("w1", &[("H100", 2)]));
        self.go("registered", |book| {
            decide::register(book, &arrival, at(1)).unwrap()
        });
        self.go("active", |book| {
            decide::activate(book, checked("w1", 1), at(2)).unwrap()
        });
        let edit = Edit {
            labels: Some([("tier".to_owned(), "gold".to_owned())].into()),
            price: Some(Some(MicroUsd(7))),
            ..Edit::default()
        };
        self.go("changed by an operator", |book| {
            decide::update(book, &"w1".into(), &edit, &unconditionally, at(3)).unwrap()
        });
    }

    fn drain(&mut self) {
        let made = allocate(&mut self.book, &item("r1", ask("H100", 1))).unwrap();
        drain(&mut self.book, "w1", drain_terms(Cause::Operator)).unwrap();
        let hurried = DrainAsked {
            name: "w1".into(),
            terms: Terms {
                reason: "now".into(),
                deadline: Some(at(60)),
                ..drain_terms(Cause::Operator)
            },
            generation: None,
        };
        self.go("draining on new terms", |book| {
            decide::drain(book, &hurried, &unconditionally, at(8)).unwrap()
        });
        end(&mut self.book, "w1", &made.id).unwrap();
        release(&mut self.book, &made.id).unwrap();
        self.note("drained");
    }

    fn leave(&mut self) {
        lose(&mut self.book, "w1");
        self.note("lost");
        self.go("lost and fenced", |book| {
            decide::fenced(book, &["w1".into()], at(70))
        });
        let returned = Arrival {
            boot_id: "boot-2".into(),
            proof: Proof {
                credential: Some("uid-of-w1".into()),
                ..Proof::default()
            },
            ..arrival("w1", machine("w1", &[("H100", 2)]))
        };
        self.go("disabled and registered again", |book| {
            decide::register(book, &returned, at(80)).unwrap()
        });
        self.go("left", |book| {
            decide::leave(book, &"w1".into(), 2, at(90)).unwrap()
        });
    }
}

/// Workers with all kinds of pasts, each with what is special about it.
fn pasts() -> Vec<(&'static str, Worker)> {
    let mut life = Life {
        book: book(),
        pasts: Vec::new(),
    };
    life.come();
    life.drain();
    life.leave();
    let mut pasts = life.pasts;
    let mut old = pasts.last().unwrap().1.clone();
    for change in 0..2 * u64::try_from(HISTORY).unwrap() {
        old.enter(old.state, by(), at(100 + change));
    }
    pasts.push(("with a history that was cut", old.clone()));
    // No decision leads there: what a record says by itself must still be what is read.
    old.state_by = By::new("", "");
    old.state_since = old.history.last().unwrap().at;
    pasts.push(("in its state by nobody, for nothing", old.clone()));
    old.history = Arc::default();
    pasts.push(("without a history", old));
    pasts.push(("with accelerators of two kinds", Worker::clone(&worker())));
    pasts
}

#[test]
fn a_worker_is_read_as_it_was_written() {
    for (past, worker) in pasts() {
        let worker = Arc::new(worker);
        let value = value_of(&Change::Worker(Arc::clone(&worker))).unwrap();
        assert_eq!(read_worker(&value).unwrap(), *worker, "{past}");
    }
}

#[test]
fn a_record_of_an_earlier_release_is_read() {
    for (past, worker) in pasts() {
        let record = render_as_before(&worker);
        let shown = record.worker.as_ref().unwrap();
        assert!(shown.state_time.is_some() && shown.update_time.is_some());
        assert_eq!(
            read_worker(&record.encode_to_vec()).unwrap(),
            worker,
            "{past}"
        );
    }
}

#[test]
fn what_was_taken_before_callers_were_held_to_it_is_read() {
    use muster_proto::workers::v1::WorkerCheck;
    let mut before = render_as_before(&worker());
    let told = before.worker.as_mut().unwrap();
    told.checks = vec![WorkerCheck {
        name: "gpus".to_owned(),
        status: 1,
        duration: Some(prost_types::Duration {
            seconds: 1 << 62,
            nanos: 0,
        }),
        end_time: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        }),
        ..WorkerCheck::default()
    }];
    let gpus = &mut told.capacity.as_mut().unwrap().gpus;
    for gpu in gpus {
        gpu.product_name = "p".repeat(500);
    }
    let read = read_worker(&before.encode_to_vec()).unwrap();
    assert_eq!(read.checks[0].duration, Duration::ZERO);
    assert!(
        read.machine
            .gpus
            .kinds()
            .all(|kind| kind.product_name.len() == 500)
    );
}

#[test]
fn a_record_that_lost_the_history_it_rests_on_is_refused() {
    let value = value_of(&Change::Worker(worker())).unwrap();
    let mut record = message::Worker::decode(&*value).unwrap();
    let shown = record.worker.as_mut().unwrap();
    assert!(shown.state_time.is_none() && shown.state_reason.is_empty());
    shown.history.clear();
    assert!(read_worker(&record.encode_to_vec()).is_err());
}

/// The allocator has no block between 512 and 640 bytes, and the store holds a record of every machine.
#[test]
fn the_record_of_a_machine_with_eight_accelerators_takes_at_most_512_bytes() {
    let (name, version) = ("worker-012345", "0.1.0");
    let h100 = GpuKind {
        product_name: "NVIDIA H100 80GB HBM3".into(),
        compute_capability: "9.0".into(),
        simulated: false,
        ..kind("H100")
    };
    let uuids = (0..8).map(|place| format!("GPU-{name}-{place}"));
    let machine = Machine {
        gpus: uuids.map(|uuid| (uuid, &h100)).collect(),
        arch: Some(Arch::X86_64),
        agent_version: version.into(),
        agent_address: "192.0.2.1:7403".into(),
        advertise_host: "192.0.2.1".into(),
        ..machine(name, &[])
    };
    let arrival = Arrival {
        boot_id: format!("boot-{name}").into(),
        uid: "0123456789ab".into(),
        ..arrival(name, machine)
    };
    let now = UNIX_EPOCH + Duration::new(1_800_000_000, 999_999_999);
    let mut book = book();
    take(decide::register(&book, &arrival, now).unwrap(), &mut book);
    let later = now + Duration::from_millis(1);
    let activated = decide::activate(&book, checked(name, 1), later).unwrap();
    let worker = take(activated, &mut book);
    let value = value_of(&Change::Worker(Arc::clone(&worker))).unwrap();
    assert!(value.len() <= 512, "{} bytes", value.len());
    assert_eq!(read_worker(&value).unwrap(), *worker);
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

/// As an earlier release wrote it: what history tells once more, and the accelerators in the contract's message.
fn render_as_before(worker: &Worker) -> message::Worker {
    let mut book = book();
    let shared = Arc::new(worker.clone());
    book.take(&[Change::Worker(Arc::clone(&shared))]);
    let seen = Seen::new(entry(&book, &worker.name), Observed::of(worker, None), None);
    let shown = muster_proto::workers::v1::Worker {
        capacity: shown_worker(&seen, "").capacity,
        history: render_history(worker),
        ..render_record_around(worker)
    };
    message::Worker {
        worker: Some(shown),
        ..render_worker(worker)
    }
}
