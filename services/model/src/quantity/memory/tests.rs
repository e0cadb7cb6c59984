use super::*;
use proptest::prelude::*;

#[test]
fn units_are_binary_whatever_they_are_called() {
    let cases = [
        ("64GB", 65_536),
        ("64GiB", 65_536),
        ("64G", 65_536),
        ("64gb", 65_536),
        (" 64 GB ", 65_536),
        ("512MB", 512),
        ("512m", 512),
        ("2TB", 2_097_152),
        ("2047T", 2047 << 20),
        ("1024KB", 1),
        ("1.5GB", 1536),
        (".5GiB", 512),
        ("0.50000000000000000000G", 512),
        ("0GB", 0),
        // A part of a MiB counts as a whole one.
        ("1K", 1),
        ("1025K", 2),
        ("1.3GB", 1332),
        ("2147483647MB", MAX_MIB),
    ];
    for (text, mib) in cases {
        assert_eq!(parse(text), Ok(mib), "{text}");
    }
}

#[test]
fn what_is_no_memory_is_refused_with_what_to_write() {
    let owned = str::to_owned;
    assert_eq!(parse("64"), Err(Error::NoUnit(owned("64"))));
    assert_eq!(
        parse("64").unwrap_err().to_string(),
        "`64` has no unit: write 64GB or 64MB (K, M, G and T are binary)"
    );
    for text in [
        "", "GB", "-1GB", "+1GB", "1.GB", "1..2GB", "1e3GB", "64XB", "64B", "64GBB", "64Gi",
        "64 G B", "٣GB",
    ] {
        assert_eq!(parse(text), Err(Error::Malformed(owned(text))), "{text}");
    }
    for text in [
        "2048TB",
        "2147483648MB",
        "99999999999999999999GB",
        "2147483647.5MB",
    ] {
        assert_eq!(parse(text), Err(Error::TooLarge(owned(text))), "{text}");
    }
}

#[test]
fn amounts_are_printed_exactly_and_for_people() {
    let exact = [
        (0, "0MB"),
        (81_920, "80GB"),
        (81_559, "81559MB"),
        (1 << 20, "1TB"),
        (1536, "1536MB"),
    ];
    for (mib, text) in exact {
        assert_eq!(print(mib), text);
    }
    let human_cases = [
        (0, "0 MB"),
        (1023, "1023 MB"),
        (1024, "1 GB"),
        (1536, "1.5 GB"),
        (81_559, "79.6 GB"),
        (81_920, "80 GB"),
        (1 << 20, "1 TB"),
        (1_572_864, "1.5 TB"),
    ];
    for (mib, text) in human_cases {
        assert_eq!(human(mib), text);
    }
}

proptest! {
    #[test]
    fn what_is_printed_reads_as_the_same(mib in 0..=MAX_MIB) {
        prop_assert_eq!(parse(&print(mib)), Ok(mib));
    }

    #[test]
    fn any_text_is_read_or_refused(text in r"[0-9.]{0,24}[ KMGTiBb]{0,3}|\PC{0,12}") {
        if let Ok(mib) = parse(&text) {
            prop_assert!(mib <= MAX_MIB);
        }
    }

    #[test]
    fn people_are_told_any_amount(mib: u64) {
        prop_assert!(human(mib).len() <= 24);
    }
}
