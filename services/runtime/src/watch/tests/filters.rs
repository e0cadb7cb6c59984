//! Who sees what, and how a resource comes and goes by changing.

use super::*;

fn grouped(name: &str, version: u64, group: u64) -> Update<Thing> {
    Update::put(
        name,
        Thing {
            group,
            ..thing(name, version)
        },
    )
}

fn group(wanted: u64) -> Filter<Thing> {
    Filter::all().durable(move |thing: &Thing| thing.group == wanted)
}

fn cheerful() -> Filter<Thing> {
    Filter::all().observed(|thing: &Thing| thing.mood > 0)
}

fn set_mood(hub: &Hub<Thing>, name: &str, mood: u64) {
    assert!(hub.observe(name, |thing| Some(Thing {
        mood,
        ..thing.clone()
    })));
}

#[tokio::test(start_paused = true)]
async fn a_resource_enters_and_leaves_a_filter() {
    let hub = hub(0);
    hub.publish(1, [grouped("a", 1, 1), grouped("b", 1, 2)]);
    let mut watch = hub.watch("", group(1)).unwrap();
    assert_eq!(says(&mut watch), "+a1 @1 synced");
    hub.publish(2, [grouped("b", 2, 1)]);
    assert_eq!(says(&mut watch), "+b2 @2 synced", "it enters");
    hub.publish(3, [grouped("b", 3, 1)]);
    assert_eq!(says(&mut watch), "+b3 @3 synced");
    hub.publish(4, [grouped("b", 4, 2)]);
    assert_eq!(
        says(&mut watch),
        "-b3 @4 synced",
        "it leaves, with the last state that was seen"
    );
    hub.publish(5, [grouped("b", 5, 2), Update::delete("b")]);
    assert_eq!(
        says(&mut watch),
        "nothing",
        "what is outside is nobody's business"
    );
    hub.publish(6, [Update::delete("a")]);
    assert_eq!(says(&mut watch), "-a1 @6 synced");
}

#[tokio::test(start_paused = true)]
async fn leaving_a_filter_is_not_missed_by_one_that_resumes() {
    let hub = hub(0);
    hub.publish(1, [grouped("a", 1, 1)]);
    hub.publish(2, [grouped("a", 2, 2)]);
    hub.publish(3, [grouped("a", 3, 2)]);
    let mut watch = hub.watch(&token(1), group(1)).unwrap();
    assert_eq!(says(&mut watch), "-a1 @3 synced");
}

#[tokio::test(start_paused = true)]
async fn a_prefix_selects_keys() {
    let hub = hub(0);
    hub.publish(
        1,
        ["w1/a", "w1", "w10/a", "w2/a", "w1/b"].map(|key| put(key, 1)),
    );
    let mut watch = hub.watch("", Filter::all().prefix("w1/")).unwrap();
    assert_eq!(says(&mut watch), "+w1/a1 +w1/b1 @1 synced");
    hub.publish(2, [put("w10/a", 2), put("w1/b", 2), Update::delete("w2/a")]);
    assert_eq!(says(&mut watch), "+w1/b2 @2 synced");
}

#[tokio::test(start_paused = true)]
async fn observed_changes_come_without_a_revision_and_only_the_latest() {
    let hub = hub(0);
    hub.publish(1, [put("a", 1), put("b", 1)]);
    let mut watch = hub.watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "+a1 +b1 @1 synced");
    for mood in 1..=5 {
        set_mood(&hub, "a", mood);
    }
    set_mood(&hub, "b", 9);
    assert_eq!(says(&mut watch), "~a1:5 ~b1:9 @1 synced");
    assert_eq!(says(&mut watch), "nothing");
    // Without effect: there is no such thing, or nothing new about it.
    assert!(!hub.observe("c", |thing| Some(thing.clone())));
    assert!(!hub.observe("a", |_| None));
    assert_eq!(says(&mut watch), "nothing");
}

#[tokio::test(start_paused = true)]
async fn a_durable_change_takes_the_place_of_observed_ones() {
    let hub = hub(0);
    hub.publish(1, [put("a", 1)]);
    let mut watch = hub.watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "+a1 @1 synced");
    set_mood(&hub, "a", 3);
    hub.publish(
        2,
        [Update::put(
            "a",
            Thing {
                mood: 4,
                ..thing("a", 2)
            },
        )],
    );
    assert_eq!(
        says(&mut watch),
        "+a2 @2 synced",
        "the older facts do not come after it"
    );
    assert_eq!(says(&mut watch), "nothing");
    set_mood(&hub, "a", 5);
    hub.publish(3, [Update::delete("a")]);
    assert_eq!(says(&mut watch), "-a2 @3 synced");
    // Facts are about the newest state, whoever had an older one in mind.
    hub.publish(4, [put("a", 4)]);
    set_mood(&hub, "a", 1);
    assert_eq!(says(&mut watch), "+a4 ~a4:1 @4 synced");
}

#[tokio::test(start_paused = true)]
async fn the_state_has_the_latest_facts_and_they_are_not_repeated() {
    let hub = hub(0);
    hub.publish(1, [put("a", 1)]);
    set_mood(&hub, "a", 3);
    let mut watch = hub.watch("", Filter::all()).unwrap();
    let state = now(&mut watch).unwrap();
    assert_eq!(state.changes[0].resource().mood, 3);
    assert_eq!(says(&mut watch), "nothing");
}

#[tokio::test(start_paused = true)]
async fn one_that_resumes_is_told_the_latest_facts_again() {
    let hub = hub(0);
    hub.publish(1, [put("a", 1), put("b", 1)]);
    set_mood(&hub, "a", 3);
    hub.publish(2, [put("b", 2)]);
    let mut watch = hub.watch(&token(1), Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "+b2 ~a1:3 @2 synced");
}

#[tokio::test(start_paused = true)]
async fn facts_move_a_resource_in_and_out_of_a_filter_on_them() {
    let hub = hub(0);
    hub.publish(1, [put("a", 1), put("b", 1)]);
    set_mood(&hub, "a", 1);
    let mut watch = hub.watch("", cheerful()).unwrap();
    assert_eq!(says(&mut watch), "+a1 @1 synced");
    set_mood(&hub, "a", 0);
    set_mood(&hub, "b", 2);
    assert_eq!(says(&mut watch), "-a1 ~b1:2 @1 synced");
    set_mood(&hub, "a", 0);
    assert_eq!(says(&mut watch), "nothing", "it was outside before");
    // In and out between two looks: it may be told, and must not be left in.
    set_mood(&hub, "b", 0);
    set_mood(&hub, "b", 3);
    set_mood(&hub, "b", 0);
    assert_eq!(says(&mut watch), "-b1 @1 synced");
    // A durable change while outside.
    set_mood(&hub, "a", 5);
    set_mood(&hub, "a", 0);
    hub.publish(2, [put("a", 2)]);
    assert_eq!(says(&mut watch), "-a1 @2 synced");
}

#[tokio::test(start_paused = true)]
async fn facts_about_what_a_filter_excludes_are_not_told() {
    let hub = hub(0);
    hub.publish(1, [grouped("a", 1, 1), grouped("b", 1, 2)]);
    let mut watch = hub.watch("", group(1)).unwrap();
    let mut prefixed = hub.watch("", Filter::all().prefix("a")).unwrap();
    for watch in [&mut watch, &mut prefixed] {
        assert_eq!(says(watch), "+a1 @1 synced");
    }
    set_mood(&hub, "b", 7);
    for watch in [&mut watch, &mut prefixed] {
        assert_eq!(says(watch), "nothing");
    }
    let mut resumed = hub.watch(&token(1), group(1)).unwrap();
    assert_eq!(says(&mut resumed), "@1 synced");
}

#[tokio::test(start_paused = true)]
async fn many_observed_changes_come_in_chunks() {
    let hub = hub_with(2_500, 1, Options::default());
    let mut watch = hub.watch(&token(1), Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "@1 synced");
    for index in 0..2_500 {
        set_mood(&hub, &format!("t{index:04}"), 1);
    }
    let mut seen = 0;
    while seen < 2_500 {
        let chunk = watch.next().await.unwrap().unwrap();
        assert!(!chunk.changes.is_empty() && chunk.changes.len() <= 1_000);
        seen += chunk.changes.len();
    }
    assert_eq!(says(&mut watch), "nothing");
}
