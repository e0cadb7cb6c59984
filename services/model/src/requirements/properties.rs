//! What holds for any requirements and any machine.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;

const GIB: u32 = 1024;

fn bounds(most: u32) -> impl Strategy<Value = Bounds> {
    let (least, end) = (0..most / 4, 0..most);
    let min = proptest::option::weighted(0.2, least);
    (min, proptest::option::weighted(0.1, end)).prop_map(|(min, max)| Bounds { min, max })
}

fn request() -> impl Strategy<Value = GpuRequest> {
    let names = proptest::collection::vec(
        select(vec![
            "A100",
            "A100-80GB",
            "H100",
            "L4",
            "MI300X",
            "tpu-v4",
            "foo",
        ]),
        0..3,
    );
    let vendor = proptest::option::weighted(0.1, select(Vendor::ALL.to_vec()));
    let share = proptest::option::weighted(0.1, 1..WHOLE);
    let capability = proptest::option::weighted(0.1, select(vec!["7.0", "8.0", "9.0"]));
    (
        names,
        vendor,
        bounds(10),
        bounds(100 * GIB),
        bounds(800 * GIB),
        share,
        capability,
    )
        .prop_map(
            |(names, vendor, count, memory_mib, total_memory_mib, share_milli, capability)| {
                GpuRequest {
                    names: names.into_iter().map(gpu::canonical).collect(),
                    vendor,
                    count,
                    memory_mib,
                    total_memory_mib,
                    share_milli,
                    min_compute_capability: capability.and_then(|text| text.parse().ok()),
                }
            },
        )
}

fn requirements() -> impl Strategy<Value = Requirements> {
    let arch = proptest::option::of(select(vec![Arch::X86_64, Arch::Arm64]));
    (
        proptest::collection::vec(request(), 0..3),
        0..2u32,
        0..2u32,
        0..2u32,
        arch,
    )
        .prop_map(
            |(gpu_any_of, cpu_milli, memory_mib, disk_mib, arch)| Requirements {
                gpu_any_of,
                cpu_milli,
                memory_mib,
                disk_mib,
                arch,
            },
        )
}

fn capacity() -> impl Strategy<Value = Capacity> {
    let names = select(vec![
        "A100",
        "A100-80GB",
        "H100",
        "L4",
        "MI300X",
        "tpu-v4-8",
        "foo",
    ]);
    let share = prop_oneof![9 => Just(WHOLE), 1 => 1..WHOLE];
    let group = (names, 0..9u32, share)
        .prop_map(|(name, count, share)| GpuGroup::observed(name, count, None, share));
    let arch = proptest::option::of(select(vec![Arch::X86_64, Arch::Arm64]));
    let amount = || proptest::option::weighted(0.9, 0..6u32);
    (
        proptest::collection::vec(group, 0..4),
        any::<bool>(),
        amount(),
        amount(),
        amount(),
        arch,
    )
        .prop_map(
            |(gpus, divisible, cpu_milli, memory_mib, disk_mib, arch)| Capacity {
                gpus,
                divisible,
                cpu_milli,
                memory_mib,
                disk_mib,
                arch,
            },
        )
}

/// Whether a fit is what was asked for, said in the plainest way.
fn holds(needs: &Requirements, has: &Capacity, fit: Fit) -> bool {
    let Some(gpu) = fit.gpu else {
        return needs.gpu_any_of.is_empty();
    };
    let (request, group) = (&needs.gpu_any_of[gpu.alternative], &has.gpus[gpu.group]);
    let within = |bounds: Bounds, value: u64| {
        bounds.min.is_none_or(|min| u64::from(min) <= value)
            && bounds.max.is_none_or(|max| value <= u64::from(max))
    };
    let each = u64::from(group.memory_mib.unwrap_or(0));
    (request.names.is_empty() || request.names.iter().any(|name| name.covers(&group.name)))
        && gpu.count >= 1
        && (gpu.count == group.count || has.divisible && gpu.count < group.count)
        && within(request.count, u64::from(gpu.count))
        && within(request.memory_mib, each)
        && within(request.total_memory_mib, each * u64::from(gpu.count))
        && (request.share_milli.is_some() == (group.share_milli < WHOLE))
}

proptest! {
    // About a tenth of them fit.
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_fit_is_what_was_asked_for_and_a_refusal_says_why(needs in requirements(), has in capacity()) {
        match matches(&needs, &has) {
            Ok(fit) => {
                prop_assert!(fits(&needs, &has));
                prop_assert!(holds(&needs, &has, fit), "{:?}", fit);
            }
            Err(short) => {
                prop_assert!(!fits(&needs, &has) && !short.is_empty());
                prop_assert!(short.iter().all(|one| one.to_string().starts_with("needs ")));
                prop_assert!(!shortfall::sentence(&short).is_empty());
            }
        }
    }

    #[test]
    fn one_more_alternative_never_hurts(needs in requirements(), more in request(), has in capacity()) {
        let mut wider = needs.clone();
        wider.gpu_any_of.push(more);
        prop_assert!(needs.gpu_any_of.is_empty() || !fits(&needs, &has) || fits(&wider, &has));
    }

    #[test]
    fn what_fits_a_machine_fits_a_larger_one(needs in requirements(), has in capacity()) {
        let has = Capacity { divisible: true, ..has };
        let mut larger = has.clone();
        larger.gpus.push(GpuGroup::named("T4", 4));
        for group in &mut larger.gpus {
            group.count += 1;
        }
        for amount in [&mut larger.cpu_milli, &mut larger.memory_mib, &mut larger.disk_mib] {
            *amount = amount.map(|amount| amount + 1);
        }
        prop_assert!(!fits(&needs, &has) || fits(&needs, &larger));
    }

    #[test]
    fn what_is_not_known_fits_no_better(needs in requirements(), has in capacity()) {
        let mut unknown = Capacity { cpu_milli: None, memory_mib: None, disk_mib: None, arch: None, ..has.clone() };
        for group in &mut unknown.gpus {
            group.memory_mib = None;
        }
        prop_assert!(!fits(&needs, &unknown) || fits(&needs, &has));
    }

    #[test]
    fn sizing_names_is_done_once(request in request()) {
        let once = request.with_sized_names();
        prop_assert_eq!(once.clone().with_sized_names(), once);
    }
}
