//! Specs as people write them, right and wrong.

use muster_proto::{
    replicas::v1::{
        FailureClass, ListServicesResponse, OnDisconnect, OnExhausted, RetryPlace, Service,
        ServiceSpec, SpotPolicy, env_var, probe, run_spec, scaling_policy,
    },
    types::v1::Price,
};

use super::{parse, service::ELSEWHERE};
use crate::output::json;

fn one(text: &str) -> ServiceSpec {
    let mut specs = parse(text).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(specs.len(), 1);
    specs.remove(0)
}

/// The lines and messages of everything wrong with a text.
fn wrong(text: &str) -> Vec<String> {
    let problems = parse(text).expect_err("the text is wrong");
    problems.iter().map(ToString::to_string).collect()
}

const WHOLE: &str = r#"
name: chat
replicas: {min: 2, max: 8}
run:
  image: "example/chat:1"
  command: [serve, --port, "8000"]
  env: {MODEL: small, KEY: {secret: key}}
  ports: [8000, {number: 9000, name: admin}]
  volumes: ["/models:/models:ro"]
resources: {gpu: "H100:2", cpu: 8, memory: 64GB}
placement: {regions: [us-east-1], labels: {tier: gold}, spread: worker, spot: auto, max_price: 12.5}
start: {timeout: 10m}
probes:
  ready: {http: {port: 8000, path: /health}, interval: 5s, timeout: 2s, successes: 1, failures: 3}
  alive: {tcp: {port: 8000}, failures: 5}
min_healthy: 1
retry:
  interval: 30s
  max_duration: 1h
  max_attempts: 10
  backoff: {factor: 2, max: 5m, jitter: 0.2}
  stable: 2m
  classes:
    no-capacity: {interval: 60s, max_duration: 6h}
    interruption: {interval: 0s}
    image: fail
  stages:
    - {attempts: 2, place: same-worker}
    - {place: other-region}
  exhausted: service
scaling: {metric: {prometheus: "vllm:num_requests_waiting"}, target: 4, up_delay: 30s, down_delay: 5m}
update: {max_surge: 1, max_unavailable: 0, min_ready: 10s, progress_deadline: 10m}
stop: {grace: 30s}
on_disconnect: stop
labels: {team: search}
"#;

#[test]
fn a_whole_spec_is_read() {
    let spec = one(WHOLE);
    assert_eq!(spec.name, "chat");
    let replicas = spec.replicas.unwrap();
    assert_eq!((replicas.min, replicas.max), (Some(2), Some(8)));
    let run = spec.run.unwrap();
    assert!(
        matches!(run.runtime, Some(run_spec::Runtime::Container(c)) if c.image == "example/chat:1")
    );
    assert_eq!(run.command, ["serve", "--port", "8000"]);
    assert_eq!(run.env.len(), 2);
    assert_eq!(run.ports[1].name, "admin");
    assert!(run.volumes[0].read_only);
    let needs = spec.resources.unwrap();
    assert_eq!((needs.cpu_milli, needs.memory_mib), (8000, 65_536));
    assert_eq!(needs.gpu_any_of[0].names, ["H100"]);
    assert_eq!(needs.gpu_any_of[0].count.unwrap().min, Some(2));
    let placement = spec.placement.unwrap();
    assert_eq!(placement.spot(), SpotPolicy::Auto);
    assert_eq!(
        placement.max_price,
        Some(Price {
            micro_usd_per_hour: 12_500_000
        })
    );
    let probes = spec.probes.unwrap();
    assert!(
        matches!(probes.ready.unwrap().check, Some(probe::Check::Http(http)) if http.path == "/health")
    );
    assert_eq!(probes.alive.unwrap().failures, 5);
    let retry = spec.retry.unwrap();
    assert_eq!(retry.max_duration.unwrap().seconds, 3600);
    assert_eq!(retry.backoff.unwrap().jitter, Some(0.2));
    assert_eq!(retry.classes.len(), 3);
    let image = retry
        .classes
        .iter()
        .find(|c| c.failure_class() == FailureClass::Image)
        .unwrap();
    assert!(image.fail);
    assert_eq!(retry.stages[1].place(), RetryPlace::OtherRegion);
    assert_eq!(retry.exhausted(), OnExhausted::Service);
    let scaling = spec.scaling.unwrap();
    assert!(
        matches!(scaling.metric, Some(scaling_policy::Metric::Prometheus(name)) if name == "vllm:num_requests_waiting")
    );
    assert_eq!(spec.on_disconnect, i32::from(OnDisconnect::Stop));
    assert_eq!(spec.update.unwrap().max_unavailable, Some(0));
}

#[test]
fn the_short_forms_work_as_written() {
    let spec = one(
        "name: a\nreplicas: 2\nrun: {command: sleep 5}\nretry: {max_duration: 1h, interval: 30s}\n",
    );
    assert_eq!(spec.replicas.unwrap().min, Some(2));
    assert_eq!(spec.run.unwrap().command, ["/bin/sh", "-c", "sleep 5"]);
    let retry = spec.retry.unwrap();
    assert_eq!(
        (
            retry.interval.unwrap().seconds,
            retry.max_duration.unwrap().seconds
        ),
        (30, 3600)
    );
    assert!(one("name: a\nretry: true\n").retry.is_some());
    assert!(one("name: a\nretry: false\n").retry.is_none());
    assert!(one("name: a\n").retry.is_none());
}

#[test]
fn several_documents_are_several_services() {
    let specs = parse("name: a\n---\nname: b\n---\n").unwrap();
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn an_unknown_field_has_its_line_and_a_suggestion() {
    let problems = wrong("name: a\nreplica: 2\nprobes:\n  redy: {tcp: {port: 1}}\n");
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with("line 2, column 1: replica: there is no such field"),
        "{}",
        problems[0]
    );
    assert!(
        problems[0].contains("did you mean `replicas`?"),
        "{}",
        problems[0]
    );
    assert!(
        problems[1].starts_with("line 4, column 3: redy:"),
        "{}",
        problems[1]
    );
    assert!(problems[1].contains("`ready`"), "{}", problems[1]);
}

#[test]
fn a_field_that_stands_deeper_is_told_its_place() {
    let problems = wrong("name: a\ncommand: [serve]\ngpu: H100:1\n");
    let told = "there is no such field in a service; it is";
    let expected = [
        format!("line 2, column 1: command: {told} `run.command`"),
        format!("line 3, column 1: gpu: {told} `resources.gpu`"),
    ];
    assert_eq!(problems, expected);
}

#[test]
fn every_place_that_is_told_is_one() {
    let values = [
        ("run.command", "[a]"),
        ("run.env", "{A: b}"),
        ("run.ports", "[80]"),
        ("run.volumes", "['/a:/b']"),
        ("placement.regions", "[a]"),
        ("placement.max_price", "2.5"),
        ("placement.spot", "auto"),
        ("placement.spread", "none"),
        ("resources.gpu", "H100:1"),
        ("resources.cpu", "1"),
        ("resources.memory", "1GB"),
        ("resources.disk", "1GB"),
        ("run.image", "a"),
        ("run.working_dir", "/a"),
    ];
    for (_, path) in ELSEWHERE {
        let (_, value) = values.iter().find(|(known, _)| *known == path).unwrap();
        let (part, field) = path.split_once('.').unwrap();
        one(&format!("name: a\n{part}: {{{field}: {value}}}\n"));
    }
}

#[test]
fn every_problem_is_told_in_order_of_line() {
    let text = "name: [a]\nreplicas: two\nstart: {timeout: 10}\nresources: {memory: lots}\non_disconnect: Keep\n";
    let problems = wrong(text);
    let lines: Vec<&str> = problems.iter().map(|problem| &problem[..6]).collect();
    assert_eq!(
        lines,
        ["line 1", "line 2", "line 3", "line 4", "line 5"],
        "{problems:?}"
    );
    assert!(problems[2].contains("start.timeout"), "{}", problems[2]);
    assert!(problems[4].contains("keep, stop"), "{}", problems[4]);
}

#[test]
fn yaml_1_1_booleans_are_texts() {
    let problems = wrong("name: a\nretry: yes\n");
    assert_eq!(
        problems,
        ["line 2, column 8: retry: has to be `true` or `false`"]
    );
    let spec = one("name: a\nlabels: {on: off, no: yes}\n");
    assert_eq!(spec.labels.get("on").map(String::as_str), Some("off"));
}

#[test]
fn what_could_grow_or_hide_is_refused() {
    for (text, word) in [
        ("a: &x 1\n", "anchor"),
        ("a: *x\n", "unknown anchor"),
        ("a: !!binary x\n", "tag"),
        ("name: a\nname: b\n", "given twice; first on line 1"),
        ("name: \"a\n", "line"),
        ("", "no service"),
        ("- a\n", "a mapping is needed"),
    ] {
        let problems = wrong(text);
        assert!(problems[0].contains(word), "{text:?}: {problems:?}");
    }
    let deep = "[".repeat(100_000);
    assert!(wrong(&deep)[0].contains("line 1"));
}

#[test]
fn a_probe_has_exactly_one_check() {
    assert!(wrong("name: a\nprobes: {ready: {interval: 1s}}\n")[0].contains("exactly one of"));
    let two = "name: a\nprobes: {ready: {tcp: {port: 1}, http: {port: 1}}}\n";
    assert!(wrong(two)[0].contains("exactly one of"));
}

#[test]
fn what_was_printed_is_read_again() {
    let awkward = r#"
name: odd
run: {command: [echo, "yes", "5", "a: b\n# \u00e4 \t\"", ""], env: {N: "null", X: "1e3"}}
labels: {"no": "true", a/b: ""}
"#;
    let specs = [WHOLE, awkward].map(one);
    let printed = |spec: &ServiceSpec| Service {
        name: spec.name.clone(),
        version: 3,
        spec: Some(spec.clone()),
        ..Service::default()
    };
    let services: Vec<_> = specs.iter().map(printed).collect();
    for (service, spec) in services.iter().zip(&specs) {
        let value = json::value(service).unwrap();
        assert_eq!(&one(&value.to_string()), spec);
        assert_eq!(&one(&json::yaml(&value)), spec);
    }
    let list = ListServicesResponse {
        services,
        ..ListServicesResponse::default()
    };
    let value = json::value(&list).unwrap();
    for text in [value.to_string(), json::yaml(&value)] {
        assert_eq!(parse(&text).unwrap(), specs);
    }
}

#[test]
fn what_was_printed_may_be_changed_by_hand() {
    let text =
        "name: a\nspec:\n  name: a\n  nodes: 1\n  replicas: {min: 5, max: ~}\n  labels: {b: c}\n";
    let spec = one(&format!("# As it was.\n{text}---\n"));
    assert_eq!((spec.nodes, spec.replicas.unwrap().min), (1, Some(5)));
    assert_eq!(spec.labels["b"], "c");
    let problems = wrong(&format!("name: b\n---\n{text}  replica: 1\n"));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].starts_with("line 3, column 1: "),
        "{problems:?}"
    );
    assert!(problems[0].contains("replica"), "{problems:?}");
    let none = wrong("services: []");
    assert_eq!(none, ["line 1, column 1: there is no service in this file"]);
}

#[test]
fn a_value_of_the_environment_is_a_single_one() {
    let problems = wrong("name: a\nrun:\n  env: {A: [1, 2], B: }\n");
    let expected = "line 3, column 12: run.env.A: a text is needed here, not a list";
    assert_eq!(problems, [expected]);
    let spec = one("name: a\nrun: {env: {A: , B: ~, C: 'null'}}\n");
    let values: Vec<_> = spec.run.unwrap().env.into_iter().collect();
    let value = |text: &str| Some(env_var::Source::Value(text.to_owned()));
    let sources = values.into_iter().map(|one| one.source);
    assert!(sources.eq([value(""), value(""), value("null")]));
}

#[test]
fn nothing_has_the_spellings_that_it_has_in_yaml() {
    for nothing in ["", "~", "null", "Null", "NULL"] {
        let spec = one(&format!(
            "name: a\nretry: {nothing}\nrun: {{env: {{A: {nothing}}}}}\n"
        ));
        let source = spec.run.unwrap().env.remove(0).source;
        let empty = env_var::Source::Value(String::new());
        assert_eq!((spec.retry, source), (None, Some(empty)), "{nothing}");
    }
}

#[test]
fn what_is_no_text_of_yaml_is_refused_where_it_stands() {
    let block = "a text that begins with `|` or `>` has to stand in quotes here";
    for (text, expected) in [
        ("run: {command: [sh, -c, | x]}\n", format!("line 1, column 25: {block}")),
        ("a: b\nrun: {image: >x}\n", format!("line 2, column 14: {block}")),
        (
            "a: b\r\n\u{e9}: \"x\u{7}\"\n",
            "line 2, column 6: the character U+0007 cannot stand in YAML; in double quotes it is \\u0007".to_owned(),
        ),
        (
            "name: a\u{7f}\n",
            "line 1, column 7: the character U+007F cannot stand in YAML; in double quotes it is \\u007f".to_owned(),
        ),
    ] {
        assert_eq!(wrong(text), [expected], "{text:?}");
    }
}

#[test]
fn what_was_printed_says_nothing_twice() {
    let twice = r#"{"spec": {"name": "a"}, "spec": {"name": "b"}}"#;
    assert_eq!(
        wrong(twice),
        ["line 1, column 25: `spec` is given twice; first on line 1"]
    );
    // Written as a pair of surrogates, as many programs write it, it is JSON alone.
    let face = r#"{"spec": {"name": "a", "labels": {"x": "\ud83d\ude00"}}}"#;
    assert_eq!(one(face).labels["x"], "\u{1f600}");
}
