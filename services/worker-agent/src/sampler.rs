//! Measures what replicas use, now and then: processors and memory from the kernel, a metric from
//! the replica itself. It decides nothing; one replica that does not answer holds up no other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use muster_proto::replicas::v1::run_spec::Runtime;
use muster_proto::replicas::v1::scaling_policy::Metric;
use muster_proto::replicas::v1::{AttemptPhase, AttemptSample, ScalingPolicy};
use muster_runtime::shutdown::Phase;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::agent::Heard;
use crate::domain::ids::AttemptId;
use crate::grpc::convert;
use crate::machine::nvidia::Nvidia;
use crate::machine::usage::{Table, Usage, busy};
use crate::plan::{self, Port};
use crate::shared::Shared;
use crate::view::Seen;
use crate::{http, prometheus};

/// For one scrape, and the most that it may bring, in bytes.
const SCRAPE_TIME: Duration = Duration::from_secs(2);
const SCRAPE_BYTES: usize = 4 << 20;
/// For the driver to say how busy its accelerators are.
const DRIVER_TIME: Duration = Duration::from_secs(1);

/// Measures until the loops end.
#[derive(Debug)]
pub(crate) struct Sampler {
    pub(crate) shared: Shared,
    pub(crate) gpus: Gpus,
}

/// How busy accelerators are, asked of their driver on a thread of its own: a driver may hang, which leaves that
/// unsaid and nothing else.
#[derive(Debug)]
pub(crate) struct Gpus {
    nvidia: Nvidia,
    /// What is being asked: one question at a time, however long it takes.
    asked: Option<oneshot::Receiver<Busy>>,
}

/// How busy each accelerator is, in percent, by its identifier.
type Busy = BTreeMap<String, f64>;

impl Gpus {
    /// Those that this library tells of.
    pub(crate) fn new(nvidia: Nvidia) -> Self {
        let asked = None;
        Self { nvidia, asked }
    }

    /// How busy they are; nothing while the driver does not answer.
    async fn busy(&mut self) -> Busy {
        let asked = self.asked.get_or_insert_with(|| ask(self.nvidia.clone()));
        let Ok(told) = timeout(DRIVER_TIME, asked).await else {
            return Busy::new();
        };
        self.asked = None;
        told.unwrap_or_default()
    }
}

fn ask(nvidia: Nvidia) -> oneshot::Receiver<Busy> {
    let (answer, asked) = oneshot::channel();
    let begun = thread::Builder::new().spawn(move || {
        // Nobody listens any more where the agent ends.
        let _ = answer.send(nvidia.busy());
    });
    if let Err(error) = begun {
        tracing::debug!(%error, "accelerators are not asked how busy they are");
    }
    asked
}

/// What was read last, to tell what was used since.
#[derive(Debug, Default)]
struct Before {
    at: Option<Instant>,
    busy: Option<Duration>,
    attempts: BTreeMap<AttemptId, Duration>,
}

impl Sampler {
    /// Measures until the loops end.
    pub(crate) async fn run(mut self) -> Result<(), String> {
        let stop = self.shared.context.shutdown.reached(Phase::Loops);
        tokio::select! {
            () = stop => Ok(()),
            () = self.sample_on() => Ok(()),
        }
    }

    async fn sample_on(&mut self) {
        let mut before = Before::default();
        loop {
            sleep(self.shared.config.sample_interval).await;
            self.sample(&mut before).await;
        }
    }

    async fn sample(&mut self, before: &mut Before) {
        let gpus = self.gpus.busy().await;
        let view = Arc::clone(&self.shared.view.borrow());
        let running = view.attempts.iter().filter(|(_, seen)| is_running(seen));
        let running: Vec<(&AttemptId, &Arc<Seen>)> = running.collect();
        // By its group also what has ended counts, and nobody waited for.
        let ids = running.iter().map(|(id, _)| id);
        let groups: Vec<_> = ids.map(|id| self.shared.groups.group(id)).collect();
        let read = move || {
            let grouped = groups.iter().map(|group| group.as_ref()?.cpu());
            (Table::read(), busy(), grouped.collect::<Vec<_>>())
        };
        let Ok((table, busy, grouped)) = tokio::task::spawn_blocking(read).await else {
            return;
        };
        let now = Instant::now();
        let since = before.at.replace(now).map(|at| now - at);
        self.shared
            .standing
            .set_cpu_used_milli(share(before.busy, busy, since));
        before.busy = busy;
        let metrics = join_all(running.iter().map(|(_, seen)| scrape(seen))).await;
        let mut attempts = BTreeMap::new();
        for (((id, seen), metric), grouped) in running.into_iter().zip(metrics).zip(grouped) {
            let mut usage = usage(&table, seen);
            usage.cpu = grouped.unwrap_or(usage.cpu);
            let used = before.attempts.get(id).copied();
            attempts.insert(id.clone(), usage.cpu);
            let sample = AttemptSample {
                time: Some(convert::render_time(self.shared.context.clock.now())),
                metric,
                cpu_percent: percent(
                    share(used, Some(usage.cpu), since),
                    seen.assignment.cpu_milli,
                ),
                gpu_percent: mean(&gpus, &seen.assignment.gpu_uuids),
                memory_used_mib: mebibytes(usage),
            };
            self.shared
                .tell_agent(Heard::Sampled(id.clone(), sample))
                .await;
        }
        before.attempts = attempts;
    }
}

fn is_running(seen: &Seen) -> bool {
    seen.running.supervisor_pid > 0
        && matches!(
            seen.report.phase(),
            AttemptPhase::Starting | AttemptPhase::Ready | AttemptPhase::Unready
        )
}

/// A container is no descendant of its supervisor, but of its engine.
fn usage(table: &Table, seen: &Seen) -> Usage {
    let run = seen.assignment.run.as_ref();
    match run.and_then(|run| run.runtime.as_ref()) {
        Some(Runtime::Container(_)) => table.of(seen.running.pid),
        Some(Runtime::Process(_)) | None => table.below(seen.running.supervisor_pid),
    }
}

/// Processors in use, in thousandths, from processor time then and now; absent where either is.
fn share(then: Option<Duration>, now: Option<Duration>, since: Option<Duration>) -> Option<i32> {
    let since = since.filter(|since| !since.is_zero())?;
    let used = now?.saturating_sub(then?);
    i32::try_from(used.as_nanos().saturating_mul(1000) / since.as_nanos()).ok()
}

/// In percent of what is allocated; absent where nothing is.
fn percent(used_milli: Option<i32>, allocated_milli: i32) -> Option<f64> {
    let used = f64::from(used_milli?);
    (allocated_milli > 0).then(|| used * 100.0 / f64::from(allocated_milli))
}

/// How busy some accelerators are on average; absent where one of them cannot be read.
fn mean(busy: &BTreeMap<String, f64>, uuids: &[String]) -> Option<f64> {
    let read: Option<Vec<f64>> = uuids.iter().map(|uuid| busy.get(uuid).copied()).collect();
    let read = read.filter(|read| !read.is_empty())?;
    let count = u32::try_from(read.len()).ok()?;
    Some(read.iter().sum::<f64>() / f64::from(count))
}

fn mebibytes(usage: Usage) -> Option<i32> {
    i32::try_from(usage.memory >> 20).ok()
}

/// The metric by which a replica's service scales, if it is the replica's own.
async fn scrape(seen: &Seen) -> Option<f64> {
    let policy = seen.assignment.scaling.as_ref()?;
    let Some(Metric::Prometheus(name)) = &policy.metric else {
        return None;
    };
    let port = scraped_port(policy, &seen.ports)?;
    let path = if policy.path.is_empty() {
        "/metrics"
    } else {
        &policy.path
    };
    let scraped = timeout(SCRAPE_TIME, http::body(port, path, SCRAPE_BYTES)).await;
    let text = match scraped {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => {
            tracing::debug!(
                attempt = seen.report.attempt_id,
                error,
                "no metric to scale by"
            );
            return None;
        }
        Err(_) => return None,
    };
    prometheus::sum(&String::from_utf8_lossy(&text), name)
}

fn scraped_port(policy: &ScalingPolicy, ports: &[Port]) -> Option<u16> {
    plan::real_port(policy.port, ports).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn what_is_used_is_told_between_two_looks() {
        assert_eq!(
            share(Some(secs(1)), Some(secs(4)), Some(secs(2))),
            Some(1500)
        );
        assert_eq!(share(None, Some(secs(4)), Some(secs(2))), None);
        assert_eq!(share(Some(secs(1)), Some(secs(4)), None), None);
        assert_eq!(share(Some(secs(4)), Some(secs(1)), Some(secs(2))), Some(0));
        assert_eq!(percent(Some(1500), 2000), Some(75.0));
        assert_eq!(percent(Some(1500), 0), None);
    }

    #[test]
    fn accelerators_are_busy_on_average_if_all_are_read() {
        let busy = [("a", 90.0), ("b", 10.0), ("c", 0.0)];
        let busy = busy
            .map(|(uuid, percent)| (uuid.to_owned(), percent))
            .into();
        let mean = |uuids: &[&str]| {
            let uuids: Vec<_> = uuids.iter().map(|uuid| (*uuid).to_owned()).collect();
            mean(&busy, &uuids)
        };
        assert_eq!(mean(&["a", "b"]), Some(50.0));
        assert_eq!(mean(&["c"]), Some(0.0));
        assert_eq!(mean(&["a", "gone"]), None);
        assert_eq!(mean(&[]), None);
    }
}
