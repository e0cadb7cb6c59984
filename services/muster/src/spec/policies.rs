//! The policies of a service: probes, retry, scaling, update.

use muster_proto::replicas::v1::{
    Backoff, ClassPolicy, ExecProbe, FailureClass, GrpcProbe, HttpProbe, OnExhausted, Probe,
    Probes, RetryPlace, RetryPolicy, RetryStage, ScalingPolicy, TcpProbe, UpdatePolicy, probe,
    scaling_policy,
};

use super::{
    reader::{Entry, Fields, Problems},
    service,
};

/// A duration, as the contract writes it.
pub(super) fn duration(
    entry: &Entry<'_>,
    problems: &mut Problems,
) -> Option<prost_types::Duration> {
    let duration = entry.duration(problems)?;
    prost_types::Duration::try_from(duration).ok()
}

pub(super) fn probes(entry: &Entry<'_>, problems: &mut Problems) -> Option<Probes> {
    let mut fields = entry.fields(problems)?;
    let probes = Probes {
        ready: fields
            .take("ready")
            .and_then(|entry| probe(&entry, problems)),
        alive: fields
            .take("alive")
            .and_then(|entry| probe(&entry, problems)),
    };
    fields.finish(problems);
    Some(probes)
}

fn probe(entry: &Entry<'_>, problems: &mut Problems) -> Option<Probe> {
    let mut fields = entry.fields(problems)?;
    let checks = [
        fields.take("http").and_then(|entry| http(&entry, problems)),
        fields.take("tcp").and_then(|entry| tcp(&entry, problems)),
        fields.take("grpc").and_then(|entry| grpc(&entry, problems)),
        fields.take("exec").and_then(|entry| exec(&entry, problems)),
    ];
    let mut checks = checks.into_iter().flatten();
    let (check, second) = (checks.next(), checks.next());
    if check.is_none() || second.is_some() {
        problems.add(entry, "needs exactly one of http, tcp, grpc and exec");
    }
    let probe = Probe {
        check,
        interval: fields
            .take("interval")
            .and_then(|entry| duration(&entry, problems)),
        timeout: fields
            .take("timeout")
            .and_then(|entry| duration(&entry, problems)),
        successes: count(&mut fields, "successes", problems),
        failures: count(&mut fields, "failures", problems),
    };
    fields.finish(problems);
    Some(probe)
}

fn count(fields: &mut Fields<'_>, name: &'static str, problems: &mut Problems) -> i32 {
    fields
        .take(name)
        .and_then(|entry| entry.count(problems))
        .unwrap_or_default()
}

fn text(fields: &mut Fields<'_>, name: &'static str, problems: &mut Problems) -> String {
    fields
        .take(name)
        .and_then(|entry| entry.text(problems))
        .unwrap_or_default()
}

fn http(entry: &Entry<'_>, problems: &mut Problems) -> Option<probe::Check> {
    let mut fields = entry.fields(problems)?;
    let check = HttpProbe {
        port: count(&mut fields, "port", problems),
        path: text(&mut fields, "path", problems),
    };
    fields.finish(problems);
    Some(probe::Check::Http(check))
}

fn tcp(entry: &Entry<'_>, problems: &mut Problems) -> Option<probe::Check> {
    let mut fields = entry.fields(problems)?;
    let check = TcpProbe {
        port: count(&mut fields, "port", problems),
    };
    fields.finish(problems);
    Some(probe::Check::Tcp(check))
}

fn grpc(entry: &Entry<'_>, problems: &mut Problems) -> Option<probe::Check> {
    let mut fields = entry.fields(problems)?;
    let check = GrpcProbe {
        port: count(&mut fields, "port", problems),
        service: text(&mut fields, "service", problems),
    };
    fields.finish(problems);
    Some(probe::Check::Grpc(check))
}

fn exec(entry: &Entry<'_>, problems: &mut Problems) -> Option<probe::Check> {
    let mut fields = entry.fields(problems)?;
    let command = fields
        .take("command")
        .map(|entry| service::command(&entry, problems));
    fields.finish(problems);
    Some(probe::Check::Command(ExecProbe {
        command: command.unwrap_or_default(),
    }))
}

/// `true` for all defaults, or the fields; `false` is as if it were absent.
pub(super) fn retry(entry: &Entry<'_>, problems: &mut Problems) -> Option<RetryPolicy> {
    if !entry.is_map() {
        return entry.truth(problems)?.then(RetryPolicy::default);
    }
    let exhausted = [
        ("replica", OnExhausted::Replica),
        ("service", OnExhausted::Service),
    ];
    let mut fields = entry.fields(problems)?;
    let policy = RetryPolicy {
        interval: fields
            .take("interval")
            .and_then(|entry| duration(&entry, problems)),
        max_duration: fields
            .take("max_duration")
            .and_then(|entry| duration(&entry, problems)),
        max_attempts: count(&mut fields, "max_attempts", problems),
        backoff: fields
            .take("backoff")
            .and_then(|entry| backoff(&entry, problems)),
        stable: fields
            .take("stable")
            .and_then(|entry| duration(&entry, problems)),
        classes: fields
            .take("classes")
            .map(|entry| classes(&entry, problems))
            .unwrap_or_default(),
        stages: fields
            .take("stages")
            .map(|entry| stages(&entry, problems))
            .unwrap_or_default(),
        exhausted: fields
            .take("exhausted")
            .and_then(|entry| entry.word(problems, &exhausted))
            .map(i32::from)
            .unwrap_or_default(),
    };
    fields.finish(problems);
    Some(policy)
}

fn backoff(entry: &Entry<'_>, problems: &mut Problems) -> Option<Backoff> {
    let mut fields = entry.fields(problems)?;
    let backoff = Backoff {
        factor: fields
            .take("factor")
            .and_then(|entry| entry.number(problems))
            .unwrap_or_default(),
        max: fields
            .take("max")
            .and_then(|entry| duration(&entry, problems)),
        jitter: fields
            .take("jitter")
            .and_then(|entry| entry.number(problems)),
    };
    fields.finish(problems);
    Some(backoff)
}

const CLASSES: [(&str, FailureClass); 8] = [
    ("no-capacity", FailureClass::NoCapacity),
    ("interruption", FailureClass::Interruption),
    ("error", FailureClass::Error),
    ("oom", FailureClass::Oom),
    ("probe", FailureClass::Probe),
    ("start-timeout", FailureClass::StartTimeout),
    ("image", FailureClass::Image),
    ("config", FailureClass::Config),
];

/// `{error: {max_attempts: 5}, image: fail}`.
fn classes(entry: &Entry<'_>, problems: &mut Problems) -> Vec<ClassPolicy> {
    let Some(mut fields) = entry.fields(problems) else {
        return Vec::new();
    };
    let mut policies = Vec::new();
    for (word, class) in CLASSES {
        if let Some(entry) = fields.take(word) {
            policies.extend(class_policy(class, &entry, problems));
        }
    }
    fields.finish(problems);
    policies
}

fn class_policy(
    class: FailureClass,
    entry: &Entry<'_>,
    problems: &mut Problems,
) -> Option<ClassPolicy> {
    let failure_class = class.into();
    if !entry.is_map() {
        entry.word(problems, &[("fail", ())])?;
        return Some(ClassPolicy {
            failure_class,
            fail: true,
            ..ClassPolicy::default()
        });
    }
    let mut fields = entry.fields(problems)?;
    let policy = ClassPolicy {
        failure_class,
        fail: false,
        interval: fields
            .take("interval")
            .and_then(|entry| duration(&entry, problems)),
        max_duration: fields
            .take("max_duration")
            .and_then(|entry| duration(&entry, problems)),
        max_attempts: count(&mut fields, "max_attempts", problems),
        backoff: fields
            .take("backoff")
            .and_then(|entry| backoff(&entry, problems)),
    };
    fields.finish(problems);
    Some(policy)
}

fn stages(entry: &Entry<'_>, problems: &mut Problems) -> Vec<RetryStage> {
    let places = [
        ("same-worker", RetryPlace::SameWorker),
        ("other-worker", RetryPlace::OtherWorker),
        ("other-region", RetryPlace::OtherRegion),
        ("any", RetryPlace::Any),
    ];
    let mut stages = Vec::new();
    for item in entry.items(problems) {
        let Some(mut fields) = item.fields(problems) else {
            continue;
        };
        let attempts = count(&mut fields, "attempts", problems);
        match fields.take("place") {
            Some(place) => {
                let place = place
                    .word(problems, &places)
                    .map(i32::from)
                    .unwrap_or_default();
                stages.push(RetryStage { attempts, place });
            }
            None => problems.add(&item, "needs a `place`"),
        }
        fields.finish(problems);
    }
    stages
}

pub(super) fn scaling(entry: &Entry<'_>, problems: &mut Problems) -> Option<ScalingPolicy> {
    let mut fields = entry.fields(problems)?;
    let metric = match fields.take("metric") {
        Some(metric) => metric_of(&metric, problems),
        None => {
            problems.add(
                entry,
                "needs a `metric`: cpu, gpu, load, or {prometheus: NAME}",
            );
            None
        }
    };
    let policy = ScalingPolicy {
        metric,
        target: fields
            .take("target")
            .and_then(|entry| entry.number(problems))
            .unwrap_or_default(),
        up_delay: fields
            .take("up_delay")
            .and_then(|entry| duration(&entry, problems)),
        down_delay: fields
            .take("down_delay")
            .and_then(|entry| duration(&entry, problems)),
        port: count(&mut fields, "port", problems),
        path: text(&mut fields, "path", problems),
    };
    fields.finish(problems);
    Some(policy)
}

fn metric_of(entry: &Entry<'_>, problems: &mut Problems) -> Option<scaling_policy::Metric> {
    if !entry.is_map() {
        let words = [("cpu", 0), ("gpu", 1), ("load", 2)];
        return Some(match entry.word(problems, &words)? {
            0 => scaling_policy::Metric::Cpu(true),
            1 => scaling_policy::Metric::Gpu(true),
            _ => scaling_policy::Metric::Load(true),
        });
    }
    let mut fields = entry.fields(problems)?;
    let name = fields
        .take("prometheus")
        .and_then(|entry| entry.text(problems));
    if name.is_none() {
        problems.add(entry, "has to be cpu, gpu, load, or {prometheus: NAME}");
    }
    fields.finish(problems);
    name.map(scaling_policy::Metric::Prometheus)
}

pub(super) fn update(entry: &Entry<'_>, problems: &mut Problems) -> Option<UpdatePolicy> {
    let mut fields = entry.fields(problems)?;
    let policy = UpdatePolicy {
        max_surge: fields
            .take("max_surge")
            .and_then(|entry| entry.count(problems)),
        max_unavailable: fields
            .take("max_unavailable")
            .and_then(|entry| entry.count(problems)),
        min_ready: fields
            .take("min_ready")
            .and_then(|entry| duration(&entry, problems)),
        progress_deadline: fields
            .take("progress_deadline")
            .and_then(|entry| duration(&entry, problems)),
    };
    fields.finish(problems);
    Some(policy)
}
