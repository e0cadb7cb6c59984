//! The contract: every message and service of Muster, generated from the
//! `.proto` files beside this crate. It decides nothing, and knows no rule of
//! any service.

/// Generated code, which follows its generator's taste and not our lints.
macro_rules! package {
    ($name:literal) => {
        #[allow(
            missing_docs,
            unreachable_pub,
            unused_qualifications,
            clippy::all,
            clippy::large_futures,
            clippy::needless_pass_by_value,
            clippy::semicolon_if_nothing_returned,
            clippy::too_many_lines,
            rustdoc::all
        )]
        pub mod v1 {
            tonic::include_proto!($name);
        }
    };
}

/// What every package shares: resources, error reasons, events.
pub mod types {
    package!("muster.types.v1");
}
/// Spoken by the offers-gateway.
pub mod offers {
    package!("muster.offers.v1");
}
/// Spoken by a source of offers that a user adds.
pub mod backend {
    package!("muster.backend.v1");
}
/// Spoken by the worker-registry.
pub mod workers {
    package!("muster.workers.v1");
}
/// Spoken by the replica-manager.
pub mod replicas {
    package!("muster.replicas.v1");
}
/// Spoken by the worker-agent.
pub mod agents {
    package!("muster.agents.v1");
}
/// Spoken by every component of itself.
pub mod ops {
    package!("muster.ops.v1");
}
/// The standard health protocol.
pub mod health {
    package!("grpc.health.v1");
}

/// A method of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// As a call names it, such as `/muster.ops.v1.OpsService/GetStatus`.
    pub path: &'static str,
    /// Is asked, or answers, by more than one message.
    pub streams: bool,
}

/// Every method of every service: what a process has to know of the contract to serve it, without reading
/// [`DESCRIPTORS`].
pub const METHODS: &[Method] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));

/// Every file of the contract as an encoded `google.protobuf.FileDescriptorSet`,
/// for reflection and for JSON.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
