//! The services that tests run.

use std::time::Duration;

use muster_proto::{
    replicas::v1::{
        EnvVar, Placement, ProcessRuntime, ReplicaCount, RetryPolicy, RunSpec, ServiceSpec, Spread,
        StopPolicy, UpdatePolicy, run_spec,
    },
    types::v1::{GpuRequest, Int32Range, Requirements},
};

/// A duration as the contract writes it.
pub fn span(duration: Duration) -> Option<prost_types::Duration> {
    Some(duration.try_into().unwrap())
}

pub(super) fn gpus(name: &str, count: i32) -> GpuRequest {
    GpuRequest {
        names: vec![name.to_owned()],
        count: Some(Int32Range {
            min: Some(count),
            max: None,
        }),
        ..GpuRequest::default()
    }
}

/// A service of processes that say that they are up and sleep, on one GPU each.
pub fn sleeping(name: &str, replicas: i32, retry: Option<RetryPolicy>) -> ServiceSpec {
    let line = format!("echo {name} is up; exec sleep 3600");
    service(name, replicas, &line, retry)
}

/// A service of processes that run this shell script, on one GPU each.
pub fn service(name: &str, replicas: i32, script: &str, retry: Option<RetryPolicy>) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        replicas: Some(ReplicaCount {
            min: Some(replicas),
            max: None,
        }),
        run: Some(RunSpec {
            runtime: Some(run_spec::Runtime::Process(ProcessRuntime {})),
            command: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
            env: Vec::<EnvVar>::new(),
            ..RunSpec::default()
        }),
        resources: Some(Requirements {
            gpu_any_of: vec![gpus("H100", 1)],
            ..Requirements::default()
        }),
        placement: Some(Placement {
            spread: Spread::None.into(),
            ..Placement::default()
        }),
        retry,
        update: Some(UpdatePolicy {
            min_ready: span(Duration::from_secs(1)),
            ..UpdatePolicy::default()
        }),
        stop: Some(StopPolicy {
            grace: span(Duration::from_secs(2)),
        }),
        ..ServiceSpec::default()
    }
}

/// A policy that restarts at once.
pub fn retry() -> Option<RetryPolicy> {
    retry_every(Duration::from_millis(500))
}

/// A policy that restarts after this time, whatever failed.
pub fn retry_every(interval: Duration) -> Option<RetryPolicy> {
    Some(RetryPolicy {
        interval: span(interval),
        ..RetryPolicy::default()
    })
}
