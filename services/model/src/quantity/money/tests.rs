use super::*;
use proptest::prelude::*;

fn dollars(text: &str) -> Result<i64, Error> {
    text.parse::<MicroUsd>().map(|amount| amount.0)
}

#[test]
fn dollars_are_read_exactly() {
    let cases = [
        ("12.5", 12_500_000),
        ("$12.50", 12_500_000),
        ("0.1", 100_000),
        ("0.007577", 7_577),
        ("0.94803", 948_030),
        ("0.000001", 1),
        ("0.0000010000", 1),
        (".5", 500_000),
        ("0", 0),
        (" 7 ", 7_000_000),
        ("9223372036854.775807", i64::MAX),
    ];
    for (text, micro) in cases {
        assert_eq!(dollars(text), Ok(micro), "{text}");
    }
}

#[test]
fn what_is_no_money_is_refused() {
    let owned = str::to_owned;
    for text in [
        "", "$", "-1", "1,50", "1.", "free", "1e-3", "12.5 USD", "$-1", "NaN", "inf",
    ] {
        assert_eq!(dollars(text), Err(Error::Malformed(owned(text))), "{text}");
    }
    assert_eq!(
        dollars("0.0000001"),
        Err(Error::TooFine(owned("0.0000001")))
    );
    for text in ["9223372036854.775808", "99999999999999999999"] {
        assert_eq!(dollars(text), Err(Error::TooLarge(owned(text))), "{text}");
    }
}

#[test]
fn machines_numbers_are_taken_to_the_nearest_millionth() {
    let cases = [
        ("0.33999999999999997", Some(340_000)),
        ("1e-3", Some(1_000)),
        ("4.0000000e0", Some(4_000_000)),
        ("0.0000004", Some(0)),
        ("0.0000006", Some(1)),
        ("2.99", Some(2_990_000)),
        ("-0.0", Some(0)),
        ("-1", None),
        ("NaN", None),
        ("inf", None),
        ("", None),
        ("1e30", None),
        ("a lot", None),
    ];
    for (text, micro) in cases {
        assert_eq!(MicroUsd::nearest(text), micro.map(MicroUsd), "{text}");
    }
    assert_eq!(MicroUsd::from_dollars(0.1 + 0.2), Some(MicroUsd(300_000)));
}

#[test]
fn parts_are_rounded_to_the_nearest_millionth() {
    assert_eq!(MicroUsd(10).per(3), Some(MicroUsd(3)));
    assert_eq!(MicroUsd(11).per(3), Some(MicroUsd(4)));
    assert_eq!(MicroUsd(23_920_000).per(8), Some(MicroUsd(2_990_000)));
    assert_eq!(MicroUsd(i64::MAX).per(1), Some(MicroUsd(i64::MAX)));
    assert_eq!(MicroUsd(1).per(0), None);
}

#[test]
fn amounts_are_printed_exactly_and_for_people() {
    let cases = [
        (0, "0", "$0.00"),
        (12_500_000, "12.5", "$12.50"),
        (1_633_333, "1.633333", "$1.6333"),
        (9_240, "0.00924", "$0.00924"),
        (1, "0.000001", "$0.000001"),
        (100_000, "0.1", "$0.10"),
        (999_999_999, "999.999999", "$1000.00"),
        (-250_000, "-0.25", "-$0.25"),
    ];
    for (micro, exact, human) in cases {
        assert_eq!(
            (
                MicroUsd(micro).to_string().as_str(),
                MicroUsd(micro).human().as_str()
            ),
            (exact, human)
        );
    }
    assert_eq!(MicroUsd(i64::MIN).human(), "-$9223372036854.7758");
}

proptest! {
    #[test]
    fn what_is_printed_reads_as_the_same(micro in 0..=i64::MAX) {
        prop_assert_eq!(dollars(&MicroUsd(micro).to_string()), Ok(micro));
    }

    #[test]
    fn a_float_of_an_exact_amount_is_that_amount(micro in 0..1_000_000_000_000i64) {
        let text = MicroUsd(micro).to_string();
        prop_assert_eq!(MicroUsd::from_dollars(text.parse().unwrap()), Some(MicroUsd(micro)));
        prop_assert_eq!(MicroUsd::nearest(&text), Some(MicroUsd(micro)));
    }

    #[test]
    fn any_text_is_read_or_refused(text in r"\$?[0-9.]{0,24}|\PC{0,12}") {
        if let Ok(micro) = dollars(&text) {
            prop_assert!(micro >= 0);
        }
    }
}
