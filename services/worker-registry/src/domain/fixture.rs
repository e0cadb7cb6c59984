//! What the tests of the domain begin with.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_model::gpu;
use muster_model::requirements::{Bounds, GpuRequest, Requirements};

use super::allocation::{Allocation, OwnerTerm, Request};
use super::book::Book;
use super::decide::{self, Arrival, Checked, Decision, Item, Proof, Refused};
use super::drain::{AfterDeadline, Cause, Terms};
use super::fleet::{Entry, Fleet};
use super::gpus::GpuKind;
use super::machine::Machine;
use super::placement::Ask;
use super::text::Text;
use super::worker::{By, Check, CheckStatus, Worker};

pub(crate) const EPOCH: &str = "000000000002-0000beef";
pub(crate) const EARLIER: &str = "000000000001-0000aaaa";
pub(crate) const OWNER: &str = "replica-manager";

/// So many seconds after the tests' beginning.
pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

pub(crate) fn kind(name: &str) -> GpuKind {
    let (name, memory) = gpu::identify(name, None);
    GpuKind {
        vendor: name.vendor(),
        name,
        memory_mib: memory.unwrap_or(0),
        product_name: "".into(),
        compute_capability: "".into(),
        simulated: true,
    }
}

/// A machine with accelerators such as `[("H100", 8)]`, 64 processors, 512 GiB and 1 TiB.
pub(crate) fn machine(worker: &str, gpus: &[(&str, usize)]) -> Machine {
    let kinds: Vec<_> = gpus
        .iter()
        .map(|(name, count)| (kind(name), *count))
        .collect();
    let gpus = kinds.iter().flat_map(|(kind, count)| {
        (0..*count).map(move |place| (format!("{worker}-{}-{place}", kind.name.as_str()), kind))
    });
    Machine {
        gpus: gpus.collect(),
        cpu_milli: 64_000,
        memory_mib: 512 * 1024,
        disk_mib: 1024 * 1024,
        region: "eu".into(),
        zone: "eu-1".into(),
        ..Machine::default()
    }
}

pub(crate) fn book() -> Book {
    Book::new(Fleet::default(), EPOCH.into(), 1)
}

/// Takes a decision into the book as if it were durable.
pub(crate) fn take<T>(decision: Decision<T>, book: &mut Book) -> T {
    if !decision.draft.changes.is_empty() {
        book.take(&decision.draft.changes);
    }
    decision.answer
}

pub(crate) fn arrival(name: &str, machine: Machine) -> Arrival {
    Arrival {
        name: name.into(),
        boot_id: "boot-1".into(),
        last_generation: 0,
        machine: Arc::new(machine),
        proof: Proof {
            insecure: true,
            ..Proof::default()
        },
        recreates: false,
        runs: false,
        uid: format!("uid-of-{name}").into(),
    }
}

pub(crate) fn checks(status: CheckStatus) -> Vec<Check> {
    vec![Check {
        name: "gpu-inventory".into(),
        status,
        message: "".into(),
        duration: Duration::from_millis(5),
        ended: Some(at(0)),
    }]
}

pub(crate) fn checked(name: &str, generation: u64) -> Checked {
    Checked {
        name: name.into(),
        generation,
        checks: checks(CheckStatus::Passed),
    }
}

/// An ACTIVE worker.
pub(crate) fn join(book: &mut Book, name: &str, gpus: &[(&str, usize)]) {
    join_with(book, name, machine(name, gpus));
}

pub(crate) fn join_with(book: &mut Book, name: &str, machine: Machine) {
    let registered = decide::register(book, &arrival(name, machine), at(0)).unwrap();
    let worker = take(registered, book).worker;
    let activated = decide::activate(book, checked(name, worker.generation), at(1)).unwrap();
    take(activated, book);
}

pub(crate) fn entry<'a>(book: &'a Book, name: &str) -> &'a Entry {
    book.fleet().worker(name).unwrap()
}

pub(crate) fn worker(book: &Book, name: &str) -> Worker {
    Worker::clone(&entry(book, name).worker)
}

pub(crate) fn term(revision: u64) -> OwnerTerm {
    OwnerTerm {
        epoch: EARLIER.into(),
        revision,
    }
}

/// So many of a kind of accelerator, and a processor.
pub(crate) fn ask(name: &str, count: u32) -> Ask {
    let request = GpuRequest {
        count: Bounds::exactly(count),
        ..GpuRequest::named(name)
    };
    Ask {
        requirements: Requirements {
            gpu_any_of: if count > 0 { vec![request] } else { Vec::new() },
            cpu_milli: 1000,
            memory_mib: 1024,
            ..Requirements::default()
        },
        ..Ask::default()
    }
}

pub(crate) fn item(id: &str, ask: Ask) -> Item {
    Item {
        owner: OWNER.into(),
        term: term(1),
        request: Some(Request {
            principal: "component:manager".into(),
            id: id.into(),
            body: 7,
        }),
        ask,
        subject: format!("chat/{id}").into(),
        attributes: Default::default(),
        fails_if_forced: false,
        stop_grace: Duration::from_secs(30),
        project: "default".into(),
    }
}

/// Allocates one, and takes it into the book.
pub(crate) fn allocate(book: &mut Book, item: &Item) -> Result<Arc<Allocation>, Refused> {
    let decision = decide::allocate(book, std::slice::from_ref(item), false, at(2));
    take(decision, book).pop().unwrap()
}

pub(crate) fn release(book: &mut Book, id: &Text) -> Result<Option<Arc<Allocation>>, Refused> {
    let reason: Text = "no longer wanted".into();
    let decision = decide::release(book, id, &OWNER.into(), &term(1), None, &reason, at(3))?;
    Ok(take(decision, book))
}

/// The agent names an allocation ended.
pub(crate) fn end(book: &mut Book, name: &str, id: &Text) -> Result<(), Refused> {
    let generation = entry(book, name).worker.generation;
    let decision = decide::end(
        book,
        &name.into(),
        generation,
        std::slice::from_ref(id),
        at(4),
    )?;
    for held in take(decision, book) {
        book.note_ended(&held, generation);
    }
    Ok(())
}

pub(crate) fn lose(book: &mut Book, name: &str) {
    let decision = decide::lost(book, &[name.into()], |_| true, at(5));
    take(decision, book);
}

pub(crate) fn by() -> Arc<By> {
    By::new("alice", "because")
}

pub(crate) fn unconditionally(_: &Worker) -> Result<(), Refused> {
    Ok(())
}

pub(crate) fn drain_terms(cause: Cause) -> Terms {
    Terms {
        cause,
        reason: "because".into(),
        actor: "alice".into(),
        deadline: None,
        max_parallel: 1,
        after: AfterDeadline::Wait,
    }
}

pub(crate) fn drain(book: &mut Book, name: &str, terms: Terms) -> Result<Arc<Worker>, Refused> {
    let asked = decide::DrainAsked {
        name: name.into(),
        terms,
        generation: None,
    };
    let decision = decide::drain(book, &asked, &unconditionally, at(6))?;
    Ok(take(decision, book))
}
