//! The words for accelerators that do not do.

use super::GpuShortfall;
use crate::gpu::{GpuGroup, GpuName, WHOLE};
use crate::quantity::{cpu, memory};
use crate::requirements::{Bounds, GpuRequest, Lack};

impl GpuShortfall {
    /// The whole request: `2 GPUs of H100 with 80 GB each`.
    pub(super) fn requested(&self) -> String {
        let request = &self.needs;
        let mut text = amount(request);
        let names: Vec<&str> = request.names.iter().map(GpuName::as_str).collect();
        match (names.as_slice(), request.vendor) {
            ([], None) => {}
            ([], Some(vendor)) => text.push_str(&format!(" of {vendor}")),
            (names, _) => text.push_str(&format!(" of {}", names.join(" or "))),
        }
        let memory = bounded(request.memory_mib).map(|size| format!("{size} each"));
        let total = bounded(request.total_memory_mib).map(|size| format!("{size} in all"));
        let capability = request.min_compute_capability;
        let capability = capability.map(|least| format!("compute capability {least} or higher"));
        let details: Vec<String> = [memory, total, capability].into_iter().flatten().collect();
        if !details.is_empty() {
            text.push_str(&format!(" with {}", details.join(" and ")));
        }
        text
    }

    /// What is there of that which lacks: `1`, `8 of A100`, `40 GB each`.
    pub(super) fn available(&self) -> String {
        let (Some(lack), Some(closest)) = (self.lack, self.has.first()) else {
            return "none".to_owned();
        };
        match lack {
            Lack::Name | Lack::Vendor => {
                let groups = self
                    .has
                    .iter()
                    .map(|group| format!("{} of {}", group.count, group.name));
                groups.collect::<Vec<_>>().join(", ")
            }
            Lack::Share if closest.share_milli >= WHOLE => "whole ones only".to_owned(),
            Lack::Share => format!("a share of {}", cpu::print(closest.share_milli)),
            Lack::ComputeCapability => match closest.name.compute_capability() {
                Some(has) => format!("{has} ({})", closest.name),
                None => format!("none that is known ({})", closest.name),
            },
            Lack::Memory => match closest.memory_mib {
                Some(each) => format!("{} each", memory::print(each)),
                None => "an unknown amount".to_owned(),
            },
            Lack::Count => self.available_count(closest),
            Lack::TotalMemory => match closest.total_memory_mib() {
                Some(total) => format!("{} in all", size_in_all(total)),
                None => "an unknown amount".to_owned(),
            },
        }
    }

    fn available_count(&self, closest: &GpuGroup) -> String {
        let too_many = self.needs.count.max.is_some_and(|max| closest.count > max);
        match closest.count {
            count if too_many => format!("{count}, which can only be had together"),
            count => count.to_string(),
        }
    }
}

fn amount(request: &GpuRequest) -> String {
    if let Some(share) = request.share_milli {
        return format!("a share of {} of a GPU", cpu::print(share));
    }
    match (request.at_least_one().min.unwrap_or(1), request.count.max) {
        (1, None | Some(1)) => "1 GPU".to_owned(),
        (min, None) => format!("{min} or more GPUs"),
        (min, Some(max)) if min == max => format!("{min} GPUs"),
        (min, Some(max)) => format!("{min} to {max} GPUs"),
    }
}

fn bounded(bounds: Bounds) -> Option<String> {
    let size = memory::print;
    match (bounds.min, bounds.max) {
        (None, None) => None,
        (Some(min), Some(max)) if min == max => Some(size(min)),
        (Some(min), Some(max)) => Some(format!("{} to {}", size(min), size(max))),
        (Some(min), None) => Some(format!("{} or more", size(min))),
        (None, Some(max)) => Some(format!("at most {}", size(max))),
    }
}

fn size_in_all(mib: u64) -> String {
    u32::try_from(mib).map_or_else(|_| memory::human(mib), memory::print)
}
