//! Backends in the wire's words.

use std::time::SystemTime;

use muster_proto::offers::v1 as pb;

use super::offer::int32;
use super::{render_duration, render_time};
use crate::domain::backend::Standing;
use crate::domain::breaker;
use crate::domain::intake::Intake;
use crate::domain::report::{self, Data, Refresh, Report};

/// What an answer says of a backend, of which `matched` offers met the filter.
pub fn render_report(standing: &Standing, report: Report, matched: u32) -> pb::BackendReport {
    let (total, skipped) = counts(standing);
    pb::BackendReport {
        backend: standing.facts.name.clone(),
        kind: standing.facts.kind.to_owned(),
        data: render_data(report.data).into(),
        refresh: render_refresh(report.refresh).into(),
        age: report.age.map(render_duration),
        latency: report.latency.map(render_duration),
        offers_matched: int32(matched),
        offers_total: total,
        rows_skipped: skipped,
        dropped: standing.dropped,
        error: report.error,
    }
}

/// A backend as it stands at `now`.
pub fn render_backend(standing: &Standing, now: SystemTime) -> pb::Backend {
    let facts = &standing.facts;
    let told = standing.told.as_ref();
    let intake = told.map(|told| told.snapshot.intake());
    let (total, skipped) = counts(standing);
    let at_fault = standing
        .ended
        .as_ref()
        .filter(|ended| ended.fault.is_some());
    pb::Backend {
        name: facts.name.clone(),
        kind: facts.kind.to_owned(),
        source: facts.source.clone(),
        data: render_data(report::data(standing, false, now)).into(),
        refresh: render_refresh(report::last_refresh(standing)).into(),
        breaker: render_breaker(standing.breaker.state()).into(),
        snapshot_time: told.map(|told| render_time(told.observed)),
        age: standing.age(now).map(render_duration),
        refresh_interval: Some(render_duration(standing.refresh_interval())),
        next_refresh_time: standing.next_refresh.map(render_time),
        latency: standing
            .ended
            .as_ref()
            .map(|ended| render_duration(ended.took)),
        offers_total: total,
        rows_read: intake.map_or(0, |intake| int32(intake.rows)),
        rows_skipped: skipped,
        rows_mended: intake.map_or(0, |intake| int32(intake.mended)),
        rows_repeated: intake.map_or(0, |intake| int32(intake.repeated)),
        skipped: intake.map(render_skipped).unwrap_or_default(),
        unknown_gpu_names: intake
            .map(|intake| intake.unknown_gpus.iter().cloned().collect())
            .unwrap_or_default(),
        error: report::report(standing, None, now).error,
        error_time: at_fault.map(|ended| render_time(ended.at)),
        consecutive_failures: int32(standing.breaker.failures()),
        price_date: intake
            .map(|intake| intake.price_date.clone())
            .unwrap_or_default(),
        live_capacity: told.is_some_and(|told| told.live_capacity),
    }
}

fn counts(standing: &Standing) -> (i32, i32) {
    let Some(told) = standing.told.as_ref() else {
        return (0, 0);
    };
    let total = i32::try_from(told.snapshot.len()).unwrap_or(i32::MAX);
    (total, int32(told.snapshot.intake().skipped_rows()))
}

fn render_skipped(intake: &Intake) -> Vec<pb::SkippedRows> {
    let skipped = intake.skipped_by_count().into_iter();
    let rendered = skipped.map(|(reason, skips)| pb::SkippedRows {
        reason: reason.to_owned(),
        count: int32(skips.count),
        example: skips.example.clone(),
    });
    rendered.collect()
}

fn render_data(data: Data) -> pb::BackendData {
    match data {
        Data::Fresh => pb::BackendData::Fresh,
        Data::Cached => pb::BackendData::Cached,
        Data::Stale => pb::BackendData::Stale,
        Data::None => pb::BackendData::None,
    }
}

fn render_refresh(refresh: Refresh) -> pb::BackendRefresh {
    match refresh {
        Refresh::NotTried => pb::BackendRefresh::NotTried,
        Refresh::Ok => pb::BackendRefresh::Ok,
        Refresh::TimedOut => pb::BackendRefresh::TimedOut,
        Refresh::Failed => pb::BackendRefresh::Failed,
        Refresh::BreakerOpen => pb::BackendRefresh::BreakerOpen,
        Refresh::Disabled => pb::BackendRefresh::Disabled,
    }
}

fn render_breaker(state: breaker::State) -> pb::BreakerState {
    match state {
        breaker::State::Closed => pb::BreakerState::Closed,
        breaker::State::Open { .. } => pb::BreakerState::Open,
        breaker::State::HalfOpen => pb::BreakerState::HalfOpen,
    }
}
