use muster_model::gpu::canonical;
use muster_model::requirements::GpuRequest;

use super::*;
use crate::domain::failure::Class;
use crate::domain::failure::policy::{Rule, Stage, StagePlace};
use crate::domain::spec::testing::spec;
use crate::domain::spec::{Port, Scaling, Volume, defaults};

fn check(change: impl FnOnce(&mut Spec), expected: &[&str]) {
    let mut changed = spec("chat");
    change(&mut changed);
    let found = violations(&changed);
    let paths: Vec<&str> = found.iter().map(|v| v.path.as_str()).collect();
    assert_eq!(paths, expected, "{found:?}");
}

fn probe_of(check: Check) -> Probe {
    Probe {
        check,
        interval: defaults::PROBE_INTERVAL,
        timeout: defaults::PROBE_TIMEOUT,
        successes: 1,
        failures: 3,
    }
}

#[test]
fn a_plain_spec_breaks_nothing() {
    check(|_| (), &[]);
}

#[test]
fn every_violation_is_found_not_the_first() {
    check(
        |s| {
            s.name = "Chat".to_owned();
            s.replicas.min = 3;
            s.min_healthy = 9;
            s.run.command.clear();
            s.update.max_surge = 0;
        },
        &[
            "name",
            "replicas.max",
            "min_healthy",
            "run.command",
            "update.max_surge",
        ],
    );
}

#[test]
fn min_healthy_is_free_where_a_service_may_scale_to_zero() {
    check(
        |s| {
            s.replicas = super::super::Count { min: 0, max: 5 };
            s.min_healthy = 3;
        },
        &[],
    );
}

#[test]
fn an_update_must_be_possible() {
    let stop_first = |spec: &mut Spec| {
        spec.update.max_surge = 0;
        spec.update.max_unavailable = 1;
    };
    check(stop_first, &["update.max_surge"]);
    check(
        |spec| {
            stop_first(spec);
            spec.min_healthy = 0;
        },
        &[],
    );
}

#[test]
fn probes_name_ports_that_exist() {
    check(
        |s| s.probes.ready = Some(probe_of(Check::Tcp { port: 8000 })),
        &["probes.ready.tcp.port"],
    );
    check(
        |s| {
            s.run.ports = vec![Port {
                number: 8000,
                name: String::new(),
                udp: false,
                host_port: false,
            }];
            s.probes.ready = Some(probe_of(Check::Tcp { port: 0 }));
            s.probes.alive = Some(Probe {
                interval: Duration::from_millis(50),
                ..probe_of(Check::Http {
                    port: 8000,
                    path: "health".to_owned(),
                })
            });
        },
        &["probes.alive.http.path", "probes.alive.interval"],
    );
}

#[test]
fn a_fenced_service_stops_within_thirty_seconds() {
    check(
        |s| {
            s.on_disconnect = OnDisconnect::Stop;
            s.stop_grace = Duration::from_secs(31);
        },
        &["stop.grace"],
    );
}

#[test]
fn only_the_last_stage_is_unlimited_and_fail_has_no_limits() {
    check(
        |s| {
            let mut retry = defaults::retry();
            let stage = Stage {
                attempts: None,
                place: StagePlace::Any,
            };
            retry.stages = vec![stage, stage];
            let rule = Rule {
                fail: true,
                max_attempts: Some(3),
                ..Rule::default()
            };
            retry.classes.insert(Class::Image, rule);
            retry.growth = Some(Growth {
                factor: 0.5,
                jitter: 2.0,
                ..defaults::GROWTH
            });
            s.retry = Some(retry);
        },
        &[
            "retry.backoff.factor",
            "retry.backoff.jitter",
            "retry.classes[IMAGE]",
            "retry.stages[0].attempts",
        ],
    );
}

#[test]
fn scaling_needs_a_target_and_a_port_to_scrape() {
    check(
        |s| {
            s.scaling = Some(Scaling {
                metric: Metric::Prometheus("waiting".to_owned()),
                target: 0.0,
                up_delay: defaults::UP_DELAY,
                down_delay: defaults::DOWN_DELAY,
                port: 0,
                path: "/metrics".to_owned(),
            });
        },
        &["scaling.target", "scaling.port"],
    );
}

#[test]
fn scaling_by_what_replicas_use_needs_something_to_measure() {
    let by = |metric: Metric| Scaling {
        metric,
        target: 50.0,
        up_delay: defaults::UP_DELAY,
        down_delay: defaults::DOWN_DELAY,
        port: 0,
        path: "/metrics".to_owned(),
    };
    check(
        |s| {
            s.replicas.min = 0;
            s.scaling = Some(by(Metric::Cpu));
        },
        &["resources.cpu_milli", "replicas.min"],
    );
    check(
        |s| {
            s.resources.cpu_milli = 500;
            s.scaling = Some(by(Metric::Cpu));
        },
        &[],
    );
    check(
        |s| {
            s.replicas.min = 0;
            s.scaling = Some(by(Metric::Load));
        },
        &[],
    );
}

#[test]
fn accelerators_are_asked_for_by_so_many_names_and_no_more() {
    let named = |names: usize| GpuRequest {
        names: vec![canonical("H100"); names],
        ..GpuRequest::default()
    };
    check(|s| s.resources.gpu_any_of = vec![named(100); 32], &[]);
    check(
        |s| {
            s.resources.gpu_any_of = vec![named(1); 33];
            s.resources.gpu_any_of[1] = named(101);
        },
        &["resources.gpu_any_of", "resources.gpu_any_of[1].names"],
    );
}

#[test]
fn paths_environment_and_ports_are_checked() {
    check(
        |s| {
            s.run.env = vec![
                ("A".to_owned(), "1".to_owned()),
                ("A".to_owned(), "2".to_owned()),
                ("B=C".to_owned(), String::new()),
                ("D".to_owned(), "***".to_owned()),
                ("E".to_owned(), "****".to_owned()),
            ];
            let port = |number| Port {
                number,
                name: String::new(),
                udp: false,
                host_port: false,
            };
            s.run.ports = vec![port(80), port(80), port(70000)];
            s.run.volumes = vec![Volume {
                host_path: "data".to_owned(),
                mount_path: "/data".to_owned(),
                read_only: false,
            }];
        },
        &[
            "run.env[1]",
            "run.env[2]",
            "run.env[3]",
            "run.ports[1].number",
            "run.ports[2].number",
            "run.volumes[0].host_path",
        ],
    );
}

#[test]
fn what_is_far_too_many_is_told_once() {
    check(
        |s| {
            let stage = Stage {
                attempts: None,
                place: StagePlace::Any,
            };
            let mut retry = defaults::retry();
            retry.stages = vec![stage; MAX_STAGES + 1];
            s.retry = Some(retry);
            s.update.max_surge = MAX_REPLICAS + 1;
            s.update.max_unavailable = u32::MAX;
            let label = |number| (format!("k{number}"), "v".to_owned());
            s.labels = (0..=MAX_LABELS).map(label).collect();
        },
        &[
            "retry.stages",
            "update.max_surge",
            "update.max_unavailable",
            "labels",
        ],
    );
}
