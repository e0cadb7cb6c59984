//! Specs for tests.

use std::collections::BTreeMap;

use super::{Count, OnDisconnect, Placement, Probes, Run, Runtime, Spec, defaults};

/// One process without needs; every default.
pub(crate) fn spec(name: &str) -> Spec {
    Spec {
        name: name.to_owned(),
        replicas: Count { min: 1, max: 1 },
        run: Run {
            runtime: Runtime::Process,
            command: vec!["serve".to_owned()],
            env: Vec::new(),
            ports: Vec::new(),
            volumes: Vec::new(),
            working_dir: String::new(),
        },
        resources: muster_model::requirements::Requirements::default(),
        placement: Placement::default(),
        start_timeout: defaults::START_TIMEOUT,
        probes: Probes::default(),
        min_healthy: 1,
        retry: None,
        scaling: None,
        update: defaults::UPDATE,
        stop_grace: defaults::STOP_GRACE,
        on_disconnect: OnDisconnect::Keep,
        labels: BTreeMap::new(),
    }
}
