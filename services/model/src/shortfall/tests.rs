use super::*;
use crate::gpu::GpuGroup;
use crate::gpu_syntax;
use crate::requirements::{Bounds, matches};

fn machine(gpus: &[(&str, u32)]) -> Capacity {
    let groups = gpus
        .iter()
        .map(|(name, count)| GpuGroup::named(name, *count));
    Capacity {
        gpus: groups.collect(),
        divisible: true,
        ..Capacity::default()
    }
}

fn refused(needs: &Requirements, has: &Capacity) -> Vec<Shortfall> {
    matches(needs, has).unwrap_err()
}

fn gpus(any_of: &[&str]) -> Requirements {
    let requests = any_of.iter().map(|text| gpu_syntax::parse(text).unwrap());
    Requirements {
        gpu_any_of: requests.collect(),
        ..Requirements::default()
    }
}

#[test]
fn the_words_say_what_is_needed_and_what_is_there() {
    let one_h100 = machine(&[("H100", 1)]);
    let mixed = machine(&[("A100", 8), ("L4", 2)]);
    let cases = [
        ("H100:2", &one_h100, "needs 2 GPUs of H100, has 1"),
        ("H100:2..", &one_h100, "needs 2 or more GPUs of H100, has 1"),
        ("H100:2..4", &one_h100, "needs 2 to 4 GPUs of H100, has 1"),
        (
            "H100",
            &mixed,
            "needs 1 GPU of H100, has 8 of A100, 2 of L4",
        ),
        (
            "H100,H200:1",
            &mixed,
            "needs 1 GPU of H100 or H200, has 8 of A100, 2 of L4",
        ),
        ("H100", &machine(&[]), "needs 1 GPU of H100, has none"),
        ("any", &machine(&[]), "needs 1 GPU, has none"),
        (
            "amd:8",
            &mixed,
            "needs 8 GPUs of amd, has 8 of A100, 2 of L4",
        ),
        (
            "any:48GB..",
            &mixed,
            "needs 1 GPU with 48GB or more each, has 40GB each",
        ),
        (
            "any:..16GB",
            &one_h100,
            "needs 1 GPU with at most 16GB each, has 80GB each",
        ),
        (
            "H100:94GB:2",
            &one_h100,
            "needs 2 GPUs of H100-NVL with 94GB each, has 1 of H100",
        ),
        (
            "A10:0.5",
            &machine(&[("A10", 1)]),
            "needs a share of 0.5 of a GPU of A10, has whole ones only",
        ),
        (
            "foo:80GB",
            &machine(&[("foo", 1)]),
            "needs 1 GPU of foo with 80GB each, has an unknown amount",
        ),
        // The closest group is the one that lacks the least.
        (
            "any:24GB..30GB:4",
            &mixed,
            "needs 4 GPUs with 24GB to 30GB each, has 2",
        ),
    ];
    for (text, has, words) in cases {
        assert_eq!(sentence(&refused(&gpus(&[text]), has)), words, "{text}");
    }
}

#[test]
fn an_offer_is_taken_whole() {
    let offer = Capacity {
        divisible: false,
        ..machine(&[("H100", 8)])
    };
    let short = refused(&gpus(&["H100:2"]), &offer);
    assert_eq!(
        sentence(&short),
        "needs 2 GPUs of H100, has 8, which can only be had together"
    );
    let part = GpuGroup::observed("A10", 1, None, 333);
    let share = Capacity {
        gpus: vec![part],
        ..Capacity::default()
    };
    assert_eq!(
        sentence(&refused(&gpus(&["A10"]), &share)),
        "needs 1 GPU of A10, has a share of 0.333"
    );
    let short = refused(&gpus(&["A10:0.5"]), &share);
    assert_eq!(
        sentence(&short),
        "needs a share of 0.5 of a GPU of A10, has a share of 0.333"
    );
}

#[test]
fn totals_and_capabilities_have_words() {
    let one = |request: GpuRequest| Requirements {
        gpu_any_of: vec![request],
        ..Requirements::default()
    };
    let total = GpuRequest {
        total_memory_mib: Bounds::at_least(160 * 1024),
        ..GpuRequest::named("H100")
    };
    let words =
        |needs: &Requirements, name: &str| sentence(&refused(needs, &machine(&[(name, 1)])));
    assert_eq!(
        words(&one(total.clone()), "H100"),
        "needs 1 GPU of H100 with 160GB or more in all, has 80GB in all"
    );
    let total = GpuRequest {
        names: Vec::new(),
        ..total
    };
    assert_eq!(
        words(&one(total), "foo"),
        "needs 1 GPU with 160GB or more in all, has an unknown amount"
    );
    let capable = GpuRequest {
        min_compute_capability: "9.0".parse().ok(),
        ..GpuRequest::default()
    };
    let capable = one(capable);
    assert_eq!(
        words(&capable, "A100"),
        "needs 1 GPU with compute capability 9.0 or higher, has 8.0 (A100)"
    );
    assert_eq!(
        words(&capable, "MI300X"),
        "needs 1 GPU with compute capability 9.0 or higher, has none that is known (MI300X)"
    );
}

#[test]
fn everything_that_is_short_is_told_and_alternatives_are_joined() {
    let needs = Requirements {
        cpu_milli: 8500,
        memory_mib: 65_536,
        disk_mib: 1024,
        arch: Some(Arch::Arm64),
        ..gpus(&["H100:2", "A100-80GB:4"])
    };
    let has = Capacity {
        cpu_milli: Some(4000),
        memory_mib: Some(64_321),
        disk_mib: None,
        arch: Some(Arch::X86_64),
        ..machine(&[("H100", 1)])
    };
    let short = refused(&needs, &has);
    let reasons: Vec<&str> = short.iter().map(Shortfall::reason).collect();
    assert_eq!(
        reasons,
        ["GPU", "GPU", "CPU", "MEMORY", "DISK", "ARCHITECTURE"]
    );
    let expected = "needs 2 GPUs of H100, has 1, or needs 4 GPUs of A100-80GB, has 1 of H100; \
        needs 8.5 processors, has 4; needs 64GB of memory, has 64321MB; \
        needs 1GB of disk, but its disk is not known; needs arm64 processors, has x86-64";
    assert_eq!(sentence(&short), expected);
    assert_eq!(short.last().map(Shortfall::resource), Some("architecture"));
    let disk = short.get(4).unwrap();
    assert_eq!(
        (disk.requested().as_str(), disk.available().as_str()),
        ("1GB of disk", "unknown")
    );
}

#[test]
fn one_alternative_that_fits_is_no_shortfall_of_gpus() {
    let needs = Requirements {
        cpu_milli: 8000,
        ..gpus(&["H200:8", "H100"])
    };
    let short = refused(&needs, &machine(&[("H100", 1)]));
    assert_eq!(
        short,
        [Shortfall::Cpu {
            needs: 8000,
            has: None
        }]
    );
}

#[test]
fn the_data_says_what_lacks() {
    let short = refused(&gpus(&["H100:2"]), &machine(&[("L4", 4), ("H100", 1)]));
    let [Shortfall::Gpu(gpu)] = short.as_slice() else {
        panic!("{short:?}");
    };
    assert_eq!((gpu.alternative, gpu.lack), (0, Some(Lack::Count)));
    assert_eq!(gpu.has, [GpuGroup::named("H100", 1)]);
}
