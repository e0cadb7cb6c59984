//! Reads the GpuInfo column: a Python dict literal, JSON, or a bare word. It takes out the few
//! facts that it needs and never fails: whatever else is in there, a catalogue's row does not
//! depend on it. What the numbers mean (of one card or of all, MiB or GiB) is decided by
//! [`Sizes`], by what most rows of the same file must have meant.

use muster_model::gpu;

/// What a GpuInfo says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuInfo {
    /// The first `SizeInMiB`, as written.
    pub size: Option<u32>,
    /// The first `Count`, if it is a whole number.
    pub count: Option<u32>,
}

/// Reads one. A bare word says nothing but a name, which has a column of its own.
pub fn parse(text: &str) -> GpuInfo {
    let mut info = GpuInfo::default();
    for (key, value) in pairs(text) {
        let slot = match key {
            "SizeInMiB" => &mut info.size,
            "Count" => &mut info.count,
            _ => continue,
        };
        if slot.is_none() {
            *slot = whole(value);
        }
    }
    info
}

/// Every `'key': value` of a literal in either dialect, at any depth, where the value is not quoted.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let open = rest.find(['\'', '"'])?;
            let quote = rest[open..].chars().next()?;
            let inside = &rest[open + 1..];
            let close = inside.find(quote)?;
            let key = &inside[..close];
            rest = &inside[close + 1..];
            if let Some(value) = rest.trim_start().strip_prefix(':') {
                let value = value.trim_start();
                let end = value.find([',', '}', ']', '{', '[', '\'', '"']);
                return Some((key, value[..end.unwrap_or(value.len())].trim()));
            }
        }
    })
}

/// A number that is whole, also when it is written as a float.
fn whole(text: &str) -> Option<u32> {
    let whole = match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    whole.parse().ok()
}

/// What a file's sizes are of: one card, or all cards of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    each: u32,
    total: u32,
}

impl Sizes {
    /// Counts a row whose cards are known. Rows with one card say nothing.
    pub fn observe(&mut self, name: &str, count: u32, size: u32) {
        if count < 2 {
            return;
        }
        let (Some(each), Some(total)) = (misfit(name, size), misfit(name, size / count)) else {
            return;
        };
        if each < total {
            self.each += 1;
        } else if total < each {
            self.total += 1;
        }
    }

    /// The size of one card, as far as this row tells; of rows that could mean either, by what
    /// most rows of the file mean; the smaller of two that the card comes in where they do not tell
    /// either, since nobody may be sold more than there is.
    pub fn of_one(self, name: &str, count: u32, size: u32) -> u32 {
        if count < 2 {
            return size;
        }
        let total = match (misfit(name, size), misfit(name, size / count)) {
            (Some(each), Some(total)) if each.abs_diff(total) > CLOSE => total < each,
            (Some(_), Some(_)) => self.total >= self.each,
            (None, _) | (_, None) => self.total > self.each,
        };
        if total { size / count } else { size }
    }
}

/// Differences of misfits below this, in thousandths, tell nothing.
const CLOSE: u32 = 60;

/// How far a reading is from the nearest nominal size of the card, in thousandths of the reading;
/// none for a card that is not known.
fn misfit(name: &str, size: u32) -> Option<u32> {
    gpu::lookup(name)?;
    let (_, nominal) = gpu::identify(name, Some(size));
    // Catalogues that write GiB for MiB do so for small numbers only.
    let size = if size < 1024 {
        size.checked_mul(1024)?
    } else {
        size
    };
    let distance = u64::from(nominal?.abs_diff(size)) * 1000;
    u32::try_from(distance / u64::from(size.max(1))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn info(size: u32, count: u32) -> GpuInfo {
        GpuInfo {
            size: Some(size),
            count: Some(count),
        }
    }

    #[test]
    fn dialects() {
        let python = "{'Gpus': [{'Name': 'V100', 'Manufacturer': 'NVIDIA', 'Count': 8.0, 'MemoryInfo': {'SizeInMiB': 16384}}], 'TotalGpuMemoryInMiB': 16384}";
        let json =
            r#"{"Gpus": [{"Name": "T4", "Count": 4, "MemoryInfo": {"SizeInMiB": 16384.0}}]}"#;
        let short = "{'Gpus': [{'MemoryInfo': {'SizeInMiB': 40960}}]}";
        assert_eq!(parse(python), info(16384, 8));
        assert_eq!(parse(json), info(16384, 4));
        assert_eq!(
            parse(short),
            GpuInfo {
                size: Some(40960),
                count: None
            }
        );
        for nothing in [
            "",
            "A100_SXM_80GB",
            "{",
            "'",
            "{'SizeInMiB': None}",
            "{'SizeInMiB'",
            "\"a\": \"b\"",
        ] {
            assert_eq!(parse(nothing), GpuInfo::default(), "{nothing:?}");
        }
    }

    #[test]
    fn totals_are_told_from_sizes_by_the_card() {
        let sizes = Sizes::default();
        assert_eq!(
            sizes.of_one("RTX5090", 8, 260_856),
            32_607,
            "vast writes the total"
        );
        assert_eq!(
            sizes.of_one("A6000", 4, 49_152),
            49_152,
            "lambda writes one card's"
        );
        assert_eq!(
            sizes.of_one("A6000", 4, 48),
            48,
            "GiB stay; the table knows them"
        );
        assert_eq!(sizes.of_one("H100", 8, 640), 80, "a total in GiB");
    }

    #[test]
    fn where_nothing_tells_the_smaller_card_is_sold() {
        let sizes = Sizes::default();
        assert_eq!(sizes.of_one("A100", 2, 81_920), 40_960);
        assert_eq!(sizes.of_one("V100", 2, 32_768), 16_384);
        assert_eq!(sizes.of_one("Unheard-Of", 2, 20_000), 20_000);
    }

    #[test]
    fn what_could_be_either_is_what_the_file_means() {
        let mut totals = Sizes::default();
        totals.observe("RTX4090", 2, 49_128);
        assert_eq!(totals.of_one("A100", 2, 81_920), 40_960);
        assert_eq!(totals.of_one("A100", 2, 163_840), 81_920);
        assert_eq!(totals.of_one("Unheard-Of", 2, 20_000), 10_000);
        let mut each = Sizes::default();
        each.observe("V100", 8, 16_384);
        assert_eq!(each.of_one("A100", 2, 81_920), 81_920);
        assert_eq!(each.of_one("Unheard-Of", 2, 20_000), 20_000);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), name in "[A-Z]{0,2}[0-9]{0,4}", count in any::<u32>()) {
            let told = parse(&text);
            let mut sizes = Sizes::default();
            for size in told.size.into_iter().chain([0, 1, 48, 81_920, u32::MAX]) {
                sizes.observe(&name, count, size);
                prop_assert!(sizes.of_one(&name, count, size) <= size);
            }
        }

        #[test]
        fn what_is_written_is_read(size in any::<u32>(), count in any::<u32>(), junk in "[^'\"]{0,20}") {
            for quote in ['\'', '"'] {
                let text = format!("{{{quote}A{quote}: {quote}{junk}{quote}, {quote}Count{quote}: {count}.0, {quote}M{quote}: {{{quote}SizeInMiB{quote}: {size}}}}}");
                prop_assert_eq!(parse(&text), info(size, count), "{}", text);
            }
        }
    }
}
