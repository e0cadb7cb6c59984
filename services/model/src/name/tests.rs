use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[test]
fn names_are_what_the_contract_says() {
    let longest = "a".repeat(MAX_LENGTH);
    for text in ["a", "chat", "a1", "a-b", "gpu-box-7", &longest] {
        assert_eq!(
            text.parse::<Name>().map(|name| name.to_string()),
            Ok(text.to_owned())
        );
    }
    let too_long = "a".repeat(MAX_LENGTH + 1);
    for text in [
        "", "1a", "-a", "a-", "A", "a_b", "a.b", "a b", "ä", "a/0", &too_long,
    ] {
        assert_eq!(text.parse::<Name>(), Err(Error::Name(text.to_owned())));
    }
    let error = "Chat".parse::<Name>().unwrap_err().to_string();
    assert!(
        error.starts_with("`Chat` is no name: write 1 to 63 lower-case letters"),
        "{error}"
    );
}

#[test]
fn a_name_is_found_by_its_text() {
    let names: BTreeSet<Name> = ["chat", "embed"].map(|text| text.parse().unwrap()).into();
    assert!(names.contains("chat") && !names.contains("chats"));
    assert_eq!(
        format!("{:>6}|{:?}", names.first().unwrap(), names.last().unwrap()),
        "  chat|Name(embed)"
    );
}

#[test]
fn a_replica_has_one_spelling() {
    let id: ReplicaId = "chat/10".parse().unwrap();
    assert_eq!((id.service.as_str(), id.ordinal), ("chat", 10));
    assert_eq!(format!("{id}|{id:>9}"), "chat/10|  chat/10");
    for text in [
        "chat",
        "chat/",
        "/0",
        "chat/01",
        "chat/+1",
        "chat/-1",
        "chat/1/2",
        "Chat/0",
        "chat/x",
        "chat/4294967296",
    ] {
        assert_eq!(
            text.parse::<ReplicaId>(),
            Err(Error::Replica(text.to_owned()))
        );
    }
}

#[test]
fn replicas_are_ordered_by_number() {
    let mut ids: Vec<ReplicaId> = ["chat/10", "chat/9", "api/11"]
        .map(|text| text.parse().unwrap())
        .into();
    ids.sort();
    let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["api/11", "chat/9", "chat/10"]);
}

#[test]
fn labels_are_keys_and_values() {
    let read = [
        ("tier=gold", "tier", "gold"),
        (
            "topology.muster.dev/rack=R-7",
            "topology.muster.dev/rack",
            "R-7",
        ),
        ("a=", "a", ""),
    ];
    for (text, key, value) in read {
        assert_eq!(parse_label(text), Ok((key.to_owned(), value.to_owned())));
    }
    let long = "k".repeat(MAX_LENGTH + 1);
    for key in ["", "-a", "a-", "a b", "ä", "/a", &long] {
        assert_eq!(check_label_key(key), Err(Error::LabelKey(key.to_owned())));
    }
    for value in ["-a", "a.", "a/b", "a=b", "a b", &long] {
        assert_eq!(
            check_label_value(value),
            Err(Error::LabelValue(value.to_owned()))
        );
    }
    assert_eq!(parse_label("gold"), Err(Error::Label("gold".to_owned())));
    assert_eq!(parse_label("=gold"), Err(Error::LabelKey(String::new())));
}

proptest! {
    #[test]
    fn exactly_the_pattern_is_a_name(text in "[a-z]([a-z0-9-]{0,61}[a-z0-9])?", ordinal: u32) {
        prop_assert_eq!(check(&text), Ok(()));
        let id = format!("{text}/{ordinal}");
        let read: ReplicaId = id.parse().unwrap();
        prop_assert_eq!(read.to_string(), id);
    }

    #[test]
    fn other_letters_are_in_no_name(start in "[a-z]{1,3}", other in "[^a-z0-9-]", end in "[a-z]{1,3}") {
        let text = format!("{start}{other}{end}");
        prop_assert!(check(&text).is_err());
    }
}
