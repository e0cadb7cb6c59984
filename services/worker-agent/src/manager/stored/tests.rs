use std::sync::Arc;

use muster_proto::replicas::v1::{Assignment, EnvVar, RunSpec, env_var::Source};

use super::*;

/// What so many attempts look like, each with this many bytes assigned and of output.
fn view(count: usize, assigned: usize, lines: usize) -> View {
    let mut view = View::default();
    for number in 0..count {
        let id = format!("chat.{number}.1");
        let variable = EnvVar {
            name: "BIG".into(),
            source: Some(Source::Value("x".repeat(assigned))),
        };
        let seen = Seen {
            revision: (1, 0),
            settled: false,
            report: AttemptReport {
                attempt_id: id.clone(),
                last_log_lines: vec!["x".repeat(lines)],
                ..Default::default()
            },
            assignment: Arc::new(Assignment {
                attempt_id: id.clone(),
                run: Some(RunSpec {
                    env: vec![variable],
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ports: Vec::new(),
            running: Default::default(),
        };
        view.attempts
            .insert(AttemptId::parse(&id).unwrap(), Arc::new(seen));
    }
    view
}

fn ids(message: &Message) -> Vec<String> {
    let ids = message.reports.iter().map(|one| one.attempt_id.clone());
    ids.collect()
}

/// Takes messages until there is none, and answers each that these are unknown.
fn take_all(stored: &mut Stored, view: &View, unknown: &[&str]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(message) = stored.next(view) {
        assert!(message.bytes() <= MOST_BYTES || message.reports.len() == 1);
        assert!(messages.len() < 100, "there is no end");
        let named = ids(&message);
        let unknown = unknown
            .iter()
            .filter(|id| named.contains(&(**id).to_owned()));
        let answer = ReportReplicasResponse {
            unknown_attempts: unknown.map(|id| (*id).to_owned()).collect(),
            ..Default::default()
        };
        stored.note(view, &message, &answer);
        messages.push(message);
    }
    messages
}

#[test]
fn everything_is_told_in_one_message_and_then_nothing() {
    let (mut stored, view) = (Stored::default(), view(16, 360 << 10, 100));
    let messages = take_all(&mut stored, &view, &[]);
    assert_eq!(messages.len(), 1);
    assert!(messages[0].whole);
    assert_eq!(messages[0].reports.len(), 16);
    let mut reports = messages[0].reports.iter();
    assert!(reports.all(|report| report.assignment.is_none() && report.last_log_lines.len() == 1));
}

#[test]
fn nothing_is_told_as_everything_too() {
    let messages = take_all(&mut Stored::default(), &View::default(), &[]);
    assert!(messages.len() == 1 && messages[0].whole && messages[0].reports.is_empty());
}

#[test]
fn a_change_is_told_alone() {
    let (mut stored, mut view) = (Stored::default(), view(3, 10, 10));
    take_all(&mut stored, &view, &[]);
    let id = AttemptId::parse("chat.1.1").unwrap();
    let mut seen = Seen::clone(&view.attempts[&id]);
    seen.revision = (2, 0);
    view.attempts.insert(id, Arc::new(seen));
    let messages = take_all(&mut stored, &view, &[]);
    assert_eq!(messages.len(), 1);
    assert!(!messages[0].whole);
    assert_eq!(ids(&messages[0]), ["chat.1.1"]);
}

#[test]
fn what_does_not_fit_one_message_is_told_in_several_and_then_named_in_one() {
    let (mut stored, view) = (Stored::default(), view(90, 10, 80 << 10));
    let messages = take_all(&mut stored, &view, &[]);
    let (last, parts) = messages.split_last().unwrap();
    assert!(parts.len() >= 3 && parts.iter().all(|message| !message.whole));
    let told: Vec<String> = parts.iter().flat_map(ids).collect();
    assert!(last.whole && told.len() < 90, "the last one has the rest");
    assert_eq!(last.reports.len(), 90);
    for report in &last.reports {
        let lines = usize::from(!told.contains(&report.attempt_id));
        assert_eq!(report.last_log_lines.len(), lines);
    }
}

#[test]
fn what_is_unknown_is_told_once_with_its_assignment() {
    let (mut stored, view) = (Stored::default(), view(16, 360 << 10, 0));
    let all: Vec<String> = view.attempts.keys().map(ToString::to_string).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let messages = take_all(&mut stored, &view, &all);
    assert!(messages[0].whole);
    let assigned = messages[1..].iter().flat_map(|message| &message.reports);
    let assigned: Vec<_> = assigned
        .filter_map(|report| report.assignment.as_ref())
        .collect();
    assert_eq!(assigned.len(), 16);
    assert_eq!(messages[1..].iter().flat_map(ids).count(), 16);
}
