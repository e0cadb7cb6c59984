//! The one table of accelerators.
//!
//! Memory is the size that the card is sold by, in binary units (an "80 GB" card has 81,920 MiB),
//! as in the makers' data sheets and in what providers list; compute capabilities are NVIDIA's
//! published ones. Cards that differ only in memory and are sold as different things are entries
//! of one family; where the larger one is just called the same, an entry has several sizes.

use super::compute::ComputeCapability;
use super::vendor::Vendor;

/// What is known of an accelerator.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    /// The canonical name.
    pub name: &'static str,
    /// The name that, together with an amount of memory, may mean this card too: `A100` for
    /// `A100-80GB`. Mostly the name itself.
    pub family: &'static str,
    /// Who makes it.
    pub vendor: Vendor,
    /// Nominal sizes of one accelerator's memory in MiB, ascending; of a TPU, of one chip.
    pub memory_mib: &'static [u32],
    /// The CUDA compute capability, of NVIDIA's.
    pub compute_capability: Option<ComputeCapability>,
    /// Other spellings that differ in more than case, separators, brand and form factor.
    pub aliases: &'static [&'static str],
}

/// All accelerators of the table.
pub fn known() -> &'static [Known] {
    TABLE
}

const GIB: u32 = 1024;

const fn other(vendor: Vendor, name: &'static str, memory_mib: &'static [u32]) -> Known {
    Known {
        name,
        family: name,
        vendor,
        memory_mib,
        compute_capability: None,
        aliases: &[],
    }
}

const fn nvidia(name: &'static str, compute: (u8, u8), memory_mib: &'static [u32]) -> Known {
    let (major, minor) = compute;
    let compute_capability = Some(ComputeCapability { major, minor });
    Known {
        compute_capability,
        ..other(Vendor::Nvidia, name, memory_mib)
    }
}

const fn amd(name: &'static str, memory_mib: &'static [u32]) -> Known {
    other(Vendor::Amd, name, memory_mib)
}

impl Known {
    const fn or(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    const fn of(self, family: &'static str) -> Self {
        Self { family, ..self }
    }
}

static TABLE: &[Known] = &[
    // NVIDIA, data centre.
    nvidia("GB300", (10, 3), &[270 * GIB]).or(&["GB300 NVL72"]),
    nvidia("B300", (10, 3), &[270 * GIB]).or(&["B300 AC", "B300 PC"]),
    nvidia("GB200", (10, 0), &[186 * GIB]).or(&["GB200 NVL72", "GB200 NVL4"]),
    nvidia("B200", (10, 0), &[180 * GIB]),
    nvidia("GB10", (12, 1), &[128 * GIB]).or(&["DGX Spark"]),
    nvidia("GH200", (9, 0), &[96 * GIB, 144 * GIB]).or(&["GH200 480GB", "GH200 144G HBM3e"]),
    nvidia("H200", (9, 0), &[141 * GIB]),
    nvidia("H200-NVL", (9, 0), &[141 * GIB]),
    nvidia("H100", (9, 0), &[80 * GIB]).or(&["H100-MEGA", "H100-MEGA-80GB", "H100-80GB"]),
    nvidia("H100-NVL", (9, 0), &[94 * GIB]).of("H100"),
    nvidia("H800", (9, 0), &[80 * GIB]),
    nvidia("H20", (9, 0), &[96 * GIB, 141 * GIB]),
    nvidia("L4", (8, 9), &[24 * GIB]),
    nvidia("L20", (8, 9), &[48 * GIB]),
    nvidia("L40", (8, 9), &[48 * GIB]),
    nvidia("L40S", (8, 9), &[48 * GIB]),
    nvidia("A100", (8, 0), &[40 * GIB]).or(&["A100-40GB"]),
    nvidia("A100-80GB", (8, 0), &[80 * GIB])
        .of("A100")
        .or(&["A100X"]),
    nvidia("A800", (8, 0), &[40 * GIB]).or(&["A800 40GB Active"]),
    nvidia("A800-80GB", (8, 0), &[80 * GIB]).of("A800"),
    nvidia("A30", (8, 0), &[24 * GIB]),
    nvidia("A40", (8, 6), &[48 * GIB]),
    nvidia("A10", (8, 6), &[24 * GIB]),
    nvidia("A10G", (8, 6), &[24 * GIB]),
    nvidia("A16", (8, 6), &[16 * GIB]),
    nvidia("A2", (8, 6), &[16 * GIB]),
    nvidia("T4", (7, 5), &[16 * GIB]),
    nvidia("T4G", (7, 5), &[16 * GIB]),
    nvidia("V100", (7, 0), &[16 * GIB]).or(&["V100-16GB"]),
    nvidia("V100-32GB", (7, 0), &[32 * GIB])
        .of("V100")
        .or(&["V100S"]),
    nvidia("P100", (6, 0), &[12 * GIB, 16 * GIB]),
    nvidia("P40", (6, 1), &[24 * GIB]),
    nvidia("P4", (6, 1), &[8 * GIB]),
    nvidia("M60", (5, 2), &[8 * GIB]),
    nvidia("M40", (5, 2), &[12 * GIB, 24 * GIB]),
    nvidia("K80", (3, 7), &[12 * GIB]),
    // NVIDIA, workstation.
    nvidia("RTXPRO6000", (12, 0), &[96 * GIB]).or(&[
        "RTX PRO 6000 WS",
        "RTX PRO 6000 WK",
        "RTX PRO 6000 S",
        "RTX PRO 6000 SE",
        "RTX PRO 6000 Max-Q",
        "RTX 6000 PRO",
    ]),
    nvidia("RTXPRO5000", (12, 0), &[48 * GIB, 72 * GIB]),
    nvidia("RTXPRO4500", (12, 0), &[32 * GIB]),
    nvidia("RTXPRO4000", (12, 0), &[24 * GIB]),
    nvidia("RTXPRO2000", (12, 0), &[16 * GIB]),
    nvidia("RTX6000-Ada", (8, 9), &[48 * GIB]).or(&["6000 Ada"]),
    nvidia("RTX5880-Ada", (8, 9), &[48 * GIB]),
    nvidia("RTX5000-Ada", (8, 9), &[32 * GIB]).or(&["5000 Ada"]),
    nvidia("RTX4500-Ada", (8, 9), &[24 * GIB]).or(&["4500 Ada"]),
    nvidia("RTX4000-Ada", (8, 9), &[20 * GIB]).or(&[
        "4000 Ada",
        "RTX 4000 SFF Ada",
        "RTX 4000 Ada SFF",
    ]),
    nvidia("RTX2000-Ada", (8, 9), &[16 * GIB]).or(&["2000 Ada"]),
    nvidia("A6000", (8, 6), &[48 * GIB]).or(&["RTX A6000"]),
    nvidia("A5500", (8, 6), &[24 * GIB]).or(&["RTX A5500"]),
    nvidia("A5000", (8, 6), &[24 * GIB]).or(&["RTX A5000"]),
    nvidia("A4500", (8, 6), &[20 * GIB]).or(&["RTX A4500"]),
    nvidia("A4000", (8, 6), &[16 * GIB]).or(&["RTX A4000"]),
    nvidia("A2000", (8, 6), &[6 * GIB, 12 * GIB]).or(&["RTX A2000"]),
    nvidia("RTX8000", (7, 5), &[48 * GIB]).or(&["Q RTX 8000"]),
    nvidia("RTX6000", (7, 5), &[24 * GIB]).or(&["Q RTX 6000"]),
    nvidia("RTX5000", (7, 5), &[16 * GIB]).or(&["Q RTX 5000"]),
    nvidia("RTX4000", (7, 5), &[8 * GIB]).or(&["Q RTX 4000"]),
    nvidia("P6000", (6, 1), &[24 * GIB]),
    nvidia("P5000", (6, 1), &[16 * GIB]),
    nvidia("P4000", (6, 1), &[8 * GIB]),
    nvidia("M4000", (5, 2), &[8 * GIB]),
    // NVIDIA, consumer.
    nvidia("RTX5090", (12, 0), &[32 * GIB]),
    nvidia("RTX5090D", (12, 0), &[24 * GIB, 32 * GIB]),
    nvidia("RTX5080", (12, 0), &[16 * GIB]),
    nvidia("RTX5070Ti", (12, 0), &[16 * GIB]),
    nvidia("RTX5070", (12, 0), &[12 * GIB]),
    nvidia("RTX5060Ti", (12, 0), &[8 * GIB, 16 * GIB]),
    nvidia("RTX5060", (12, 0), &[8 * GIB]),
    nvidia("RTX5050", (12, 0), &[8 * GIB]),
    nvidia("RTX4090", (8, 9), &[24 * GIB]),
    nvidia("RTX4090D", (8, 9), &[24 * GIB]),
    nvidia("RTX4080SUPER", (8, 9), &[16 * GIB]).or(&["RTX 4080S"]),
    nvidia("RTX4080", (8, 9), &[16 * GIB]),
    nvidia("RTX4070TiSUPER", (8, 9), &[16 * GIB]).or(&["RTX 4070S Ti", "RTX 4070 Ti S"]),
    nvidia("RTX4070Ti", (8, 9), &[12 * GIB]),
    nvidia("RTX4070SUPER", (8, 9), &[12 * GIB]).or(&["RTX 4070S"]),
    nvidia("RTX4070", (8, 9), &[12 * GIB]),
    nvidia("RTX4060Ti", (8, 9), &[8 * GIB, 16 * GIB]),
    nvidia("RTX4060", (8, 9), &[8 * GIB]),
    nvidia("RTX3090Ti", (8, 6), &[24 * GIB]),
    nvidia("RTX3090", (8, 6), &[24 * GIB]),
    nvidia("RTX3080Ti", (8, 6), &[12 * GIB]),
    nvidia("RTX3080", (8, 6), &[10 * GIB, 12 * GIB]),
    nvidia("RTX3070Ti", (8, 6), &[8 * GIB]),
    nvidia("RTX3070", (8, 6), &[8 * GIB]),
    nvidia("RTX3060Ti", (8, 6), &[8 * GIB]),
    nvidia("RTX3060", (8, 6), &[8 * GIB, 12 * GIB]),
    nvidia("RTX3050", (8, 6), &[6 * GIB, 8 * GIB]),
    nvidia("RTX2080Ti", (7, 5), &[11 * GIB]),
    nvidia("RTX2080SUPER", (7, 5), &[8 * GIB]).or(&["RTX 2080S"]),
    nvidia("RTX2080", (7, 5), &[8 * GIB]),
    nvidia("RTX2070SUPER", (7, 5), &[8 * GIB]).or(&["RTX 2070S"]),
    nvidia("RTX2070", (7, 5), &[8 * GIB]),
    nvidia("RTX2060SUPER", (7, 5), &[8 * GIB]).or(&["RTX 2060S"]),
    nvidia("RTX2060", (7, 5), &[6 * GIB, 12 * GIB]),
    nvidia("TITAN-RTX", (7, 5), &[24 * GIB]),
    nvidia("TITAN-V", (7, 0), &[12 * GIB]),
    nvidia("TITAN-Xp", (6, 1), &[12 * GIB]),
    nvidia("GTX1660Ti", (7, 5), &[6 * GIB]),
    nvidia("GTX1660SUPER", (7, 5), &[6 * GIB]).or(&["GTX 1660S"]),
    nvidia("GTX1660", (7, 5), &[6 * GIB]),
    nvidia("GTX1650", (7, 5), &[4 * GIB]),
    nvidia("GTX1080Ti", (6, 1), &[11 * GIB]),
    nvidia("GTX1080", (6, 1), &[8 * GIB]),
    nvidia("GTX1070Ti", (6, 1), &[8 * GIB]),
    nvidia("GTX1070", (6, 1), &[8 * GIB]),
    nvidia("GTX1060", (6, 1), &[3 * GIB, 6 * GIB]),
    // AMD.
    amd("MI355X", &[288 * GIB]),
    amd("MI350X", &[288 * GIB]),
    amd("MI325X", &[256 * GIB]),
    amd("MI308X", &[192 * GIB]),
    amd("MI300X", &[192 * GIB]),
    amd("MI300A", &[128 * GIB]),
    amd("MI250X", &[128 * GIB]),
    amd("MI250", &[128 * GIB]),
    amd("MI210", &[64 * GIB]),
    amd("MI100", &[32 * GIB]),
    amd("MI60", &[32 * GIB]),
    amd("MI50", &[16 * GIB, 32 * GIB]),
    amd("MI25", &[16 * GIB]),
    amd("V520", &[8 * GIB]).or(&["Radeon Pro V520"]),
    amd("V620", &[32 * GIB]).or(&["Radeon Pro V620"]),
    amd("V710", &[28 * GIB]).or(&["Radeon Pro V710"]),
    amd("W7900", &[48 * GIB]).or(&["Radeon Pro W7900"]),
    amd("RX7900XTX", &[24 * GIB]),
    amd("RX7900XT", &[20 * GIB]),
    amd("RX9070XT", &[16 * GIB]),
    // Intel.
    other(Vendor::Intel, "Gaudi3", &[128 * GIB]).or(&["HL-325", "Gaudi3 HL-325"]),
    other(Vendor::Intel, "Gaudi2", &[96 * GIB]).or(&["HL-225", "Gaudi2 HL-225"]),
    other(Vendor::Intel, "Gaudi", &[32 * GIB]).or(&["HL-205", "Gaudi HL-205"]),
    other(Vendor::Intel, "Max1550", &[128 * GIB]).or(&["Data Center GPU Max 1550"]),
    other(Vendor::Intel, "Max1100", &[48 * GIB]).or(&["Data Center GPU Max 1100"]),
    other(Vendor::Intel, "Flex170", &[16 * GIB]).or(&["Data Center GPU Flex 170"]),
    // Google: memory of one chip.
    other(Vendor::Google, "tpu-v6e", &[32 * GIB]),
    other(Vendor::Google, "tpu-v5p", &[95 * GIB]),
    other(Vendor::Google, "tpu-v5litepod", &[16 * GIB]).or(&["tpu-v5e", "tpu-v5lite"]),
    other(Vendor::Google, "tpu-v4", &[32 * GIB]),
    other(Vendor::Google, "tpu-v3", &[32 * GIB]),
    other(Vendor::Google, "tpu-v2", &[16 * GIB]),
    // Amazon.
    other(Vendor::Aws, "Trainium2", &[96 * GIB]).or(&["Trn2"]),
    other(Vendor::Aws, "Trainium", &[32 * GIB]).or(&["Trn1"]),
    other(Vendor::Aws, "Inferentia2", &[32 * GIB]).or(&["Inf2"]),
    other(Vendor::Aws, "Inferentia", &[8 * GIB]).or(&["Inf1"]),
    // Tenstorrent.
    other(Vendor::Tenstorrent, "n150", &[12 * GIB]).or(&["n150d", "n150s", "Wormhole n150"]),
    other(Vendor::Tenstorrent, "n300", &[24 * GIB]).or(&["n300d", "n300s", "Wormhole n300"]),
    other(Vendor::Tenstorrent, "p100a", &[28 * GIB]).or(&["Blackhole p100a"]),
    other(Vendor::Tenstorrent, "p150", &[32 * GIB]).or(&["p150a", "p150b", "Blackhole p150"]),
    other(Vendor::Tenstorrent, "p300", &[32 * GIB, 64 * GIB]).or(&["p300a", "Blackhole p300"]),
    other(Vendor::Tenstorrent, "tt-galaxy-wh", &[12 * GIB]),
    other(Vendor::Tenstorrent, "tt-galaxy-bh", &[32 * GIB]),
];
