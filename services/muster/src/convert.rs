//! The model's values as the contract's messages.

use muster_model::{
    gpu::Vendor,
    requirements::{Bounds, GpuRequest},
};
use muster_proto::types::v1::{self as wire, GpuVendor, Int32Range};

/// A need for accelerators as the contract writes it.
pub(crate) fn render_gpu_request(request: &GpuRequest) -> wire::GpuRequest {
    wire::GpuRequest {
        names: request
            .names
            .iter()
            .map(|name| name.as_str().to_owned())
            .collect(),
        vendor: request
            .vendor
            .map_or(GpuVendor::Unspecified, render_vendor)
            .into(),
        count: render_bounds(request.count),
        memory_mib: render_bounds(request.memory_mib),
        total_memory_mib: render_bounds(request.total_memory_mib),
        share_milli: request.share_milli.map(saturate).unwrap_or_default(),
        min_compute_capability: request
            .min_compute_capability
            .map(|capability| capability.to_string())
            .unwrap_or_default(),
    }
}

fn render_vendor(vendor: Vendor) -> GpuVendor {
    match vendor {
        Vendor::Nvidia => GpuVendor::Nvidia,
        Vendor::Amd => GpuVendor::Amd,
        Vendor::Intel => GpuVendor::Intel,
        Vendor::Google => GpuVendor::Google,
        Vendor::Aws => GpuVendor::Aws,
        Vendor::Tenstorrent => GpuVendor::Tenstorrent,
        Vendor::Other => GpuVendor::Other,
    }
}

fn render_bounds(bounds: Bounds) -> Option<Int32Range> {
    if bounds.is_any() {
        return None;
    }
    Some(Int32Range {
        min: bounds.min.map(saturate),
        max: bounds.max.map(saturate),
    })
}

fn saturate(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
