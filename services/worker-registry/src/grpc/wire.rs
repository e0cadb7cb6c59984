//! Workers in protobuf's own bytes, for what is asked for most: pages, watches, registrations, records. What
//! every worker has is written straight from its record; the rest goes through the message. It decides nothing:
//! what it writes is what [`render_worker`](super::convert::render_worker) would encode to, field by field.

use std::time::SystemTime;

use muster_model::constraints::Labels;
use muster_proto::workers::v1 as proto;
use muster_runtime::resume::Etag;
use muster_runtime::wire::{
    length_of_text, put_bytes, put_flag, put_message, put_message_of, put_number, put_text,
    put_whole,
};
use prost::Message as _;

use super::convert::{
    leave_out_told, render_arch, render_capacity_type, render_check, render_count,
    render_generation, render_history, render_liveness, render_price, render_record_around,
    render_seen_drain, render_state, render_time, render_usage, render_vendor,
};
use crate::domain::gpus::{GpuKind, Gpus};
use crate::domain::machine::Machine;
use crate::domain::worker::{Presence, Worker};
use crate::seen::Seen;

/// The field of a worker that holds its machine.
const CAPACITY: u32 = 16;

/// Appends a worker as callers see it, without its history.
pub(crate) fn put_worker(seen: &Seen, epoch: &str, to: &mut Vec<u8>) {
    let worker = &*seen.worker;
    let machine = &*worker.machine;
    put_standing(worker, to);
    put_text(4, Etag::new(epoch, &worker.uid, worker.writes).as_str(), to);
    put_number(10, render_liveness(seen.observed.liveness) as i32, to);
    put_time(11, seen.observed.since, to);
    if let Some(heard) = seen.observed.heard {
        put_time(12, heard, to);
    }
    put_message(CAPACITY, to, |to| {
        put_all_gpus(&machine.gpus, to);
        put_amounts(machine, to);
    });
    put_whole(17, &render_usage(seen.usage), to);
    let capacity_type = render_capacity_type(worker.effective_capacity_type());
    put_number(18, capacity_type as i32, to);
    if let Some(price) = render_price(worker.effective_price()) {
        put_whole(19, &price, to);
    }
    put_place(machine, to);
    if let Some(drain) = render_seen_drain(seen) {
        put_whole(26, &drain, to);
    }
    for check in &*worker.checks {
        put_whole(27, &render_check(check), to);
    }
    put_flag(32, machine.is_simulated(), to);
    put_labels(worker, to);
}

/// Who it is, its state, and since when.
fn put_standing(worker: &Worker, to: &mut Vec<u8>) {
    put_text(1, &worker.name, to);
    put_text(2, &worker.uid, to);
    put_number(3, render_generation(worker.generation), to);
    put_number(5, render_state(worker.state) as i32, to);
    put_time(6, worker.state_since, to);
    put_text(7, &worker.state_by.reason, to);
    put_text(8, &worker.state_by.actor, to);
    put_flag(9, worker.unconfirmed, to);
    let is_fenced = matches!(worker.presence, Presence::Lost { fenced: true, .. });
    put_flag(13, is_fenced, to);
    put_number(28, render_generation(worker.revoked_through), to);
    put_time(30, worker.created, to);
    put_time(31, worker.updated, to);
}

/// Where its agent says that it is.
fn put_place(machine: &Machine, to: &mut Vec<u8>) {
    put_text(20, &machine.backend, to);
    put_text(21, &machine.region, to);
    put_text(22, &machine.zone, to);
    put_text(23, &machine.agent_version, to);
    put_text(24, &machine.agent_address, to);
    put_text(25, &machine.advertise_host, to);
}

/// Labels as a message like any other: a map has entries of its own.
fn put_labels(worker: &Worker, to: &mut Vec<u8>) {
    let agent_labels = &worker.machine.labels;
    if worker.labels.is_empty() && agent_labels.is_empty() {
        return;
    }
    let labelled = proto::Worker {
        labels: Labels::clone(&worker.labels),
        agent_labels: Labels::clone(agent_labels),
        ..proto::Worker::default()
    };
    // Writing to memory cannot fail.
    let _ = labelled.encode(to);
}

fn put_time(tag: u32, time: SystemTime, to: &mut Vec<u8>) {
    put_whole(tag, &render_time(time), to);
}

/// Appends what of a worker's record the contract's message holds, without its accelerators and what its
/// history tells.
pub(crate) fn put_record(worker: &Worker, to: &mut Vec<u8>) {
    let mut around = proto::Worker {
        history: render_history(worker),
        ..render_record_around(worker)
    };
    leave_out_told(&mut around);
    let machine = &worker.machine;
    put(&around, to, |to| put_amounts(machine, to));
}

/// Appends accelerators as a record holds them: all uuids, then what they are, each kind once for those
/// of it that follow each other.
pub(crate) fn put_gpus(gpus: &Gpus, to: &mut Vec<u8>) {
    for uuid in gpus.uuids() {
        put_bytes(1, uuid.as_bytes(), to);
    }
    for (count, kind) in gpus.runs() {
        put_message(2, to, |to| {
            put_number(1, i64::try_from(count).unwrap_or(i64::MAX), to);
            put_message(2, to, |to| put_kind(kind, to));
        });
    }
}

/// Fields of one message may come in any order, so both parts are one message.
fn put(around: &proto::Worker, to: &mut Vec<u8>, put_capacity: impl FnOnce(&mut Vec<u8>)) {
    to.reserve(around.encoded_len());
    // Writing to memory cannot fail.
    let _ = around.encode(to);
    put_message(CAPACITY, to, put_capacity);
}

/// Each accelerator whole, as callers see them.
fn put_all_gpus(gpus: &Gpus, to: &mut Vec<u8>) {
    let mut uuids = gpus.uuids();
    let mut kind_bytes = Vec::new();
    for (count, kind) in gpus.runs() {
        kind_bytes.clear();
        put_kind(kind, &mut kind_bytes);
        for uuid in uuids.by_ref().take(count) {
            let length = length_of_text(1, uuid) + kind_bytes.len();
            put_message_of(1, length, to, |to| {
                put_text(1, uuid, to);
                to.extend_from_slice(&kind_bytes);
            });
        }
    }
}

fn put_amounts(machine: &Machine, to: &mut Vec<u8>) {
    put_number(2, render_count(machine.cpu_milli), to);
    put_number(3, render_count(machine.memory_mib), to);
    put_number(4, render_count(machine.disk_mib), to);
    put_number(5, render_arch(machine.arch) as i32, to);
}

/// An accelerator without its uuid.
fn put_kind(kind: &GpuKind, to: &mut Vec<u8>) {
    put_text(2, kind.name.as_str(), to);
    put_number(3, render_vendor(kind.vendor) as i32, to);
    put_number(4, render_count(kind.memory_mib), to);
    put_text(5, &kind.product_name, to);
    put_text(6, &kind.compute_capability, to);
    put_flag(7, kind.simulated, to);
}

#[cfg(test)]
mod tests;
