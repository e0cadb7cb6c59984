use super::*;
use proptest::prelude::*;

#[test]
fn processors_are_counted_in_thousandths() {
    let cases = [
        ("8", 8000),
        ("0.5", 500),
        (".25", 250),
        ("500m", 500),
        ("1500m", 1500),
        ("0.125", 125),
        ("0.500000", 500),
        (" 2 ", 2000),
        ("0", 0),
        ("2147483.647", MAX_MILLI),
    ];
    for (text, milli) in cases {
        assert_eq!(parse(text), Ok(milli), "{text}");
    }
}

#[test]
fn what_is_no_number_of_processors_is_refused() {
    let owned = str::to_owned;
    for text in ["", "m", "-1", "8 cores", "1.", "1e3", "0x8", "1,5"] {
        assert_eq!(parse(text), Err(Error::Malformed(owned(text))), "{text}");
    }
    for text in ["0.0005", "0.5m", "0.33333333333333333333333"] {
        assert_eq!(parse(text), Err(Error::TooFine(owned(text))), "{text}");
    }
    for text in ["2147483.648", "99999999999999999999"] {
        assert_eq!(parse(text), Err(Error::TooLarge(owned(text))), "{text}");
    }
    assert!(
        parse("eight")
            .unwrap_err()
            .to_string()
            .contains("write 8, 0.5 or 500m")
    );
}

proptest! {
    #[test]
    fn what_is_printed_reads_as_the_same(milli in 0..=MAX_MILLI) {
        prop_assert_eq!(parse(&print(milli)), Ok(milli));
    }

    #[test]
    fn any_text_is_read_or_refused(text in r"[0-9.m]{0,14}|\PC{0,12}") {
        if let Ok(milli) = parse(&text) {
            prop_assert!(milli <= MAX_MILLI);
        }
    }
}
