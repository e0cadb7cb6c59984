use super::*;
use crate::domain::replica::observe::ReportedPhase;
use crate::domain::service::command::Identity;
use crate::domain::spec::Count;
use crate::domain::spec::testing::spec;

fn service(now: Time) -> Service {
    let identity = Identity {
        project: "default".to_owned(),
        uid: "uid".to_owned(),
    };
    Service::create(identity, spec("chat"), true, now)
}

fn orphan(ordinal: u32, number: u32) -> Orphan {
    Orphan {
        ordinal,
        number,
        version: 1,
        room: Allocation::on_w1("a-1"),
        report: Report {
            phase: ReportedPhase::Ready,
            started: None,
            ready: None,
            addresses: Vec::new(),
        },
    }
}

#[test]
fn an_unknown_replica_is_a_member_again_and_its_numbers_are_not_used_twice() {
    let now = Time::default();
    let mut service = service(now);
    service.adopt(orphan(4, 7), now).unwrap();
    let replica = &service.replicas[&4];
    assert!(replica.ready());
    assert_eq!(replica.worker(), Some("w1"));
    assert_eq!((replica.attempts, service.header.next_ordinal), (7, 5));
}

#[test]
fn a_replica_that_waits_is_given_its_attempt_and_one_that_runs_keeps_its_own() {
    let now = Time::default();
    let mut service = service(now);
    service.adopt(orphan(0, 2), now).unwrap();
    assert_eq!(service.adopt(orphan(0, 3), now), Err(Refused::Attended));
    assert_eq!(service.replicas[&0].attempts, 2);
}

#[test]
fn a_service_that_does_not_run_adopts_nothing() {
    let now = Time::default();
    let mut service = service(now);
    service.stop("by a test", now).unwrap();
    assert_eq!(service.adopt(orphan(0, 1), now), Err(Refused::NotRunning));
}

#[test]
fn the_last_number_there_is_leaves_the_others_to_be_used() {
    let now = Time::default();
    let mut service = service(now);
    service.adopt(orphan(u32::MAX, 1), now).unwrap();
    assert_eq!(service.header.next_ordinal, 0);
}

#[test]
fn one_more_than_was_wanted_is_wanted_and_one_that_was_missing_is_not() {
    let now = Time::default();
    let mut service = service(now);
    service.adopt(orphan(0, 1), now).unwrap();
    assert_eq!((service.wanted(), service.header.scale), (1, None));
    service.adopt(orphan(4, 1), now).unwrap();
    assert_eq!((service.wanted(), service.header.scale), (2, Some(2)));

    // A range bounds what is scaled to.
    let mut spec = spec("chat");
    spec.replicas = Count { min: 1, max: 2 };
    let identity = Identity {
        project: "default".to_owned(),
        uid: "uid".to_owned(),
    };
    let mut ranged = Service::create(identity, spec, true, now);
    for ordinal in 0..3 {
        ranged.adopt(orphan(ordinal, 1), now).unwrap();
    }
    assert_eq!(ranged.wanted(), 2);
}
