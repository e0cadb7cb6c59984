//! Workers in protobuf's own bytes. A machine's accelerators are most of a worker's message, so they are
//! written straight from the record; everything else goes through the message. It decides nothing: what
//! it writes is what [`render_worker`](super::convert::render_worker) would encode to.

use muster_proto::workers::v1 as proto;
use muster_runtime::wire::{put_flag, put_message, put_number, put_text};
use prost::Message as _;

use super::convert::{
    render_arch, render_count, render_history, render_record_around, render_vendor,
    render_worker_around,
};
use crate::domain::gpus::Gpu;
use crate::domain::machine::Machine;
use crate::domain::worker::Worker;
use crate::seen::Seen;

/// The field of a worker that holds its machine.
const CAPACITY: u32 = 16;

/// Appends a worker as callers see it, without its history.
pub(crate) fn put_worker(seen: &Seen, epoch: &str, to: &mut Vec<u8>) {
    put(&render_worker_around(seen, epoch), &seen.worker.machine, to);
}

/// Appends what of a worker's record the contract's message holds.
pub(crate) fn put_record(worker: &Worker, to: &mut Vec<u8>) {
    let around = proto::Worker {
        history: render_history(worker),
        ..render_record_around(worker)
    };
    put(&around, &worker.machine, to);
}

/// Fields of one message may come in any order, so both parts are one message.
fn put(around: &proto::Worker, machine: &Machine, to: &mut Vec<u8>) {
    to.reserve(around.encoded_len());
    // Writing to memory cannot fail.
    let _ = around.encode(to);
    put_message(CAPACITY, to, |to| put_machine(machine, to));
}

fn put_machine(machine: &Machine, to: &mut Vec<u8>) {
    for gpu in machine.gpus.iter() {
        put_message(1, to, |to| put_gpu(&gpu, to));
    }
    put_number(2, render_count(machine.cpu_milli), to);
    put_number(3, render_count(machine.memory_mib), to);
    put_number(4, render_count(machine.disk_mib), to);
    put_number(5, render_arch(machine.arch) as i32, to);
}

fn put_gpu(gpu: &Gpu<'_>, to: &mut Vec<u8>) {
    let kind = &gpu.kind;
    put_text(1, gpu.uuid, to);
    put_text(2, kind.name.as_str(), to);
    put_number(3, render_vendor(kind.vendor) as i32, to);
    put_number(4, render_count(kind.memory_mib), to);
    put_text(5, &kind.product_name, to);
    put_text(6, &kind.compute_capability, to);
    put_flag(7, kind.simulated, to);
}

#[cfg(test)]
mod tests;
