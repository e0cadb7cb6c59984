//! Which instruction set a machine has, where its catalogue does not say: by the rules after which
//! Google and Microsoft name their machines, and by accelerators that are one package with their
//! processor. What no rule tells stays unknown.

use muster_model::gpu::GpuGroup;
use muster_model::requirements::Arch;

/// The instruction set by the catalogue's column, else by the instance type's name.
pub fn of_catalogue(column: &str, instance_type: &str) -> Option<Arch> {
    column
        .parse()
        .ok()
        .or_else(|| of_instance_type(instance_type))
}

/// The instruction set of the processor that is one package with the accelerator.
pub fn of_accelerator(name: &str) -> Option<Arch> {
    ["GH200", "GB200", "GB300"]
        .contains(&name)
        .then_some(Arch::Arm64)
}

/// The same for all of a machine's accelerators.
pub fn of_gpus(gpus: &[GpuGroup]) -> Option<Arch> {
    gpus.iter()
        .find_map(|group| of_accelerator(group.name.as_str()))
}

fn of_instance_type(name: &str) -> Option<Arch> {
    match name.strip_prefix("Standard_") {
        Some(size) => Some(of_azure(size)),
        None => of_google(name),
    }
}

/// Azure: family, number of processors, then feature letters, of which `p` is an Arm processor:
/// `D4ps_v5`, `E8pds_v6`.
fn of_azure(size: &str) -> Arch {
    let size = size.split('_').next().unwrap_or(size);
    let features = size.trim_start_matches(|c: char| c.is_ascii_uppercase());
    let features = features.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
    if features.starts_with(|c: char| c.is_ascii_lowercase()) && features.contains('p') {
        Arch::Arm64
    } else {
        Arch::X86_64
    }
}

/// Google's families of Arm machines, and those of all others that are written the same way.
fn of_google(name: &str) -> Option<Arch> {
    let (family, rest) = name.split_once('-')?;
    let kinds = [
        "standard", "highmem", "highcpu", "highgpu", "ultragpu", "megagpu", "edgegpu", "micro",
        "small", "medium", "megamem", "ultramem", "hypermem",
    ];
    let kind = rest.split('-').next()?;
    if !kinds.contains(&kind) {
        return None;
    }
    match family {
        "t2a" | "c4a" | "n4a" | "a4x" => Some(Arch::Arm64),
        "a2" | "a3" | "a4" | "c2" | "c2d" | "c3" | "c3d" | "c4" | "c4d" | "e2" | "f1" | "g1"
        | "g2" | "g4" | "m1" | "m2" | "m3" | "m4" | "n1" | "n2" | "n2d" | "n4" | "t2d" | "z3"
        | "h3" => Some(Arch::X86_64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_architecture_where_a_rule_says_so() {
        let cases = [
            ("Standard_D4ps_v5", Some(Arch::Arm64)),
            ("Standard_E8pds_v6", Some(Arch::Arm64)),
            ("Standard_E96-24ads_v5", Some(Arch::X86_64)),
            ("Standard_NC24ads_A100_v4", Some(Arch::X86_64)),
            ("Standard_A1_v2", Some(Arch::X86_64)),
            ("t2a-standard-4", Some(Arch::Arm64)),
            ("a3-highgpu-8g", Some(Arch::X86_64)),
            ("n1-340-48-tpu", None),
            ("1x_A100-80GB_SECURE", None),
            ("gpu_8x_h100_sxm5", None),
        ];
        for (name, arch) in cases {
            assert_eq!(of_catalogue("", name), arch, "{name}");
        }
        assert_eq!(
            of_catalogue("arm64", "Standard_A1_v2"),
            Some(Arch::Arm64),
            "the column wins"
        );
        assert_eq!(of_accelerator("GH200"), Some(Arch::Arm64));
    }
}
