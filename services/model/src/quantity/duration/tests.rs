use super::*;
use proptest::prelude::*;

#[test]
fn durations_are_read_and_printed() {
    let cases = [
        ("500ms", 500, "500ms"),
        ("30s", 30 * SECOND, "30s"),
        ("5m", 5 * MINUTE, "5m"),
        ("6h", 6 * HOUR, "6h"),
        ("2d", 2 * DAY, "2d"),
        ("1m30s", 90 * SECOND, "1m30s"),
        ("90s", 90 * SECOND, "1m30s"),
        (
            "1d2h3m4s5ms",
            DAY + 2 * HOUR + 3 * MINUTE + 4 * SECOND + 5,
            "1d2h3m4s5ms",
        ),
        ("1s500ms", 1500, "1s500ms"),
        (" 1h ", HOUR, "1h"),
        ("0s", 0, "0s"),
        ("100000d", MAX_MS, "100000d"),
    ];
    for (text, ms, printed) in cases {
        assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        assert_eq!(print(Duration::from_millis(ms)), printed);
    }
    assert_eq!(print(Duration::from_micros(1999)), "1ms");
}

#[test]
fn a_bare_number_is_refused_with_what_to_write() {
    assert_eq!(parse("30"), Err(Error::NoUnit("30".to_owned())));
    assert_eq!(
        parse("30").unwrap_err().to_string(),
        "`30` has no unit: write 30s, 30m, 30h or 30d"
    );
    assert_eq!(parse("0"), Err(Error::NoUnit("0".to_owned())));
}

#[test]
fn what_is_no_duration_is_refused() {
    let owned = str::to_owned;
    for text in [
        "", "s", "1.5h", "-5s", "+5s", "5 s", "5x", "1m 30s", "5sec", "1h30", "5M", "٣s", "1m,30s",
    ] {
        assert_eq!(parse(text), Err(Error::Malformed(owned(text))), "{text}");
    }
    for text in ["30s1m", "1m1m", "5ms1s", "1s2s"] {
        assert_eq!(parse(text), Err(Error::OutOfOrder(owned(text))), "{text}");
    }
    for text in [
        "100001d",
        "99999999999999999999s",
        "18446744073709551615h",
        "100000d1ms",
    ] {
        assert_eq!(parse(text), Err(Error::TooLong(owned(text))), "{text}");
    }
}

#[test]
fn ages_are_told_in_one_unit() {
    let cases = [
        (0, "0 s"),
        (850, "850 ms"),
        (999, "999 ms"),
        (1000, "1 s"),
        (59_999, "59 s"),
        (MINUTE, "1 m"),
        (12 * MINUTE + 59 * SECOND, "12 m"),
        (3 * HOUR, "3 h"),
        (47 * HOUR, "47 h"),
        (48 * HOUR, "2 d"),
        (365 * DAY, "365 d"),
    ];
    for (ms, text) in cases {
        assert_eq!(human(Duration::from_millis(ms)), text);
    }
    assert_eq!(human(Duration::MAX), "213503982334 d");
}

proptest! {
    #[test]
    fn what_is_printed_reads_as_the_same(ms in 0..=MAX_MS) {
        let duration = Duration::from_millis(ms);
        prop_assert_eq!(parse(&print(duration)), Ok(duration));
    }

    #[test]
    fn any_text_is_read_or_refused(text in r"([0-9]{1,20}(ms|s|m|h|d)?){0,4}|\PC{0,12}") {
        if let Ok(duration) = parse(&text) {
            prop_assert!(duration.as_millis() <= u128::from(MAX_MS));
        }
    }
}
