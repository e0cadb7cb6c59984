//! Takes a spelling apart: what of it names the card, and what only decorates it.

/// Words that say nothing of which card it is: makers, brands, form factors, kinds of memory.
const NOISE: &[&str] = &[
    "accelerator",
    "amazon",
    "amd",
    "aws",
    "blackwell",
    "card",
    "corporation",
    "dgx",
    "edition",
    "fhfl",
    "fhhl",
    "gddr5",
    "gddr6",
    "gddr6x",
    "gddr7",
    "geforce",
    "generation",
    "google",
    "gpu",
    "graphics",
    "habana",
    "hbm2",
    "hbm2e",
    "hbm3",
    "hbm3e",
    "hgx",
    "instinct",
    "intel",
    "nvidia",
    "nvlink",
    "oam",
    "pcie",
    "quadro",
    "r",
    "radeon",
    "server",
    "sxm",
    "sxm2",
    "sxm3",
    "sxm4",
    "sxm5",
    "sxm6",
    "tenstorrent",
    "tesla",
    "tm",
    "workstation",
];

const FORM_FACTORS: &[&str] = &[
    "sxm2", "sxm3", "sxm4", "sxm5", "sxm6", "sxm", "pcie", "nvlink",
];

/// A name, taken apart.
pub(super) struct Spelling {
    /// The words that matter, in lower case.
    pub(super) words: Vec<String>,
    /// The words that matter, joined.
    pub(super) full: String,
    /// The same without an amount of memory.
    pub(super) bare: String,
    /// The amount of memory that was in the name.
    pub(super) memory_gib: Option<u32>,
}

/// Takes a name apart.
pub(super) fn spell(name: &str) -> Spelling {
    let lower = name.to_ascii_lowercase();
    let all: Vec<&str> = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let mut words = Vec::with_capacity(all.len());
    let (mut full, mut bare, mut memory_gib) = (String::new(), String::new(), None);
    let mut rest = all.as_slice();
    while let [word, after @ ..] = rest {
        rest = after;
        if NOISE.contains(word) {
            continue;
        }
        words.push((*word).to_owned());
        full.push_str(word);
        match amount(word, after) {
            Some((gib, taken)) => {
                memory_gib = Some(gib);
                rest = after.get(taken..).unwrap_or_default();
                if taken > 0 {
                    full.push_str("gb");
                }
            }
            None => bare.push_str(word),
        }
    }
    Spelling {
        words,
        full,
        bare,
        memory_gib,
    }
}

/// `h100sxm5` without its `sxm5`.
pub(super) fn without_form_factor(key: &str) -> Option<&str> {
    FORM_FACTORS
        .iter()
        .find_map(|ending| key.strip_suffix(ending))
}

/// An amount of memory, and how many of the words after it belong to it: `80gb`, or `80` `gb`.
fn amount(word: &str, after: &[&str]) -> Option<(u32, usize)> {
    let units = ["gb", "gib", "g"];
    let glued = units
        .iter()
        .find_map(|unit| word.strip_suffix(unit)?.parse().ok());
    let apart = || {
        let unit = after.first()?;
        units.contains(unit).then(|| word.parse().ok()).flatten()
    };
    glued
        .map(|gib| (gib, 0))
        .or_else(|| apart().map(|gib| (gib, 1)))
}
