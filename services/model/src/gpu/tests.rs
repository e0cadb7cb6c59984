use super::*;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeMap;

const DIALECTS: &[(&str, &[&str])] = &[
    (
        "H100",
        &[
            "H100",
            "h100",
            "H100-SXM",
            "H100_NVLINK",
            "H100-PCIe",
            "H100SXM5",
            "H100 SXM",
            "nvidia_h100",
            "NVIDIA H100 80GB HBM3",
            "NVIDIA H100 PCIe",
            "H100_80GB_SXM5",
            "H100-80GB-HBM3",
            "H100-80GB",
            "H100-MEGA",
            "nvidia-h100-mega-80gb",
            "H100 (80 GB SXM5)",
            "H100PCIE",
            "NVIDIA® H100",
        ],
    ),
    (
        "H100-NVL",
        &[
            "H100 NVL",
            "H100NVL",
            "NVIDIA H100 NVL",
            "H100_NVL_94GB",
            "H100 94GB",
        ],
    ),
    (
        "A100",
        &[
            "A100",
            "A100-40GB",
            "NVIDIA A100-SXM4-40GB",
            "NVIDIA A100-PCIE-40GB",
            "A100 SXM4",
            "A100 (40 GB SXM4)",
        ],
    ),
    (
        "A100-80GB",
        &[
            "A100-80GB",
            "A100_80GB",
            "A100-80GB-SXM4",
            "A100_SXM_80GB",
            "NVIDIA A100 80GB PCIe",
            "NVIDIA A100-SXM4-80GB",
            "nvidia-a100-80gb",
            "A10080GB",
            "a100 80g",
        ],
    ),
    (
        "RTX6000-Ada",
        &[
            "RTX6000-Ada",
            "RTX6000Ada",
            "RTX-6000-Ada",
            "RTX_6000_Ada",
            "NVIDIA RTX 6000 Ada Generation",
            "nvidia_rtx6000_ada",
            "RTX 6000Ada",
        ],
    ),
    (
        "RTX6000",
        &[
            "RTX6000",
            "Quadro RTX 6000",
            "Q RTX 6000",
            "RTX 6000 (24 GB)",
        ],
    ),
    (
        "A6000",
        &[
            "A6000",
            "RTXA6000",
            "RTX_A6000",
            "NVIDIA RTX A6000",
            "RTX A6000 (48 GB)",
        ],
    ),
    (
        "RTX4090",
        &[
            "RTX 4090",
            "RTX_4090",
            "NVIDIA GeForce RTX 4090",
            "rtx4090",
            "GeForce RTX 4090",
        ],
    ),
    ("RTX4090D", &["RTX 4090D", "NVIDIA GeForce RTX 4090 D"]),
    ("RTX5090", &["RTX_5090", "NVIDIA GeForce RTX 5090"]),
    (
        "RTX4070TiSUPER",
        &[
            "NVIDIA GeForce RTX 4070 Ti SUPER",
            "RTX 4070S Ti",
            "RTX4070TiSUPER",
        ],
    ),
    (
        "RTXPRO6000",
        &[
            "RTXPRO6000WS",
            "RTX PRO 6000 S",
            "NVIDIA RTX PRO 6000 Blackwell Server Edition",
            "RTXPRO-SERVER-6000",
            "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
        ],
    ),
    ("T4", &["T4", "Tesla T4", "nvidia-tesla-t4"]),
    (
        "V100",
        &[
            "V100",
            "Tesla V100-SXM2-16GB",
            "V100 FHHL",
            "Tesla V100 (16 GB)",
        ],
    ),
    (
        "V100-32GB",
        &["V100-32GB", "Tesla V100-SXM2-32GB", "V100 SXM2 32GB"],
    ),
    (
        "GH200",
        &[
            "GH200",
            "NVIDIA GH200 480GB",
            "GH200 (96 GB)",
            "NVIDIA GH200 144G HBM3e",
        ],
    ),
    (
        "B200",
        &["B200", "NVIDIA B200", "B200 (180 GB SXM6)", "B200 192GB"],
    ),
    ("B300", &["B300", "NVIDIA B300 SXM6 AC", "B300 288GB"]),
    (
        "MI300X",
        &[
            "MI300X",
            "AMD Instinct MI300X",
            "amd_mi300x",
            "AMD Instinct MI300X OAM",
        ],
    ),
    ("MI25", &["MI25", "Radeon MI25"]),
    ("V520", &["Radeon Pro V520"]),
    ("Gaudi", &["Gaudi HL-205", "Habana Gaudi", "gaudi"]),
    ("Gaudi2", &["Gaudi2", "HL-225"]),
    ("Trainium2", &["Trainium2", "AWS Trainium2"]),
    ("tpu-v2-8", &["tpu-v2-8", "v2-8", "TPU_V2_8", "tpu v2 8"]),
    (
        "tpu-v5litepod-16",
        &["tpu-v5litepod-16", "tpu-v5e-16", "v5litepod-16"],
    ),
    ("tpu-v6e", &["tpu-v6e", "TPU v6e"]),
    ("n150", &["n150", "Tenstorrent n150s", "Wormhole n150"]),
];

fn name(text: &str) -> String {
    let name = canonical(text);
    assert!(name.known().is_some(), "`{text}` is not known");
    name.to_string()
}

#[test]
fn every_dialect_of_a_card_is_one_name() {
    for (canonical, spellings) in DIALECTS {
        for spelling in *spellings {
            assert_eq!(name(spelling), *canonical, "{spelling}");
        }
    }
}

#[test]
fn the_table_agrees_with_itself() {
    let mut spellings: BTreeMap<String, &str> = BTreeMap::new();
    for entry in known() {
        for spelling in std::iter::once(&entry.name).chain(entry.aliases) {
            let key = dialect::spell(spelling).full;
            let before = spellings.insert(key, entry.name);
            assert_eq!(
                before, None,
                "{spelling} means two things, or is an alias for nothing new"
            );
            assert_eq!(canonical(spelling).as_str(), entry.name);
        }
        assert!(
            !entry.memory_mib.is_empty() && entry.memory_mib.is_sorted(),
            "{}",
            entry.name
        );
        assert!(
            known().iter().any(|base| base.name == entry.family),
            "{}",
            entry.name
        );
        assert_eq!(
            entry.compute_capability.is_some(),
            entry.vendor == Vendor::Nvidia,
            "{}",
            entry.name
        );
    }
}

#[test]
fn an_unknown_name_stays_as_it_was_written() {
    let unknown = [
        "H1000",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "GRID T4-8Q",
        "NVIDIA A10-4Q",
        "NVIDIA GeForce RTX 3060 Laptop GPU",
        "RTX 4090 48GB",
        "H100 64GB",
        "NVIDIA",
        "80GB",
        "tpu-v99-8",
        "tpu-v2-0",
        "v2",
        "",
    ];
    for text in unknown {
        let name = canonical(text);
        assert_eq!((name.as_str(), name.known()), (text, None));
        assert_eq!((name.vendor(), name.compute_capability()), (None, None));
    }
    assert_eq!(canonical("  Foo 9 ").as_str(), "Foo 9");
}

#[test]
fn a_card_of_one_size_never_answers_for_another() {
    let (small, large) = (canonical("A100"), canonical("A100-80GB"));
    assert!(small != large && !small.covers(&large) && !large.covers(&small));
    assert!(!canonical("H100").covers(&canonical("H100-NVL")));
    assert!(!canonical("RTX6000").covers(&canonical("RTX6000-Ada")));
    assert!(small.covers(&canonical("NVIDIA A100-SXM4-40GB")));
}

#[test]
fn a_tpu_generation_answers_for_its_slices_only() {
    let generation = canonical("tpu-v5p");
    assert!(generation.covers(&canonical("tpu-v5p-128")));
    assert!(!generation.covers(&canonical("tpu-v4-128")));
    assert!(!canonical("tpu-v5p-128").covers(&generation));
    assert!(!canonical("tpu-v5p-128").covers(&canonical("tpu-v5p-256")));
    assert_eq!(canonical("tpu-v2-8").vendor(), Some(Vendor::Google));
}

/// What NVML says of real cards, and what they are sold as.
#[test]
fn a_reading_becomes_the_nearest_nominal_size() {
    let readings = [
        ("H100", 81_559, 80),
        ("H100", 81_920, 80),
        ("A100", 40_960, 40),
        ("A100-80GB", 81_251, 80),
        ("H200", 143_771, 141),
        ("B200", 183_359, 180),
        ("B300", 275_040, 270),
        ("L40S", 46_068, 48),
        ("L4", 23_034, 24),
        ("T4", 15_360, 16),
        ("V100", 16_160, 16),
        ("RTX5090", 32_607, 32),
        ("RTXPRO6000", 97_887, 96),
        ("RTX3060", 12_288, 12),
        ("RTX3060", 8_192, 8),
        ("GH200", 97_871, 96),
        ("GH200", 147_456, 144),
        ("MI300X", 196_592, 192),
    ];
    for (name, read, gib) in readings {
        assert_eq!(
            nominal_memory(&canonical(name), read),
            gib * 1024,
            "{name} {read}"
        );
    }
    assert_eq!(nominal_memory(&canonical("foo"), 12_345), 12_345);
}

#[test]
fn name_and_reading_together_say_which_card_it_is() {
    let cases = [
        ("A100", Some(40_960), "A100", Some(40)),
        ("A100", Some(81_251), "A100-80GB", Some(80)),
        ("A100", None, "A100", Some(40)),
        ("A100 PCIe", Some(80 * 1024), "A100-80GB", Some(80)),
        // The name says 80, the reading 40: it is not sold as 80.
        ("A100-80GB", Some(40_960), "A100", Some(40)),
        // GiB written as MiB.
        ("A100-80GB", Some(80), "A100-80GB", Some(80)),
        ("A100", Some(80), "A100-80GB", Some(80)),
        ("A6000", Some(48), "A6000", Some(48)),
        // Eight times 40 GB in one number tells nothing of the card.
        ("A100", Some(8 * 40_960), "A100", Some(40)),
        ("V100", Some(32_510), "V100-32GB", Some(32)),
        ("V100-32GB", None, "V100-32GB", Some(32)),
        ("H100", Some(95_830), "H100-NVL", Some(94)),
        ("H100", Some(81_559), "H100", Some(80)),
        ("RTX3060", None, "RTX3060", Some(8)),
        ("RTX3060", Some(12_288), "RTX3060", Some(12)),
        ("RTX3060", Some(0), "RTX3060", Some(8)),
        // Eight cores are four chips of 16 GB, whatever was read.
        ("tpu-v2-8", None, "tpu-v2-8", Some(64)),
        ("v5litepod-8", Some(0), "tpu-v5litepod-8", Some(128)),
        ("tpu-v5p-12288", Some(7), "tpu-v5p-12288", Some(6144 * 95)),
        ("foo", Some(2048), "foo", Some(2)),
        ("foo", None, "foo", None),
    ];
    for (name, read, expected, gib) in cases {
        let (got, memory) = identify(name, read);
        assert_eq!(
            (got.as_str(), memory),
            (expected, gib.map(|gib: u32| gib * 1024)),
            "{name} {read:?}"
        );
    }
}

#[test]
fn a_share_has_its_part_of_the_memory() {
    let shares = [(167, 4), (333, 8), (500, 12), (1000, 24)];
    for (share, gib) in shares {
        let group = GpuGroup::observed("A10", 1, None, share);
        assert_eq!(
            (group.memory_mib, group.share_milli),
            (Some(gib * 1024), share)
        );
    }
    let eight = GpuGroup::named("nvidia_h100", 8);
    assert_eq!(
        (eight.name.as_str(), eight.vendor),
        ("H100", Some(Vendor::Nvidia))
    );
    assert_eq!(eight.total_memory_mib(), Some(8 * 80 * 1024));
    assert_eq!(GpuGroup::named("foo", 8).total_memory_mib(), None);
}

#[test]
fn capabilities_are_read_ordered_and_printed() {
    let read = |text: &str| text.parse::<ComputeCapability>();
    let ascending = ["3.7", "8.0", "8.6", "12.0"].map(|text| read(text).unwrap());
    assert!(ascending.is_sorted());
    assert_eq!(read("12.1").unwrap().to_string(), "12.1");
    for wrong in ["", "8", "8.", ".6", "8.6.1", "+8.0", "a.b", "300.0"] {
        let error = read(wrong).unwrap_err().to_string();
        assert!(error.contains("write it as 8.0"), "{error}");
    }
    assert_eq!(canonical("H100").compute_capability(), read("9.0").ok());
    assert_eq!(canonical("MI300X").compute_capability(), None);
}

#[test]
fn vendors_are_read_and_printed() {
    for vendor in Vendor::ALL {
        assert_eq!(vendor.to_string().to_uppercase().parse(), Ok(vendor));
    }
    assert_eq!("tpu".parse(), Ok(Vendor::Google));
    assert_eq!("habana".parse(), Ok(Vendor::Intel));
    assert_eq!("amazon".parse(), Ok(Vendor::Aws));
    let error = "nvidea".parse::<Vendor>().unwrap_err().to_string();
    assert!(error.contains("nvidia, amd, intel, google"), "{error}");
}

#[test]
fn a_mistyped_name_has_a_suggestion() {
    assert_eq!(suggestion("H1O0"), Some("H100"));
    assert_eq!(suggestion("RTX409"), Some("RTX4090"));
    assert_eq!(suggestion("something else"), None);
}

#[test]
fn names_are_ordered_by_their_text() {
    let mut names: Vec<GpuName> = ["tpu-v2-8", "foo", "H100", "A100-80GB", "A100"]
        .map(canonical)
        .into();
    names.sort();
    let texts: Vec<&str> = names.iter().map(GpuName::as_str).collect();
    assert_eq!(texts, ["A100", "A100-80GB", "H100", "foo", "tpu-v2-8"]);
}

fn entries() -> impl Strategy<Value = &'static Known> {
    select(known().iter().collect::<Vec<_>>())
}

/// A name with its separators replaced, its case changed and its maker in front.
fn respelled() -> impl Strategy<Value = (String, &'static str)> {
    let separator = select(vec!["", " ", "-", "_"]);
    let maker = select(vec!["", "NVIDIA ", "amd_", "Intel-", "nvidia-tesla-"]);
    (entries(), separator, maker, any::<bool>()).prop_map(|(entry, separator, maker, upper)| {
        let text = format!("{maker}{}", entry.name.replace(['-', ' '], separator));
        (
            if upper {
                text.to_uppercase()
            } else {
                text.to_lowercase()
            },
            entry.name,
        )
    })
}

proptest! {
    #[test]
    fn case_separators_and_makers_do_not_count((text, name) in respelled()) {
        let read = canonical(&text);
        prop_assert_eq!(read.as_str(), name);
    }

    #[test]
    fn a_canonical_name_is_its_own(text in r"\PC{0,24}") {
        let once = canonical(&text);
        prop_assert_eq!(&canonical(once.as_str()), &once);
        if once.known().is_none() {
            prop_assert_eq!(once.as_str(), text.trim());
        }
    }

    #[test]
    fn a_nominal_size_is_one_of_the_table_and_stays(entry in entries(), read in 1u32..400_000) {
        let (name, memory) = identify(entry.name, Some(read));
        let memory = memory.unwrap();
        let member = name.known().unwrap();
        prop_assert_eq!(member.family, entry.family);
        prop_assert!(member.memory_mib.contains(&memory));
        prop_assert_eq!(identify(name.as_str(), Some(memory)), (name, Some(memory)));
    }
}

/// As gpuhunt and the live providers write them, with what each is.
const WRITTEN_ELSEWHERE: &[(&str, &str)] = &[
    ("RTX2000Ada", "RTX2000-Ada"),
    ("RTX4000Ada", "RTX4000-Ada"),
    ("RTX6000Ada", "RTX6000-Ada"),
    ("RTX 6000Ada", "RTX6000-Ada"),
    ("RTX 4000 Ada SFF", "RTX4000-Ada"),
    ("RTX 5000 Ada", "RTX5000-Ada"),
    ("nvidia_rtx4000_ada", "RTX4000-Ada"),
    ("H100NVL", "H100-NVL"),
    ("H100 NVL", "H100-NVL"),
    ("H200NVL", "H200-NVL"),
    ("H200 SXM", "H200"),
    ("H100 SXM", "H100"),
    ("H100 80GB HBM3", "H100"),
    ("NVIDIA H100 PCIe", "H100"),
    ("NVIDIA B200", "B200"),
    ("B300", "B300"),
    ("B300 PC", "B300"),
    ("B300 SXM6 AC", "B300"),
    ("GB300", "GB300"),
    ("A100 SXM4", "A100"),
    ("A100 PCIE", "A100"),
    ("A100X", "A100-80GB"),
    ("A100-SXM4-80GB", "A100-80GB"),
    ("NVIDIA A100 80GB PCIe", "A100-80GB"),
    ("A800 PCIE", "A800"),
    ("Tesla V100", "V100"),
    ("V100 SXM2 32GB", "V100-32GB"),
    ("V100 FHHL", "V100"),
    ("Q RTX 8000", "RTX8000"),
    ("QRTX8000", "RTX8000"),
    ("RTXPRO4500", "RTXPRO4500"),
    ("RTX PRO 6000 WK", "RTXPRO6000"),
    ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTXPRO6000"),
    ("RTX 4070S Ti", "RTX4070TiSUPER"),
    ("RTX 3080 Ti", "RTX3080Ti"),
    ("RTX 4090D", "RTX4090D"),
    ("GTX 1660 S", "GTX1660SUPER"),
    ("RTX A6000", "A6000"),
    ("NVIDIA L40S", "L40S"),
    ("amd_mi300x", "MI300X"),
    ("AMD Instinct MI300X OAM", "MI300X"),
    ("MI308X", "MI308X"),
    ("MI355X", "MI355X"),
    ("Gaudi2", "Gaudi2"),
    ("tt-galaxy-wh", "tt-galaxy-wh"),
    ("tt-galaxy-bh", "tt-galaxy-bh"),
    ("Titan Xp", "TITAN-Xp"),
    ("Titan V", "TITAN-V"),
];

#[test]
fn names_of_other_lists_mean_what_they_mean() {
    let wrong: Vec<_> = WRITTEN_ELSEWHERE
        .iter()
        .map(|(written, meant)| (written, meant, canonical(written).to_string()))
        .filter(|(_, meant, got)| got != *meant)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (written, _) in WRITTEN_ELSEWHERE {
        assert!(lookup(written).is_some(), "{written}");
    }
}
