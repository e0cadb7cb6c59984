//! What happens on failure, under load and at updates.

use std::collections::BTreeMap;

use muster_proto::replicas::v1 as wire;
use muster_runtime::status::Violations;

use super::super::{count, known, natural, optional_span, render_span, span};
use crate::domain::failure::Class;
use crate::domain::failure::policy::{Exhausted, Growth, Retry, Rule, Stage, StagePlace};
use crate::domain::spec::{Metric, Scaling, Update, defaults};

pub(crate) fn parse_class(class: wire::FailureClass) -> Option<Class> {
    match class {
        wire::FailureClass::Unspecified => None,
        wire::FailureClass::NoCapacity => Some(Class::NoCapacity),
        wire::FailureClass::Interruption => Some(Class::Interruption),
        wire::FailureClass::Error => Some(Class::Error),
        wire::FailureClass::Oom => Some(Class::Oom),
        wire::FailureClass::Probe => Some(Class::Probe),
        wire::FailureClass::StartTimeout => Some(Class::StartTimeout),
        wire::FailureClass::Image => Some(Class::Image),
        wire::FailureClass::Config => Some(Class::Config),
    }
}

pub(crate) fn render_class(class: Option<Class>) -> wire::FailureClass {
    match class {
        None => wire::FailureClass::Unspecified,
        Some(Class::NoCapacity) => wire::FailureClass::NoCapacity,
        Some(Class::Interruption) => wire::FailureClass::Interruption,
        Some(Class::Error) => wire::FailureClass::Error,
        Some(Class::Oom) => wire::FailureClass::Oom,
        Some(Class::Probe) => wire::FailureClass::Probe,
        Some(Class::StartTimeout) => wire::FailureClass::StartTimeout,
        Some(Class::Image) => wire::FailureClass::Image,
        Some(Class::Config) => wire::FailureClass::Config,
    }
}

pub(super) fn parse_retry(retry: wire::RetryPolicy, faults: &mut Violations) -> Retry {
    let unsaid = defaults::retry();
    let attempts = natural(retry.max_attempts, "retry.max_attempts", faults);
    let exhausted = known(retry.exhausted, "retry.exhausted", faults);
    let mut stages = Vec::new();
    for (index, stage) in retry.stages.into_iter().enumerate() {
        stages.extend(parse_stage(
            &format!("retry.stages[{index}]"),
            stage,
            faults,
        ));
    }
    Retry {
        interval: span(retry.interval, unsaid.interval, "retry.interval", faults),
        max_duration: span(
            retry.max_duration,
            unsaid.max_duration,
            "retry.max_duration",
            faults,
        ),
        max_attempts: (attempts > 0).then_some(attempts),
        growth: parse_growth("retry.backoff", retry.backoff, faults),
        stable: span(retry.stable, unsaid.stable, "retry.stable", faults),
        classes: parse_classes(retry.classes, faults),
        stages,
        exhausted: match exhausted {
            wire::OnExhausted::Unspecified | wire::OnExhausted::Replica => Exhausted::Replica,
            wire::OnExhausted::Service => Exhausted::Service,
        },
    }
}

fn parse_classes(
    classes: Vec<wire::ClassPolicy>,
    faults: &mut Violations,
) -> BTreeMap<Class, Rule> {
    let mut parsed = BTreeMap::new();
    for (index, policy) in classes.into_iter().enumerate() {
        let path = format!("retry.classes[{index}]");
        let at = |field: &str| format!("{path}.{field}");
        let named = known(policy.failure_class, &at("failure_class"), faults);
        let Some(class) = parse_class(named) else {
            faults.add(at("failure_class"), "is required");
            continue;
        };
        let attempts = natural(policy.max_attempts, &at("max_attempts"), faults);
        let rule = Rule {
            fail: policy.fail,
            interval: optional_span(policy.interval, &at("interval"), faults),
            max_duration: optional_span(policy.max_duration, &at("max_duration"), faults),
            max_attempts: (attempts > 0).then_some(attempts),
            growth: parse_growth(&at("backoff"), policy.backoff, faults),
        };
        if parsed.insert(class, rule).is_some() {
            faults.add(at("failure_class"), format!("{class} is given twice"));
        }
    }
    parsed
}

fn parse_growth(
    path: &str,
    backoff: Option<wire::Backoff>,
    faults: &mut Violations,
) -> Option<Growth> {
    let backoff = backoff?;
    let unsaid = defaults::GROWTH;
    let factor = if backoff.factor == 0.0 {
        unsaid.factor
    } else {
        backoff.factor
    };
    Some(Growth {
        factor,
        max: span(backoff.max, unsaid.max, &format!("{path}.max"), faults),
        jitter: backoff.jitter.unwrap_or(unsaid.jitter),
    })
}

fn parse_stage(path: &str, stage: wire::RetryStage, faults: &mut Violations) -> Option<Stage> {
    let place = match known(stage.place, &format!("{path}.place"), faults) {
        wire::RetryPlace::Unspecified => {
            faults.add(format!("{path}.place"), "is required");
            return None;
        }
        wire::RetryPlace::SameWorker => StagePlace::SameWorker,
        wire::RetryPlace::OtherWorker => StagePlace::OtherWorker,
        wire::RetryPlace::OtherRegion => StagePlace::OtherRegion,
        wire::RetryPlace::Any => StagePlace::Any,
    };
    let attempts = natural(stage.attempts, &format!("{path}.attempts"), faults);
    Some(Stage {
        attempts: (attempts > 0).then_some(attempts),
        place,
    })
}

pub(super) fn parse_scaling(scaling: wire::ScalingPolicy, faults: &mut Violations) -> Scaling {
    use wire::scaling_policy::Metric as Wire;
    let metric = match scaling.metric {
        Some(Wire::Prometheus(name)) => Some(Metric::Prometheus(name)),
        Some(Wire::Cpu(true)) => Some(Metric::Cpu),
        Some(Wire::Gpu(true)) => Some(Metric::Gpu),
        Some(Wire::Load(true)) => Some(Metric::Load),
        Some(Wire::Cpu(false) | Wire::Gpu(false) | Wire::Load(false)) | None => None,
    };
    if metric.is_none() {
        faults.add("scaling", "needs one of prometheus, cpu, gpu and load");
    }
    let path = if scaling.path.is_empty() {
        "/metrics".to_owned()
    } else {
        scaling.path
    };
    Scaling {
        metric: metric.unwrap_or(Metric::Load),
        target: scaling.target,
        up_delay: span(
            scaling.up_delay,
            defaults::UP_DELAY,
            "scaling.up_delay",
            faults,
        ),
        down_delay: span(
            scaling.down_delay,
            defaults::DOWN_DELAY,
            "scaling.down_delay",
            faults,
        ),
        port: natural(scaling.port, "scaling.port", faults),
        path,
    }
}

pub(super) fn parse_update(update: wire::UpdatePolicy, faults: &mut Violations) -> Update {
    let unsaid = defaults::UPDATE;
    let surge = update
        .max_surge
        .map(|n| natural(n, "update.max_surge", faults));
    let away = update
        .max_unavailable
        .map(|n| natural(n, "update.max_unavailable", faults));
    Update {
        max_surge: surge.unwrap_or(unsaid.max_surge),
        max_unavailable: away.unwrap_or(unsaid.max_unavailable),
        min_ready: span(
            update.min_ready,
            unsaid.min_ready,
            "update.min_ready",
            faults,
        ),
        progress_deadline: span(
            update.progress_deadline,
            unsaid.progress_deadline,
            "update.progress_deadline",
            faults,
        ),
    }
}

pub(super) fn render_retry(retry: &Retry) -> wire::RetryPolicy {
    wire::RetryPolicy {
        interval: Some(render_span(retry.interval)),
        max_duration: Some(render_span(retry.max_duration)),
        max_attempts: count(retry.max_attempts.unwrap_or(0)),
        backoff: retry.growth.map(render_growth),
        stable: Some(render_span(retry.stable)),
        classes: retry.classes.iter().map(render_rule).collect(),
        stages: retry.stages.iter().map(render_stage).collect(),
        exhausted: match retry.exhausted {
            Exhausted::Replica => wire::OnExhausted::Replica,
            Exhausted::Service => wire::OnExhausted::Service,
        }
        .into(),
    }
}

fn render_rule((class, rule): (&Class, &Rule)) -> wire::ClassPolicy {
    wire::ClassPolicy {
        failure_class: render_class(Some(*class)).into(),
        fail: rule.fail,
        interval: rule.interval.map(render_span),
        max_duration: rule.max_duration.map(render_span),
        max_attempts: count(rule.max_attempts.unwrap_or(0)),
        backoff: rule.growth.map(render_growth),
    }
}

fn render_growth(growth: Growth) -> wire::Backoff {
    wire::Backoff {
        factor: growth.factor,
        max: Some(render_span(growth.max)),
        jitter: Some(growth.jitter),
    }
}

fn render_stage(stage: &Stage) -> wire::RetryStage {
    wire::RetryStage {
        attempts: count(stage.attempts.unwrap_or(0)),
        place: match stage.place {
            StagePlace::SameWorker => wire::RetryPlace::SameWorker,
            StagePlace::OtherWorker => wire::RetryPlace::OtherWorker,
            StagePlace::OtherRegion => wire::RetryPlace::OtherRegion,
            StagePlace::Any => wire::RetryPlace::Any,
        }
        .into(),
    }
}

pub(crate) fn render_scaling(scaling: &Scaling) -> wire::ScalingPolicy {
    use wire::scaling_policy::Metric as Wire;
    wire::ScalingPolicy {
        metric: Some(match &scaling.metric {
            Metric::Prometheus(name) => Wire::Prometheus(name.clone()),
            Metric::Cpu => Wire::Cpu(true),
            Metric::Gpu => Wire::Gpu(true),
            Metric::Load => Wire::Load(true),
        }),
        target: scaling.target,
        up_delay: Some(render_span(scaling.up_delay)),
        down_delay: Some(render_span(scaling.down_delay)),
        port: count(scaling.port),
        path: scaling.path.clone(),
    }
}

pub(super) fn render_update(update: &Update) -> wire::UpdatePolicy {
    wire::UpdatePolicy {
        max_surge: Some(count(update.max_surge)),
        max_unavailable: Some(count(update.max_unavailable)),
        min_ready: Some(render_span(update.min_ready)),
        progress_deadline: Some(render_span(update.progress_deadline)),
    }
}
