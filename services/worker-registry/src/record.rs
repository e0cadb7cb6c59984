//! How records are kept in the store: their keys, and their values as the contract's own messages in an
//! envelope of what callers are not shown. A value that cannot be read stops the start; nothing is
//! guessed.

use std::iter::repeat_n;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_runtime::status::Violations;
use muster_runtime::wire::put_message;
use prost::Message;

use crate::domain::allocation::{OwnerTerm, Request};
use crate::domain::fleet::{Change, Key, RequestKey, Spent, Tombstone};
use crate::domain::gpus::Gpus;
use crate::domain::liveness::Longest;
use crate::domain::text::{Text, common};
use crate::domain::worker::{Presence, Worker};
use crate::grpc::convert::{
    is_told, parse_allocation, parse_event, parse_kind, parse_term, parse_time,
    parse_worker_record, read_duration, render_allocation, render_event, render_term, render_time,
};
use crate::grpc::wire::{put_gpus, put_record};

mod key;
mod message;

pub(crate) use key::{SECRET, gone, key_of};

use key::Parsed;

/// A record that cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the record {0} cannot be read: it is damaged, or of a later version")]
pub(crate) struct Unreadable(pub(crate) String);

/// The value that a change puts; none if it deletes.
pub(crate) fn value_of(change: &Change) -> Option<Bytes> {
    let bytes = match change {
        Change::Worker(worker) => encode_worker(worker),
        Change::Room(_) => Vec::new(),
        Change::Allocation(allocation) => {
            let request = allocation.request.as_ref();
            message::Allocation {
                allocation: Some(render_allocation(allocation, None)),
                has_request: request.is_some(),
                principal: request
                    .map(|request| request.principal.to_string())
                    .unwrap_or_default(),
                request_id: request
                    .map(|request| request.id.to_string())
                    .unwrap_or_default(),
                body: request.map_or(0, |request| request.body),
            }
            .encode_to_vec()
        }
        Change::Owner(_, term) => render_term(term).encode_to_vec(),
        Change::Token(token) => message::render_token(token).encode_to_vec(),
        Change::Tombstone(_, stone) => message::Tombstone {
            generation: stone.generation,
            uid: stone.uid.to_string(),
            at: Some(render_time(stone.at)),
            actor: stone.actor.to_string(),
            earlier: stone.earlier.iter().map(ToString::to_string).collect(),
        }
        .encode_to_vec(),
        Change::Spent(_, spent) => message::Spent {
            body: spent.body,
            made: spent.made.to_string(),
            until: Some(render_time(spent.until)),
        }
        .encode_to_vec(),
        Change::Event(event) => render_event(event).encode_to_vec(),
        Change::Longest(longest) => message::Longest {
            fence_millis: millis(longest.fence_after),
            lost_millis: millis(longest.lost_after),
        }
        .encode_to_vec(),
        Change::WorkerGone(_)
        | Change::RoomGone(_)
        | Change::AllocationGone(_)
        | Change::TokenGone(_)
        | Change::SpentGone(_)
        | Change::EventGone(_) => return None,
    };
    // The store keeps it for as long as the record lives, so without the room it grew in.
    Some(bytes.into_boxed_slice().into())
}

/// What a record says, as the change that put it; none for a record that is not the fleet's.
///
/// # Errors
/// The record cannot be read.
pub(crate) fn read(key: &str, value: &[u8]) -> Result<Option<Change>, Unreadable> {
    let unreadable = || Unreadable(key.to_owned());
    let Some(parsed) = Parsed::of(key) else {
        return Ok(None);
    };
    read_value(parsed, value).map(Some).ok_or_else(unreadable)
}

fn read_value(key: Parsed, value: &[u8]) -> Option<Change> {
    Some(match key {
        Parsed::Worker => Change::Worker(Arc::new(parse_worker(
            message::Worker::decode(value).ok()?,
        )?)),
        Parsed::Room(name) => Change::Room(name),
        Parsed::Allocation => Change::Allocation(read_allocation(value)?),
        Parsed::Owner(owner) => Change::Owner(owner, read_term(value)?),
        Parsed::Token => Change::Token(Arc::new(message::parse_token(
            message::Token::decode(value).ok()?,
        )?)),
        Parsed::Tombstone(name) => {
            let stone = message::Tombstone::decode(value).ok()?;
            let stone = Tombstone {
                generation: stone.generation,
                uid: stone.uid.into(),
                at: parse_time(stone.at.as_ref())?,
                actor: stone.actor.into(),
                earlier: stone.earlier.into_iter().map(Into::into).collect(),
            };
            Change::Tombstone(name, stone)
        }
        Parsed::Spent(key) => Change::Spent(key, read_spent(value)?),
        Parsed::Event => {
            let event = muster_proto::types::v1::Event::decode(value).ok()?;
            Change::Event(Arc::new(parse_event(event)?))
        }
        Parsed::Longest => {
            let longest = message::Longest::decode(value).ok()?;
            Change::Longest(Longest {
                fence_after: Duration::from_millis(longest.fence_millis),
                lost_after: Duration::from_millis(longest.lost_millis),
            })
        }
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn read_spent(value: &[u8]) -> Option<Spent> {
    let spent = message::Spent::decode(value).ok()?;
    Some(Spent {
        body: spent.body,
        made: spent.made.into(),
        until: parse_time(spent.until.as_ref())?,
    })
}

fn read_term(value: &[u8]) -> Option<OwnerTerm> {
    let term = muster_proto::workers::v1::OwnerTerm::decode(value).ok()?;
    let mut violations = Violations::new();
    let term = parse_term(Some(&term), &mut violations);
    violations.is_empty().then_some(term)
}

fn read_allocation(value: &[u8]) -> Option<Arc<crate::domain::allocation::Allocation>> {
    let record = message::Allocation::decode(value).ok()?;
    let mut violations = Violations::new();
    let mut told = record.allocation?;
    // They were taken when callers were not held to a range.
    told.stop_grace = told.stop_grace.filter(|one| read_duration(one).is_some());
    told.create_time = told.create_time.filter(is_told);
    let mut allocation = parse_allocation("allocation", told, &mut violations);
    if record.has_request {
        Arc::make_mut(&mut allocation).request = Some(Request {
            principal: record.principal.into(),
            id: record.request_id.into(),
            body: record.body,
        });
    }
    violations.is_empty().then_some(allocation)
}

/// The fields of a worker's record that hold the contract's message, and the accelerators.
const WORKER: u32 = 1;
const GPUS: u32 = 12;

fn encode_worker(worker: &Worker) -> Vec<u8> {
    let mut record = render_worker(worker).encode_to_vec();
    put_message(WORKER, &mut record, |to| put_record(worker, to));
    put_message(GPUS, &mut record, |to| put_gpus(&worker.machine.gpus, to));
    record
}

/// What the contract's message of a worker does not hold.
fn render_worker(worker: &Worker) -> message::Worker {
    let (presence, since) = match worker.presence {
        Presence::Expected => (message::Presence::Expected, None),
        Presence::Awaited => (message::Presence::Awaited, None),
        Presence::Lost { at, .. } => (message::Presence::Lost, Some(at)),
        Presence::Left { at } => (message::Presence::Left, Some(at)),
    };
    message::Worker {
        worker: None,
        boot_id: worker.boot_id.to_string(),
        proved_generation: worker.proved_generation,
        presence: presence.into(),
        presence_since: since.map(render_time),
        price: worker.price.map(|price| price.0),
        capacity_type: worker.capacity_type.map(message::render_capacity_type),
        epoch: worker.epoch.to_string(),
        join_token: worker.join_token.to_string(),
        writes: worker.writes,
        san: worker.san.to_string(),
        gpus: None,
    }
}

/// None if they are not as they were written.
fn parse_gpus(record: &message::Gpus) -> Option<Gpus> {
    let mut violations = Violations::new();
    let kinds = record.runs.iter().map(|run| {
        let kind = parse_kind(
            run.kind.as_ref()?,
            |field| field.to_owned(),
            &mut violations,
        );
        Some((usize::try_from(run.count).ok()?, kind))
    });
    let runs: Vec<_> = kinds.collect::<Option<_>>()?;
    let counted = runs
        .iter()
        .try_fold(0, |sum: usize, (count, _)| sum.checked_add(*count))?;
    let whole = violations.is_empty() && counted == record.uuids.len();
    let kinds = runs.iter().flat_map(|(count, kind)| repeat_n(kind, *count));
    whole.then(|| record.uuids.iter().zip(kinds).collect())
}

fn parse_worker(record: message::Worker) -> Option<Worker> {
    let presence = record.presence();
    let since = parse_time(record.presence_since.as_ref());
    let capacity_type = record.capacity_type.map(message::parse_capacity_type);
    let shown = record.worker?;
    let fenced = shown.fenced;
    let mut worker = parse_worker_record(shown)?;
    if let Some(gpus) = &record.gpus {
        Arc::make_mut(&mut worker.machine).gpus = parse_gpus(gpus)?;
    }
    worker.presence = match presence {
        message::Presence::Expected => Presence::Expected,
        message::Presence::Awaited => Presence::Awaited,
        message::Presence::Lost => Presence::Lost { at: since?, fenced },
        message::Presence::Left => Presence::Left { at: since? },
    };
    worker.boot_id = record.boot_id.into();
    worker.proved_generation = record.proved_generation;
    worker.price = record.price.map(muster_model::quantity::MicroUsd);
    worker.capacity_type = capacity_type.flatten();
    worker.epoch = common(&record.epoch);
    worker.join_token = common(&record.join_token);
    worker.writes = record.writes;
    worker.san = common(&record.san);
    Some(worker)
}

#[cfg(test)]
mod tests;
