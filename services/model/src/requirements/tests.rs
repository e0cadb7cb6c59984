use super::*;
use crate::gpu_syntax;

const GIB: u32 = 1024;

fn needs(any_of: &[&str]) -> Requirements {
    let requests = any_of.iter().map(|text| gpu_syntax::parse(text).unwrap());
    Requirements {
        gpu_any_of: requests.collect(),
        ..Requirements::default()
    }
}

fn worker(gpus: &[(&str, u32)]) -> Capacity {
    let groups = gpus
        .iter()
        .map(|(name, count)| GpuGroup::named(name, *count));
    Capacity {
        gpus: groups.collect(),
        divisible: true,
        ..Capacity::default()
    }
}

fn offer(gpus: &[(&str, u32)]) -> Capacity {
    Capacity {
        divisible: false,
        ..worker(gpus)
    }
}

/// The alternative, the group and the count, or nothing; by every way of asking.
fn check(needs: &Requirements, has: &Capacity) -> Option<(usize, usize, u32)> {
    let answer = matches(needs, has);
    assert_eq!(answer.is_ok(), fits(needs, has));
    assert_eq!(answer.as_ref().ok().copied(), fit(needs, has));
    if let Err(short) = &answer {
        assert!(!short.is_empty());
    }
    answer
        .ok()?
        .gpu
        .map(|gpu| (gpu.alternative, gpu.group, gpu.count))
}

#[test]
fn a_worker_gives_as_few_as_will_do() {
    let has = worker(&[("A100", 4), ("H100", 8)]);
    let cases = [
        ("H100", Some((0, 1, 1))),
        ("H100:2", Some((0, 1, 2))),
        ("H100:8", Some((0, 1, 8))),
        ("H100:9", None),
        ("H100:2..", Some((0, 1, 2))),
        ("H100:..16", Some((0, 1, 1))),
        ("H100:9..16", None),
        ("A100:4", Some((0, 0, 4))),
        ("A100-80GB", None),
        ("A100:80GB", None),
        ("any", Some((0, 0, 1))),
        ("any:8", Some((0, 1, 8))),
        ("any:80GB..", Some((0, 1, 1))),
        ("any:..40GB", Some((0, 0, 1))),
        ("any:41GB..79GB", None),
        ("nvidia:5", Some((0, 1, 5))),
        ("amd", None),
        ("L4,H100:3", Some((0, 1, 3))),
        ("H100:0.5", None),
    ];
    for (text, expected) in cases {
        assert_eq!(check(&needs(&[text]), &has), expected, "{text}");
    }
}

#[test]
fn an_offer_is_taken_whole() {
    let has = offer(&[("H100", 8)]);
    let cases = [
        ("H100", Some(8)),
        ("H100:8", Some(8)),
        ("H100:2", None),
        ("H100:2..", Some(8)),
        ("H100:2..8", Some(8)),
        ("H100:..4", None),
        ("H100:9..", None),
    ];
    for (text, expected) in cases {
        assert_eq!(
            check(&needs(&[text]), &has).map(|(.., count)| count),
            expected,
            "{text}"
        );
    }
}

#[test]
fn the_first_alternative_that_is_met_is_taken() {
    let has = worker(&[("L4", 4), ("A100", 2)]);
    assert_eq!(
        check(&needs(&["H100", "A100:2", "L4"]), &has),
        Some((1, 1, 2))
    );
    assert_eq!(
        check(&needs(&["H100", "A100:4", "L4"]), &has),
        Some((2, 0, 1))
    );
    assert_eq!(check(&needs(&["H100", "H200"]), &has), None);
}

#[test]
fn no_need_of_gpus_fits_anything() {
    assert_eq!(
        matches(&Requirements::default(), &Capacity::default()),
        Ok(Fit { gpu: None })
    );
    assert_eq!(
        matches(&Requirements::default(), &offer(&[("H100", 8)])),
        Ok(Fit { gpu: None })
    );
}

#[test]
fn shares_and_whole_ones_are_never_mixed_up() {
    let part = |share| {
        let group = GpuGroup::observed("A10", 1, None, share);
        Capacity {
            gpus: vec![group],
            ..Capacity::default()
        }
    };
    let cases = [
        ("A10", 1000, true),
        ("A10", 500, false),
        ("any", 167, false),
        ("A10:1", 333, false),
        ("A10:0.5", 1000, false),
        ("A10:0.5", 500, true),
        ("A10:0.25", 500, true),
        ("A10:0.5", 333, false),
        ("A10:0.999", 1000, false),
        ("any:8GB..:0.3", 333, true),
        ("any:8GB..:0.1", 167, false),
    ];
    for (text, share, expected) in cases {
        assert_eq!(
            check(&needs(&[text]), &part(share)).is_some(),
            expected,
            "{text} of {share}"
        );
    }
}

/// How many of eight A100 of 40 GiB are taken for a count and a total.
fn taken(count: Bounds, total_gib: Bounds, has: &Capacity) -> Option<u32> {
    let mib = |end: Option<u32>| end.map(|gib| gib * GIB);
    let total_memory_mib = Bounds {
        min: mib(total_gib.min),
        max: mib(total_gib.max),
    };
    let request = GpuRequest {
        count,
        total_memory_mib,
        ..GpuRequest::named("A100")
    };
    let needs = Requirements {
        gpu_any_of: vec![request],
        ..Requirements::default()
    };
    check(&needs, has).map(|(.., count)| count)
}

#[test]
fn memory_in_total_asks_for_as_many_as_it_takes() {
    let has = worker(&[("A100", 8)]);
    let cases = [
        (Bounds::ANY, Bounds::at_least(40), Some(1)),
        (Bounds::ANY, Bounds::at_least(41), Some(2)),
        (Bounds::ANY, Bounds::at_least(320), Some(8)),
        (Bounds::ANY, Bounds::at_least(321), None),
        (Bounds::at_most(2), Bounds::at_least(120), None),
        (Bounds::exactly(4), Bounds::at_least(80), Some(4)),
        (Bounds::exactly(1), Bounds::at_least(80), None),
        (Bounds::at_least(3), Bounds::at_least(80), Some(3)),
        (Bounds::ANY, Bounds::at_most(40), Some(1)),
        (Bounds::ANY, Bounds::at_most(39), None),
    ];
    for (count, total, expected) in cases {
        assert_eq!(taken(count, total, &has), expected, "{count:?} {total:?}");
    }
    let whole = offer(&[("A100", 8)]);
    assert_eq!(taken(Bounds::ANY, Bounds::at_least(320), &whole), Some(8));
    assert_eq!(taken(Bounds::ANY, Bounds::at_least(321), &whole), None);
    assert_eq!(taken(Bounds::ANY, Bounds::at_most(319), &whole), None);
}

#[test]
fn the_compute_capability_is_the_least() {
    let at_least = |text: &str| {
        let request = GpuRequest {
            min_compute_capability: text.parse().ok(),
            ..GpuRequest::default()
        };
        Requirements {
            gpu_any_of: vec![request],
            ..Requirements::default()
        }
    };
    let cases = [
        ("8.0", "A100", true),
        ("8.0", "H100", true),
        ("8.9", "A100", false),
        ("5.0", "MI300X", false),
        ("5.0", "foo", false),
    ];
    for (least, name, expected) in cases {
        assert_eq!(
            check(&at_least(least), &worker(&[(name, 1)])).is_some(),
            expected,
            "{least} {name}"
        );
    }
}

#[test]
fn an_unknown_gpu_is_found_by_its_own_name_and_by_any() {
    let has = worker(&[("Foo 9", 2)]);
    assert!(fits(&needs(&["Foo 9:2"]), &has) && fits(&needs(&["any"]), &has));
    assert!(!fits(&needs(&["foo 9"]), &has) && !fits(&needs(&["nvidia"]), &has));
    // Its memory is not known, so it meets no bound of it.
    assert!(!fits(&needs(&["Foo 9:1GB.."]), &has));
}

#[test]
fn the_rest_of_a_machine_has_to_suffice() {
    let has = Capacity {
        cpu_milli: Some(8000),
        memory_mib: Some(65_536),
        disk_mib: Some(102_400),
        arch: Some(Arch::X86_64),
        ..Capacity::default()
    };
    let of = |cpu_milli, memory_mib, disk_mib, arch| Requirements {
        cpu_milli,
        memory_mib,
        disk_mib,
        arch,
        gpu_any_of: Vec::new(),
    };
    let cases = [
        (of(8000, 0, 0, None), true),
        (of(8001, 0, 0, None), false),
        (of(0, 65_536, 0, None), true),
        (of(0, 65_537, 0, None), false),
        (of(0, 0, 102_400, None), true),
        (of(0, 0, 102_401, None), false),
        (of(0, 0, 0, Some(Arch::X86_64)), true),
        (of(0, 0, 0, Some(Arch::Arm64)), false),
    ];
    for (needs, expected) in cases {
        assert_eq!(matches(&needs, &has).is_ok(), expected, "{needs:?}");
        assert!(
            !fits(&needs, &Capacity::default()),
            "what is not known must not meet {needs:?}"
        );
    }
}

#[test]
fn names_are_made_exact_each_once_however_many_there_are() {
    let names = (0..200_000).chain(0..200_000);
    let request = GpuRequest {
        names: names
            .map(|number| gpu::canonical(&format!("made-up-{number}")))
            .collect(),
        memory_mib: Bounds::at_least(GIB),
        ..GpuRequest::default()
    };
    let first = request.names[..200_000].to_vec();
    // Comparing each with each would take minutes.
    assert!(request.with_sized_names().names == first);
}

#[test]
fn architectures_are_read_and_printed() {
    for (text, arch) in [
        ("x86-64", Arch::X86_64),
        ("AMD64", Arch::X86_64),
        ("arm64", Arch::Arm64),
        ("aarch64", Arch::Arm64),
    ] {
        assert_eq!(text.parse(), Ok(arch));
        assert_eq!(arch.to_string().parse(), Ok(arch));
    }
    assert!(
        "riscv"
            .parse::<Arch>()
            .unwrap_err()
            .to_string()
            .contains("write x86-64 or arm64")
    );
}
