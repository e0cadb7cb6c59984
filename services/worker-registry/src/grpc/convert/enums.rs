//! Enums of the contract. An unknown number is never taken for something else.

use muster_model::constraints::CapacityType;
use muster_model::gpu::Vendor;
use muster_model::requirements::Arch;
use muster_proto::types::v1 as types;
use muster_proto::workers::v1 as proto;
use muster_runtime::status::Violations;

use crate::domain::decide::HeldPhase;
use crate::domain::liveness::Liveness;
use crate::domain::state::State;

/// The enum value of a number that came in a request; an unknown one is a violation.
pub(crate) fn known<E: TryFrom<i32> + Default>(
    field: &str,
    value: i32,
    violations: &mut Violations,
) -> E {
    E::try_from(value).unwrap_or_else(|_| {
        violations.add(field, format!("{value} is no value of this enum"));
        E::default()
    })
}

/// A worker's state.
pub(crate) fn render_state(state: State) -> proto::WorkerState {
    match state {
        State::Provisioning => proto::WorkerState::Provisioning,
        State::Active => proto::WorkerState::Active,
        State::Draining => proto::WorkerState::Draining,
        State::Disabled => proto::WorkerState::Disabled,
    }
}

/// A worker's state; none if it is not said.
pub(crate) fn parse_state(state: proto::WorkerState) -> Option<State> {
    match state {
        proto::WorkerState::Unspecified => None,
        proto::WorkerState::Provisioning => Some(State::Provisioning),
        proto::WorkerState::Active => Some(State::Active),
        proto::WorkerState::Draining => Some(State::Draining),
        proto::WorkerState::Disabled => Some(State::Disabled),
    }
}

/// A worker's liveness.
pub(crate) fn render_liveness(liveness: Liveness) -> proto::WorkerLiveness {
    match liveness {
        Liveness::Unknown => proto::WorkerLiveness::Unknown,
        Liveness::Alive => proto::WorkerLiveness::Alive,
        Liveness::Suspect => proto::WorkerLiveness::Suspect,
        Liveness::Lost => proto::WorkerLiveness::Lost,
        Liveness::Left => proto::WorkerLiveness::Left,
    }
}

/// A worker's liveness; none if it is not said.
pub(crate) fn parse_liveness(liveness: proto::WorkerLiveness) -> Option<Liveness> {
    match liveness {
        proto::WorkerLiveness::Unspecified => None,
        proto::WorkerLiveness::Unknown => Some(Liveness::Unknown),
        proto::WorkerLiveness::Alive => Some(Liveness::Alive),
        proto::WorkerLiveness::Suspect => Some(Liveness::Suspect),
        proto::WorkerLiveness::Lost => Some(Liveness::Lost),
        proto::WorkerLiveness::Left => Some(Liveness::Left),
    }
}

/// How far an allocation has come on its machine; none if it is not said.
pub(crate) fn parse_phase(phase: proto::HeldPhase) -> Option<HeldPhase> {
    match phase {
        proto::HeldPhase::Unspecified => None,
        proto::HeldPhase::Waiting => Some(HeldPhase::Waiting),
        proto::HeldPhase::Running => Some(HeldPhase::Running),
        proto::HeldPhase::Stopping => Some(HeldPhase::Stopping),
        proto::HeldPhase::Ended => Some(HeldPhase::Ended),
    }
}

/// An allocation's state that a filter names; none if it is not said.
pub(crate) fn parse_allocation_state(
    state: proto::AllocationState,
) -> Option<proto::AllocationState> {
    (state != proto::AllocationState::Unspecified).then_some(state)
}

/// A capacity type; none if it is not said.
pub(crate) fn parse_capacity_type(kind: types::CapacityType) -> Option<CapacityType> {
    match kind {
        types::CapacityType::Unspecified => None,
        types::CapacityType::OnDemand => Some(CapacityType::OnDemand),
        types::CapacityType::Spot => Some(CapacityType::Spot),
    }
}

/// A capacity type, which may not be known.
pub(crate) fn render_capacity_type(kind: Option<CapacityType>) -> types::CapacityType {
    match kind {
        None => types::CapacityType::Unspecified,
        Some(CapacityType::OnDemand) => types::CapacityType::OnDemand,
        Some(CapacityType::Spot) => types::CapacityType::Spot,
    }
}

/// An instruction set; none if it is not said.
pub(crate) fn parse_arch(arch: types::CpuArchitecture) -> Option<Arch> {
    match arch {
        types::CpuArchitecture::Unspecified => None,
        types::CpuArchitecture::X8664 => Some(Arch::X86_64),
        types::CpuArchitecture::Arm64 => Some(Arch::Arm64),
    }
}

/// An instruction set, which may not be known.
pub(crate) fn render_arch(arch: Option<Arch>) -> types::CpuArchitecture {
    match arch {
        None => types::CpuArchitecture::Unspecified,
        Some(Arch::X86_64) => types::CpuArchitecture::X8664,
        Some(Arch::Arm64) => types::CpuArchitecture::Arm64,
    }
}

/// A vendor; none if it is not said.
pub(crate) fn parse_vendor(vendor: types::GpuVendor) -> Option<Vendor> {
    match vendor {
        types::GpuVendor::Unspecified => None,
        types::GpuVendor::Nvidia => Some(Vendor::Nvidia),
        types::GpuVendor::Amd => Some(Vendor::Amd),
        types::GpuVendor::Intel => Some(Vendor::Intel),
        types::GpuVendor::Google => Some(Vendor::Google),
        types::GpuVendor::Aws => Some(Vendor::Aws),
        types::GpuVendor::Tenstorrent => Some(Vendor::Tenstorrent),
        types::GpuVendor::Other => Some(Vendor::Other),
    }
}

/// A vendor, which may not be known.
pub(crate) fn render_vendor(vendor: Option<Vendor>) -> types::GpuVendor {
    match vendor {
        None => types::GpuVendor::Unspecified,
        Some(Vendor::Nvidia) => types::GpuVendor::Nvidia,
        Some(Vendor::Amd) => types::GpuVendor::Amd,
        Some(Vendor::Intel) => types::GpuVendor::Intel,
        Some(Vendor::Google) => types::GpuVendor::Google,
        Some(Vendor::Aws) => types::GpuVendor::Aws,
        Some(Vendor::Tenstorrent) => types::GpuVendor::Tenstorrent,
        Some(Vendor::Other) => types::GpuVendor::Other,
    }
}
