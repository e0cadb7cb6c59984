use super::*;
use proptest::prelude::*;

use Column::{Ignored, Number, Text};

/// As azure's: type, cpus, price, region, generation.
const AZURE: [Column; 5] = [Text, Number, Number, Text, Ignored];
/// As vast's: the last column is read.
const REGION_LAST: [Column; 4] = [Text, Text, Number, Text];

fn fields(line: &str) -> Vec<String> {
    split(line)
        .unwrap()
        .into_iter()
        .map(Cow::into_owned)
        .collect()
}

#[test]
fn quotes_hold_commas_and_quotes() {
    assert_eq!(fields("a,\"b,c\",d"), ["a", "b,c", "d"]);
    assert_eq!(fields("\"say \"\"hi\"\"\",x"), ["say \"hi\"", "x"]);
    assert_eq!(fields("\"\"\"\""), ["\""]);
    assert_eq!(fields(",,"), ["", "", ""]);
    assert_eq!(
        fields("a{\"b\"},c"),
        ["a{\"b\"}", "c"],
        "a quote inside a plain field is plain"
    );
    assert_eq!(split("\"open,b"), Err(LineError::OpenQuote));
    assert_eq!(split("\"a\"b,c"), Err(LineError::AfterQuote));
}

#[test]
fn a_line_without_an_end_is_read_to_a_bound() {
    assert_eq!(fields(&",".repeat(999)).len(), 1000);
    assert_eq!(split(&",".repeat(1000)), Err(LineError::Endless));
    assert_eq!(
        Header::parse(&",".repeat(1000)),
        Err(LineError::Endless),
        "column names too"
    );
}

#[test]
fn lines_are_numbered_and_a_bad_one_is_alone() {
    let text = b"a,b\r\n\n\"x\n\xff\xfe\nlast";
    let lines: Vec<_> = lines(text).collect();
    assert_eq!(
        lines,
        [
            (1, Ok("a,b")),
            (3, Ok("\"x")),
            (4, Err(LineError::NotUtf8)),
            (5, Ok("last"))
        ]
    );
}

#[test]
fn headers_are_read_by_name() {
    let header = Header::parse("\u{feff}InstanceType, Price ,Region").unwrap();
    assert_eq!(header.find("Price"), Some(1));
    assert_eq!(header.find("price"), None);
}

fn mended(line: &str, columns: &[Column]) -> Result<Vec<String>, LineError> {
    let mut fields = split(line).unwrap();
    mend(&mut fields, columns)?;
    Ok(fields.into_iter().map(Cow::into_owned).collect())
}

#[test]
fn unquoted_commas_are_mended_where_there_is_one_way() {
    assert_eq!(
        mended("D2,2,0.5,eu,V1,V2", &AZURE).unwrap(),
        ["D2", "2", "0.5", "eu", "V1,V2"],
        "the last is not read"
    );
    assert_eq!(
        mended("D2,2,0.5,eu,V1", &AZURE).unwrap(),
        ["D2", "2", "0.5", "eu", "V1"],
        "whole"
    );
    assert_eq!(
        mended("D2,{a: 1, b: 2},0.5,eu", &REGION_LAST).unwrap(),
        ["D2", "{a: 1, b: 2}", "0.5", "eu"]
    );
    assert_eq!(
        mended("D2,x,0.5,Texas, US, NA", &REGION_LAST).unwrap(),
        ["D2", "x", "0.5", "Texas, US, NA"]
    );
}

#[test]
fn what_could_be_mended_in_two_ways_is_refused() {
    let two_texts = [Text, Text, Number];
    assert_eq!(mended("a,b,c,1", &two_texts), Err(LineError::TooMany));
    assert_eq!(
        mended("a,b, c,1", &two_texts).unwrap(),
        ["a", "b, c", "1"],
        "a list is written with spaces"
    );
    assert_eq!(mended("a,b", &two_texts), Err(LineError::TooFew));
    assert_eq!(
        mended("a,b,c,d", &two_texts),
        Err(LineError::TooMany),
        "no number anywhere"
    );
}

proptest! {
    #[test]
    fn what_is_quoted_is_read_back(values in proptest::collection::vec("[^\n\r]{0,12}", 1..6)) {
        let line: Vec<String> = values.iter().map(|value| format!("\"{}\"", value.replace('"', "\"\""))).collect();
        prop_assert_eq!(fields(&line.join(",")), values);
    }

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (_, line) in lines(&bytes) {
            if let Ok(Ok(mut fields)) = line.map(split) {
                let whole = mend(&mut fields, &AZURE).is_ok();
                prop_assert!(!whole || fields.len() == AZURE.len());
            }
        }
    }
}
