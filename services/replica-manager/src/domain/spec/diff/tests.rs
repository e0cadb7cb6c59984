use std::time::Duration;

use super::*;
use crate::domain::spec::testing::spec;
use crate::domain::spec::{OnDisconnect, defaults};

fn check(change: impl FnOnce(&mut Spec), paths: &[&str], effect: Effect) {
    let old = spec("chat");
    let mut new = old.clone();
    change(&mut new);
    let found = diff(&old, &new);
    assert_eq!(found.paths, paths);
    assert_eq!(found.effect, effect);
}

#[test]
fn the_same_spec_differs_in_nothing() {
    check(|_| (), &[], Effect::None);
}

#[test]
fn what_a_running_process_does_not_see_changes_in_place() {
    check(|s| s.replicas.max = 9, &["replicas.max"], Effect::InPlace);
    check(
        |s| s.retry = Some(defaults::retry()),
        &["retry"],
        Effect::InPlace,
    );
    check(
        |s| {
            s.update.min_ready = Duration::from_secs(1);
            s.labels.insert("team".to_owned(), "a".to_owned());
        },
        &["update.min_ready", "labels"],
        Effect::InPlace,
    );
}

#[test]
fn what_it_was_started_with_rolls() {
    check(
        |s| {
            s.replicas.max = 9;
            s.run.command.push("-v".to_owned());
        },
        &["replicas.max", "run.command"],
        Effect::Rolling,
    );
    check(
        |s| s.on_disconnect = OnDisconnect::Stop,
        &["on_disconnect"],
        Effect::Rolling,
    );
    check(
        |s| s.resources.cpu_milli = 4000,
        &["resources"],
        Effect::Rolling,
    );
}
