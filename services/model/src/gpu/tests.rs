use super::*;
use std::collections::BTreeMap;

fn name(text: &str) -> String {
    let name = canonical(text);
    assert!(name.known().is_some(), "`{text}` is not known");
    name.to_string()
}

#[test]
fn every_dialect_of_a_card_is_one_name() {
    let dialects: &[(&str, &[&str])] = &[
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
    for (canonical, spellings) in dialects {
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
