//! Workers in protobuf's own bytes. A machine's accelerators are most of a worker's message, so they are
//! written straight from the record; everything else goes through the message. It decides nothing: what
//! it writes is what [`render_worker`](super::convert::render_worker) would encode to.

use muster_proto::workers::v1 as proto;
use muster_runtime::wire::{put_bytes, put_flag, put_message, put_number, put_text};
use prost::Message as _;

use super::convert::{
    leave_out_told, render_arch, render_count, render_history, render_record_around, render_vendor,
    render_worker_around,
};
use crate::domain::gpus::{GpuKind, Gpus};
use crate::domain::machine::Machine;
use crate::domain::worker::Worker;
use crate::seen::Seen;

/// The field of a worker that holds its machine.
const CAPACITY: u32 = 16;

/// Appends a worker as callers see it, without its history.
pub(crate) fn put_worker(seen: &Seen, epoch: &str, to: &mut Vec<u8>) {
    let machine = &seen.worker.machine;
    put(&render_worker_around(seen, epoch), to, |to| {
        put_all_gpus(&machine.gpus, to);
        put_amounts(machine, to);
    });
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
            put_message(1, to, |to| {
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
