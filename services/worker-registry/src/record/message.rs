//! The envelopes of records that are more than the contract's messages. Numbers of fields are for ever.

use muster_model::constraints::CapacityType;
use muster_proto::types::v1 as types;
use muster_proto::workers::v1 as proto;
use prost_types::Timestamp;

use crate::domain::token::JoinToken;
use crate::grpc::convert::parse_time;

/// What is durable of a worker's liveness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Presence {
    Expected = 0,
    Awaited = 1,
    Lost = 2,
    Left = 3,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Worker {
    #[prost(message, optional, tag = "1")]
    pub(super) worker: Option<proto::Worker>,
    #[prost(string, tag = "2")]
    pub(super) boot_id: String,
    #[prost(uint64, tag = "3")]
    pub(super) proved_generation: u64,
    #[prost(enumeration = "Presence", tag = "4")]
    pub(super) presence: i32,
    #[prost(message, optional, tag = "5")]
    pub(super) presence_since: Option<Timestamp>,
    /// The operator's, in micro-dollars an hour.
    #[prost(int64, optional, tag = "6")]
    pub(super) price: Option<i64>,
    /// The operator's.
    #[prost(int32, optional, tag = "7")]
    pub(super) capacity_type: Option<i32>,
    #[prost(string, tag = "8")]
    pub(super) epoch: String,
    #[prost(string, tag = "9")]
    pub(super) join_token: String,
    #[prost(uint64, tag = "10")]
    pub(super) writes: u64,
    #[prost(string, tag = "11")]
    pub(super) san: String,
    /// None in records of before they were held apart: then they are in the contract's message.
    #[prost(message, optional, tag = "12")]
    pub(super) gpus: Option<Gpus>,
}

/// The accelerators of a machine, in the agent's order.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Gpus {
    #[prost(string, repeated, tag = "1")]
    pub(super) uuids: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    pub(super) runs: Vec<GpuRun>,
}

/// How many of a kind follow each other.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GpuRun {
    #[prost(uint32, tag = "1")]
    pub(super) count: u32,
    /// Without a uuid.
    #[prost(message, optional, tag = "2")]
    pub(super) kind: Option<types::Gpu>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Allocation {
    #[prost(message, optional, tag = "1")]
    pub(super) allocation: Option<proto::Allocation>,
    #[prost(bool, tag = "2")]
    pub(super) has_request: bool,
    #[prost(string, tag = "3")]
    pub(super) principal: String,
    #[prost(string, tag = "4")]
    pub(super) request_id: String,
    #[prost(fixed64, tag = "5")]
    pub(super) body: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Token {
    #[prost(message, optional, tag = "1")]
    pub(super) token: Option<proto::JoinToken>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) secret_hash: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Tombstone {
    #[prost(uint64, tag = "1")]
    pub(super) generation: u64,
    #[prost(string, tag = "2")]
    pub(super) uid: String,
    #[prost(message, optional, tag = "3")]
    pub(super) at: Option<Timestamp>,
    #[prost(string, tag = "4")]
    pub(super) actor: String,
    #[prost(string, repeated, tag = "5")]
    pub(super) earlier: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Spent {
    #[prost(fixed64, tag = "1")]
    pub(super) body: u64,
    #[prost(string, tag = "2")]
    pub(super) made: String,
    #[prost(message, optional, tag = "3")]
    pub(super) until: Option<Timestamp>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Longest {
    #[prost(uint64, tag = "1")]
    pub(super) fence_millis: u64,
    /// 0 in records of before it was kept.
    #[prost(uint64, tag = "2")]
    pub(super) lost_millis: u64,
}

pub(super) fn render_capacity_type(kind: CapacityType) -> i32 {
    match kind {
        CapacityType::OnDemand => 1,
        CapacityType::Spot => 2,
    }
}

pub(super) fn parse_capacity_type(kind: i32) -> Option<CapacityType> {
    match kind {
        1 => Some(CapacityType::OnDemand),
        2 => Some(CapacityType::Spot),
        _ => None,
    }
}

pub(super) fn render_token(token: &JoinToken) -> Token {
    Token {
        token: Some(crate::grpc::convert::render_token(token)),
        secret_hash: token.secret_hash.to_vec(),
    }
}

pub(super) fn parse_token(record: Token) -> Option<JoinToken> {
    let token = record.token?;
    Some(JoinToken {
        secret_hash: record.secret_hash.try_into().ok()?,
        worker: Some(token.worker_name)
            .filter(|name| !name.is_empty())
            .map(Into::into),
        max_uses: Some(u32::try_from(token.max_uses).ok()?).filter(|most| *most > 0),
        uses: u32::try_from(token.uses).ok()?,
        expires: parse_time(token.expire_time.as_ref()),
        created: parse_time(token.create_time.as_ref())?,
        id: token.id.into(),
        actor: token.actor.into(),
        labels: token.labels,
    })
}
