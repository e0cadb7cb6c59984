use super::*;
use proptest::prelude::*;

type Taken = Vec<(String, Option<Node>)>;

fn rows(text: &str) -> Result<(Taken, Node), Unexpected> {
    let mut taken = Vec::new();
    let rest = read(text.as_bytes(), "rows", &["links"], |(place, row)| {
        taken.push((place.to_owned(), row));
    })?;
    Ok((taken, rest))
}

#[test]
fn a_long_name_is_not_repeated_for_all_that_is_in_it() {
    let flag = |name: String| (name, Node::Bool(true));
    let inner = (0..1000).map(|number| flag(format!("a{number}")));
    let long = ("n".repeat(100_000), Node::Object(inner.collect()));
    let row = Node::Object(vec![long, flag("b".to_owned())]);
    let fields = row.fields();
    assert_eq!(fields.len(), 1);
    assert_eq!(fields[0], ("b".to_owned(), "true".to_owned()));
}

#[test]
fn rows_come_one_by_one_and_the_rest_is_kept_as_asked() {
    let (taken, rest) =
        rows(r#"{"a":{"deep":[1]},"rows":[{"id":1},2,null],"links":{"next":"n"}}"#).unwrap();
    assert_eq!(taken.len(), 3);
    assert_eq!(
        taken[0].1.as_ref().unwrap().get("id").unwrap().whole(),
        Some(1)
    );
    assert_eq!((taken[1].0.as_str(), &taken[2].1), ("1", &Some(Node::Null)));
    assert_eq!(rest.at(&["links", "next"]).unwrap().text(), Some("n"));
    assert_eq!(rest.get("a"), None);
    let (taken, _) = rows(r#"{"rows":{"x":{},"y":3}}"#).unwrap();
    assert_eq!(taken[1].0, "y");
}

#[test]
fn what_is_not_the_answer_is_told_in_words() {
    let why = |text: &str| rows(text).unwrap_err().to_string();
    assert!(why("<html>no</html>").contains("begins with: <html>no</html>"));
    assert!(why(r#"{"rows":[{"a":1},{"b""#).starts_with("not whole JSON"));
    assert!(why(r#"{"rows":[]} extra"#).starts_with("not whole JSON"));
    assert!(why("[]").starts_with("not whole JSON"));
    assert!(why("").starts_with("not whole JSON"));
    assert_eq!(
        why(r#"{"other":1}"#),
        "there is no `rows` in it; it begins with: {\"other\":1}"
    );
    assert!(why(r#"{"rows":"none"}"#).starts_with("there is no `rows`"));
    assert!(why(r#"{"rows":null}"#).starts_with("there is no `rows`"));
}

#[test]
fn an_error_inside_is_one_however_it_is_written() {
    let why = |text: &str| rows(text).unwrap_err();
    let said = |text: &str| Unexpected::Complaint(text.to_owned());
    assert_eq!(
        why(r#"{"rows":[],"errors":[{"message":"too complex"}]}"#),
        said("too complex")
    );
    assert_eq!(
        why(r#"{"rows":null,"error":{"code":"x","message":"no such key"}}"#),
        said("no such key")
    );
    assert_eq!(
        why(r#"{"error":"Invalid API token.","status":401}"#),
        said("Invalid API token.")
    );
    assert_eq!(why(r#"{"success":false,"msg":"busy"}"#), said("busy"));
    assert_eq!(
        why(r#"{"success":false,"rows":[]}"#),
        said("it did not succeed")
    );
    assert_eq!(
        why(r#"{"id":"unauthorized","message":"Unable to authenticate you"}"#),
        said("Unable to authenticate you")
    );
    assert_eq!(why(r#"{"errors":[[]]}"#), said("an error, without words"));
    assert!(rows(r#"{"rows":[],"errors":[],"error":null,"message":"welcome"}"#).is_ok());
    assert_eq!(complaint(b"{\"error\":\"x\"}").as_deref(), Some("x"));
    assert_eq!(complaint(b"nonsense"), None);
}

#[test]
fn values_are_read_as_what_they_mean() {
    let (taken, _) = rows(r#"{"rows":[{"n":3,"f":0.335,"t":"12.5","w":" x ","b":true,"big":9007199254740993,"neg":-1,"z":null}]}"#).unwrap();
    let row = taken[0].1.as_ref().unwrap();
    let at = |name: &str| row.get(name).unwrap();
    assert_eq!((at("n").whole(), at("f").whole()), (Some(3), None));
    assert_eq!(at("f").dollars(), Some(MicroUsd(335_000)));
    assert_eq!(at("t").scaled(1000), Some(12_500));
    assert_eq!(at("w").text(), Some("x"));
    assert_eq!(
        (at("neg").dollars(), at("neg").whole(), at("b").number()),
        (None, None, None)
    );
    assert_eq!(row.get("z"), None);
    let fields = row.fields();
    assert!(
        fields.contains(&("big".to_owned(), "9007199254740993".to_owned())),
        "{fields:?}"
    );
}

#[test]
fn a_row_that_is_too_large_is_passed_over_and_the_next_one_read() {
    let many = vec!["0"; MAX_NODES + 10].join(",");
    let deep = format!("{{\"x\":{{\"y\":[{many}]}},\"z\":1}}");
    let (taken, _) = rows(&format!(r#"{{"rows":[[{many}],{deep},{{"id":7}}]}}"#)).unwrap();
    assert_eq!((&taken[0].1, &taken[1].1), (&None, &None));
    assert_eq!(
        taken[2].1.as_ref().unwrap().get("id").unwrap().whole(),
        Some(7)
    );
    let nested = format!("{{\"rows\":[{}1{}]}}", "[".repeat(5000), "]".repeat(5000));
    assert!(rows(&nested).is_err(), "no stack is used up");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes, "rows", &["links"], |_| {});
        let _ = complaint(&bytes);
    }

    #[test]
    fn no_cut_or_flip_panics(cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = br#"{"rows":[{"a":1.5,"b":[true,null,"x"]}],"links":{"next":"y"},"error":null}"#.to_vec();
        let at = cut.index(text.len());
        let _ = read(&text[..at], "rows", &["links"], |_| {});
        text[at] = byte;
        let _ = read(&text, "rows", &["links"], |_| {});
    }
}
