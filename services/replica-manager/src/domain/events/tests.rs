use std::sync::Arc;

use super::*;
use crate::domain::replica::{Phase, Replica, Role, State, Stop, StopWhy};
use crate::domain::rollout::Edition;
use crate::domain::service::command::Identity;
use crate::domain::spec::testing::spec;
use crate::domain::time::Time;

/// A service whose one replica is in this phase.
fn service(phase: Phase, stop: Option<Stop>) -> Service {
    let identity = Identity {
        project: "default".to_owned(),
        uid: "uid".to_owned(),
    };
    let edition = Edition {
        template: 1,
        restart: 0,
        version: 1,
    };
    let mut service = Service::create(identity, spec("chat"), true, Time::default());
    let mut replica = Replica::new(0, Role::Member, edition, Time::default());
    replica.state = State::Running(phase);
    replica.stop = stop;
    service.replicas.insert(0, Arc::new(replica));
    service
}

#[test]
fn only_one_that_is_meant_to_serve_is_told_of_as_unready() {
    let stop = Stop {
        why: StopWhy::Restart,
        at: Time::default(),
        told: true,
    };
    for (stop, told) in [(None, vec!["ReplicaUnready"]), (Some(stop), vec![])] {
        let before = service(Phase::Ready, stop);
        let after = service(Phase::Unready, stop);
        let kinds: Vec<_> = between(Some(&before), &after)
            .into_iter()
            .map(|happening| happening.kind)
            .collect();
        assert_eq!(kinds, told);
    }
}
