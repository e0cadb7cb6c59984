use super::*;
use crate::spec::{Key, Place};

fn read_with(text: &str, variables: &[(&str, &str)]) -> Result<Contents, Vec<String>> {
    let environment = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let around = Surroundings {
        workers: &"http://127.0.0.1:7401".parse().unwrap(),
        environment: &environment,
        elsewhere: &["listen".to_owned(), "catalog".to_owned()],
    };
    read(text, &around).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn refuse(text: &str) -> Vec<String> {
    read_with(text, &[]).unwrap_err()
}

fn one(text: &str) -> Spec {
    let contents = read_with(text, &[]).unwrap();
    contents.backends.into_iter().next().unwrap()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table: a few lines for each kind")]
fn every_kind_is_read_with_its_keys() {
    let text = r#"
        listen = "127.0.0.1:1"
        [outcomes]
        half_life = "5m"
        zone_above = 3
        [[backend]]
        name = "list"
        kind = "catalog"
        url = "https://prices.example.org/vms.csv"
        refresh_interval = "1h"
        drop_after = "never"
        [[backend]]
        name = "hunt"
        kind = "gpuhunt"
        path = "/srv/hunt.zip"
        [[backend]]
        name = "vast"
        kind = "vastai"
        [[backend]]
        name = "people"
        kind = "runpod"
        cloud = "community"
        [[backend]]
        name = "lab"
        kind = "lambda"
        url = "http://127.0.0.1:9"
        key_env = "LAB_KEY"
        attempt_timeout = "4m"
        [[backend]]
        name = "own"
        kind = "grpc"
        address = "http://127.0.0.1:9000,http://127.0.0.1:9001"
        [backend.breaker]
        threshold = 5
        initial = "1s"
        max = "20s"
        [[backend]]
        name = "fleet"
        kind = "fleet"
    "#;
    let contents = read_with(text, &[("LAB_KEY", "hush")]).unwrap();
    assert_eq!(contents.outcomes.half_life, Duration::from_secs(300));
    let shown: Vec<_> = contents
        .backends
        .iter()
        .map(|spec| (spec.name.as_str(), spec.kind.name(), spec.kind.source()))
        .collect();
    let expected = [
        ("list", "catalog", "https://prices.example.org/vms.csv"),
        ("hunt", "gpuhunt", "/srv/hunt.zip"),
        ("vast", "vastai", "https://console.vast.ai/api/v0"),
        (
            "people",
            "runpod",
            "https://api.runpod.io (community cloud)",
        ),
        ("lab", "lambda", "http://127.0.0.1:9"),
        ("own", "grpc", "http://127.0.0.1:9000,http://127.0.0.1:9001"),
        (
            "fleet",
            "fleet",
            "the worker-registry at http://127.0.0.1:7401",
        ),
    ];
    let expected = expected.map(|(name, kind, source)| (name, kind, source.to_owned()));
    assert_eq!(shown, expected);
    let list = &contents.backends[0].times;
    assert_eq!(
        (list.refresh_interval, list.drop_after),
        (Duration::from_secs(3600), None)
    );
    let lab = &contents.backends[4];
    assert!(matches!(&lab.kind, Kind::Api(api) if matches!(api.key, Key::Known(_))));
    assert_eq!(lab.times.refresh_timeout, Duration::from_secs(240));
    assert_eq!(contents.backends[5].times.breaker.threshold, 5);
    assert!(!format!("{contents:?}").contains("hush"));
}

#[test]
fn every_error_is_told_at_once_with_its_line_backend_and_key() {
    let text = r#"outcome = {}
[[backend]]
name = "Azure"
kind = "catalogue"
[[backend]]
name = "list"
kind = "catalog"
path = "a"
url = "not a url"
refresh_intervall = "5m"
attempt_timeout = 5
drop_after = "soon"
[[backend]]
name = "list"
kind = "grpc"
breaker = {threshold = 0, initial = "1m", max = "1s"}
key = "s3cr3t"
[[backend]]
kind = "fleet"
address = "nowhere"
"#;
    let problems = refuse(text);
    let expected = [
        "line 1: unknown key outcome; did you mean outcomes?",
        "line 3: backend 1: name: ",
        "line 4: backend 1: kind: there is no kind \"catalogue\"; did you mean \"catalog\"?",
        "line 9: backend \"list\": url: not a URL that can be asked",
        "line 9: backend \"list\": url: there is a path already; leave out one",
        "line 10: backend \"list\": unknown key refresh_intervall; did you mean refresh_interval?",
        "line 11: backend \"list\": attempt_timeout: must be a time in quotes",
        "line 12: backend \"list\": drop_after: \"soon\" is no time",
        "line 13: backend \"list\": has no address",
        "line 14: backend \"list\": name: is the name of backend 2 already",
        "line 16: backend \"list\": breaker: max: is less than initial, which is 1m",
        "line 16: backend \"list\": breaker: threshold: must be a whole number from 1 to 1000",
        "line 17: backend \"list\": key: keys do not stand in this file",
        "line 18: backend 4: has no name",
        "line 20: backend 4: address: \"nowhere\" must begin with http:// or https://",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, words) in std::iter::zip(&problems, expected) {
        assert!(problem.starts_with(words), "{problem}\nis not\n{words}");
    }
    assert!(!problems.join("").contains("s3cr3t"));
}

#[test]
fn what_is_not_toml_is_told_with_its_line() {
    let problems = refuse("[outcomes]\nhalf_life = 5m\n[[backend]\n");
    assert!(problems[0].starts_with("line 2: not TOML"), "{problems:?}");
    assert!(problems.iter().any(|problem| problem.starts_with("line 3")));
    let problems = refuse("backend = 5\n");
    assert_eq!(
        problems,
        ["line 1: backend: write each backend as [[backend]]"]
    );
    let problems = refuse("backend = [5]\n");
    assert_eq!(problems, ["line 1: write each backend as [[backend]]"]);
}

#[test]
fn a_key_that_is_not_there_disables_the_backend_and_says_where_it_was_looked_for() {
    let text = "[[backend]]\nname = \"lab\"\nkind = \"lambda\"\n";
    let why = one(text).kind.disabled().unwrap();
    assert!(why.contains("LAMBDA_API_KEY"), "{why}");
    let why = one(&format!("{text}key_file = \"/nowhere/key\"\n"))
        .kind
        .disabled();
    assert!(why.unwrap().contains("the file /nowhere/key"));
    let contents = read_with(text, &[("LAMBDA_API_KEY", "k")]).unwrap();
    assert_eq!(contents.backends[0].kind.disabled(), None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "from a file\n").unwrap();
    let with_file = format!("{text}key_file = {:?}\n", path.to_str().unwrap());
    assert!(
        one(&with_file).kind.disabled().is_some(),
        "two words are no key"
    );
    std::fs::write(&path, "hush\n").unwrap();
    assert_eq!(one(&with_file).kind.disabled(), None);
}

#[test]
fn times_that_make_no_sense_are_refused() {
    let list = "[[backend]]\nname = \"list\"\nkind = \"catalog\"\npath = \"a\"\n";
    for (keys, words) in [
        ("refresh_interval = \"0s\"", "is not from 1s to"),
        ("refresh_timeout = \"1s\"", "less than attempt_timeout"),
        (
            "refresh_interval = \"1h\"\ndrop_after = \"1m\"",
            "less than refresh_interval",
        ),
        ("breaker = 5", "must be a table"),
        ("breaker = {threshold = 1.5}", "whole number"),
    ] {
        let problems = refuse(&format!("{list}{keys}\n"));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(words), "{problems:?}");
    }
    assert!(matches!(one(list).kind, Kind::Catalog(Place::File(_))));
}

#[test]
fn a_cloud_of_runpod_is_the_secure_one_unless_it_says_otherwise() {
    let backend = |more: &str| {
        let text = format!("[[backend]]\nname = \"pod\"\nkind = \"runpod\"\n{more}\n");
        read_with(&text, &[]).map(|contents| contents.backends[0].kind.source())
    };
    let secure = "https://api.runpod.io";
    assert_eq!(backend("").unwrap(), secure);
    assert_eq!(backend("cloud = \"secure\"").unwrap(), secure);
    assert_ne!(backend("cloud = \"community\"").unwrap(), secure);
    for (more, words) in [
        ("cloud = \"both\"", "neither \"secure\" nor \"community\""),
        ("cloud = true", "must be \"secure\" or \"community\""),
        ("clouds = \"secure\"", "did you mean cloud?"),
    ] {
        let problems = backend(more).unwrap_err();
        assert!(problems[0].contains(words), "{problems:?}");
    }
    let text = "[[backend]]\nname = \"v\"\nkind = \"vastai\"\ncloud = \"secure\"\n";
    let problems = read_with(text, &[]).unwrap_err();
    assert!(problems[0].contains("unknown key cloud"), "{problems:?}");
}
