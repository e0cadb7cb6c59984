use std::time::Duration;

use super::*;
use crate::domain::replica::attempt::{Allocation, Attempt};
use crate::domain::replica::{Phase, Role, State};
use crate::domain::rollout::Stage;
use crate::domain::service::command::Identity;
use crate::domain::spec::Spec;
use crate::domain::spec::diff::diff;
use crate::domain::spec::testing::spec;
use crate::domain::time::Time;

fn running(service: &Service) -> Replica {
    let edition = service.header.edition;
    let mut replica = Replica::new(0, Role::Member, edition, Time::default());
    let mut attempt = Attempt::new(1, edition.version);
    attempt.allocation = Some(Allocation::on_w1("a-1"));
    replica.attempt = Some(attempt);
    replica.state = State::Running(Phase::Ready);
    replica
}

fn apply(service: &mut Service, change: impl FnOnce(&mut Spec)) {
    let mut spec = service.spec().clone();
    change(&mut spec);
    let differs = diff(service.spec(), &spec);
    service.update(spec, &differs, Time::default()).unwrap();
}

#[test]
fn a_change_in_place_reaches_what_runs_an_earlier_version() {
    let identity = Identity {
        project: "default".to_owned(),
        uid: "uid".to_owned(),
    };
    let mut service = Service::create(identity, spec("chat"), true, Time::default());
    let replica = running(&service);
    service.replicas.insert(0, Arc::new(replica));
    apply(&mut service, |spec| spec.run.command.push("-v2".to_owned()));
    if let Some(rollout) = &mut service.header.rollout {
        rollout.stage = Stage::RolledBack;
    }
    let before = service.clone();
    apply(&mut service, |spec| {
        spec.stop_grace = Duration::from_secs(3);
    });

    let both = pairs(Some(&before), Some(&service));
    let mut updates = Vec::new();
    for pair in &both {
        assert!(pair.is_one_replica());
        let (old, new) = pair.map(assignment_of);
        difference(old.as_ref(), new, &mut updates);
    }
    let told: Vec<_> = updates.into_iter().filter_map(|u| u.value).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].version, 1);
    let grace = told[0].stop.and_then(|stop| stop.grace);
    assert_eq!(grace.map(|grace| grace.seconds), Some(3));
    assert!(pairs(Some(&service), Some(&service)).is_empty());
}
