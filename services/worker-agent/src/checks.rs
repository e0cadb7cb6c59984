//! The checks that a machine has to pass before anything is placed on it: named, timed, told to the
//! registry, and tried again until they pass. Each says what is wrong and what to do.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_proto::types::v1::Gpu;
use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_proto::workers::v1::{ActivateWorkerRequest, CheckStatus, WorkerCheck, WorkerState};
use muster_runtime::connect::Channel;
use muster_runtime::context::Context;
use muster_runtime::health::Check;
use muster_runtime::shutdown::Phase;
use tokio::time::{Instant, sleep, timeout};
use tonic::Request;

use crate::claims::Claims;
use crate::config::Config;
use crate::domain::ports;
use crate::engine::Engine;
use crate::files::{self, Durability};
use crate::grpc::convert;
use crate::shared::Shared;
use crate::standing::Registered;

/// For one check.
const CHECK_TIME: Duration = Duration::from_secs(10);
const ACTIVATE_DEADLINE: Duration = Duration::from_secs(10);
/// The least room on the disk, in bytes.
const LEAST_ROOM: u64 = 64 << 20;

/// Passed with what was found, or failed with what is wrong and what to do.
type Found = Result<String, String>;

/// Brings the worker from PROVISIONING to ACTIVE, whenever it is there.
#[derive(Debug)]
pub(crate) struct Activation {
    pub(crate) shared: Shared,
    pub(crate) client: WorkersServiceClient<Channel>,
    pub(crate) check: Check,
    pub(crate) claims: Arc<Mutex<Claims>>,
}

impl Activation {
    /// Works until the loops end.
    pub(crate) async fn run(mut self) -> Result<(), String> {
        let stop = self.shared.context.shutdown.reached(Phase::Loops);
        tokio::select! {
            () = stop => Ok(()),
            () = self.activate_on() => Ok(()),
        }
    }

    async fn activate_on(&mut self) {
        loop {
            let generation = self.until_provisioning().await;
            let checks = run_all(&self.shared, &self.claims).await;
            let failed = checks
                .iter()
                .find(|check| check.status() == CheckStatus::Failed);
            match failed {
                None => self.check.ok(""),
                Some(check) => {
                    tracing::warn!(
                        check = check.name,
                        why = check.message,
                        "a start-up check failed"
                    );
                    self.check
                        .failed(format!("{}: {}", check.name, check.message));
                }
            }
            let passed = failed.is_none();
            let told = self.activate(generation, checks).await;
            if !(told && passed) {
                sleep(self.shared.config.check_interval).await;
            }
        }
    }

    async fn until_provisioning(&self) -> i64 {
        let mut watch = self.shared.standing.watch();
        let provisioning = |now: &Option<Registered>| {
            now.is_some_and(|registered| registered.state == WorkerState::Provisioning)
        };
        match watch.wait_for(provisioning).await.map(|found| *found) {
            Ok(Some(registered)) => registered.generation,
            // The sender lives as long as `standing`.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    async fn activate(&mut self, generation: i64, checks: Vec<WorkerCheck>) -> bool {
        let mut request = Request::new(ActivateWorkerRequest {
            name: self.shared.config.name.clone(),
            generation,
            checks,
        });
        request.set_timeout(ACTIVATE_DEADLINE);
        match self.client.activate_worker(request).await {
            Ok(answer) => {
                let state = answer
                    .into_inner()
                    .worker
                    .map_or(WorkerState::Unspecified, |worker| worker.state());
                self.shared.standing.set_state(generation, state);
                true
            }
            Err(status) => {
                tracing::warn!(code = ?status.code(), error = status.message(), "the checks were not taken");
                false
            }
        }
    }
}

/// Runs every check, side by side.
async fn run_all(shared: &Shared, claims: &Arc<Mutex<Claims>>) -> Vec<WorkerCheck> {
    let Shared {
        config,
        context,
        groups,
        ..
    } = shared;
    let (capacity, used) = (shared.standing.capacity(), accelerators_in_use(shared));
    let claims = Arc::clone(claims);
    let data = config.data.clone();
    let range = config.ports.clone();
    let now = context.clock.now();
    let checks = tokio::join!(
        timed(
            "data-directory",
            context,
            blocking(move || check_data(&data))
        ),
        timed("clock", context, async move { check_clock(now) }),
        timed(
            "gpu-inventory",
            context,
            blocking(move || check_accelerators(&claims, &capacity.gpus, &used))
        ),
        timed("ports", context, blocking(move || check_ports(&range))),
        timed("supervisor", context, async {
            let said = check_supervisor(config).await;
            said.map(|()| groups.said().to_owned())
        }),
        timed("container-engine", context, check_engine(config)),
    );
    vec![checks.0, checks.1, checks.2, checks.3, checks.4, checks.5]
}

/// Those that replicas of this agent run on.
fn accelerators_in_use(shared: &Shared) -> BTreeSet<String> {
    let view = Arc::clone(&shared.view.borrow());
    let running = view.attempts.values().filter(|seen| !seen.has_ended());
    running
        .flat_map(|seen| seen.assignment.gpu_uuids.iter().cloned())
        .collect()
}

/// Whether nobody else offers or uses them, as far as they are real.
fn check_accelerators(claims: &Mutex<Claims>, offered: &[Gpu], used: &BTreeSet<String>) -> Found {
    let real = offered.iter().filter(|gpu| !gpu.simulated);
    let real = real.map(|gpu| gpu.uuid.clone()).collect();
    // Whoever asks the kernel about a process may wait for that process.
    let mut claims = claims
        .try_lock()
        .map_err(|_| "who else has accelerators is still being asked".to_owned())?;
    claims.offer(&real, used)?;
    Ok(format!("{} accelerators", offered.len()))
}

async fn timed(name: &str, context: &Context, check: impl Future<Output = Found>) -> WorkerCheck {
    let begun = Instant::now();
    let found = timeout(CHECK_TIME, check).await;
    let found = found.unwrap_or_else(|_| Err(format!("did not end within {CHECK_TIME:?}")));
    let status = if found.is_ok() {
        CheckStatus::Passed
    } else {
        CheckStatus::Failed
    };
    WorkerCheck {
        name: name.to_owned(),
        status: status.into(),
        message: found.unwrap_or_else(|wrong| wrong),
        duration: Some(convert::render_duration(begun.elapsed())),
        end_time: Some(convert::render_time(context.clock.now())),
    }
}

async fn blocking(check: impl FnOnce() -> Found + Send + 'static) -> Found {
    tokio::task::spawn_blocking(check)
        .await
        .unwrap_or_else(|_| Err("the check panicked".to_owned()))
}

fn check_data(path: &Path) -> Found {
    let probe: PathBuf = path.join("check");
    files::replace(&probe, b"muster", Durability::Disk)
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    let disk = rustix::fs::statvfs(path).map_err(|error| error.to_string())?;
    let room = disk.f_bavail.saturating_mul(disk.f_frsize);
    if room < LEAST_ROOM {
        return Err(format!(
            "{} has {} MiB left: make room",
            path.display(),
            room >> 20
        ));
    }
    Ok(format!("{} MiB left", room >> 20))
}

/// A machine that has lost its battery believes in 1970: its logs and certificates would be wrong.
fn check_clock(now: std::time::SystemTime) -> Found {
    const BUILT_AFTER: Duration = Duration::from_secs(1_700_000_000);
    match now.duration_since(std::time::SystemTime::UNIX_EPOCH) {
        Ok(since) if since > BUILT_AFTER => Ok(String::new()),
        Ok(_) | Err(_) => {
            Err("the clock is years behind: set it, or run a time service".to_owned())
        }
    }
}

fn check_ports(range: &std::ops::RangeInclusive<u16>) -> Found {
    let is_free = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
    match ports::pick(range, 0, 1, is_free).first() {
        Some(port) => Ok(format!("{port} is free")),
        None => Err(format!(
            "no port of {}-{} is free: give --ports",
            range.start(),
            range.end()
        )),
    }
}

/// Whether supervisors can be run, and the kernel lets them work.
async fn check_supervisor(config: &Config) -> Result<(), String> {
    let (program, args) = config
        .supervisor_command
        .split_first()
        .ok_or("no supervisor command is configured")?;
    let output = tokio::process::Command::new(program)
        .args(args)
        .arg("check")
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    if output.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{}: {}", output.status, said.trim()))
    }
}

/// Whether containers can be run. A machine without an engine still runs processes.
async fn check_engine(config: &Config) -> Found {
    Ok(match Engine::new(&config.docker_socket).version().await {
        Ok(version) => format!("version {version}"),
        Err(error) => format!("containers cannot be run here: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_data_directory_has_to_be_writable() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_data(folder.path()).is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let gone = check_data(&folder.path().join("gone")).unwrap_err();
        assert!(gone.contains("cannot be written"), "{gone}");
    }

    #[test]
    fn a_clock_in_the_past_is_told() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert!(check_clock(now).is_ok());
        assert!(check_clock(SystemTime::UNIX_EPOCH).is_err());
    }

    #[test]
    fn a_range_without_a_free_port_is_told() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(check_ports(&(port..=port)).unwrap_err().contains("--ports"));
        drop(taken);
        assert!(check_ports(&(port..=port)).is_ok());
    }

    #[tokio::test]
    async fn a_supervisor_that_cannot_run_is_told() {
        let endpoint: muster_runtime::connect::Endpoints = "http://127.0.0.1:1".parse().unwrap();
        let mut config = Config::new("w1", "/nowhere", endpoint.clone(), endpoint);
        for (command, word) in [
            (vec![], "no supervisor"),
            (vec!["/no/such".into()], "cannot run"),
            (vec!["/bin/false".into()], "exit status: 1"),
        ] {
            config.supervisor_command = command;
            let wrong = check_supervisor(&config).await.unwrap_err();
            assert!(wrong.contains(word), "{wrong}");
        }
    }
}
