//! Looks at the machine's accelerators, now and then and when asked to: has the registry told of what has come or
//! gone, and ended what is on one that is gone. One look at a time, each by a process of its own, so that a driver
//! that hangs or crashes holds up nothing here, and is no word on any accelerator. What an answer means is the
//! domain's.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use muster_proto::types::v1::Gpu;
use muster_runtime::health::Check;
use muster_runtime::shutdown::Phase;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::Config;
use crate::domain::accelerators::{Accelerators, Sight};
use crate::domain::holdings::Input;
use crate::machine::nvidia::{self, Card, Look, Nvidia, Traces};
use crate::shared::Shared;

/// For a look that the report of an end waits for.
const ASKED_WITHIN: Duration = Duration::from_secs(5);
/// Replicas that end at the same time; the others' ends are told without a look.
const ASKING: usize = 64;

/// Asks for looks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Looks {
    /// Nobody looks where accelerators are merely declared.
    ask: Option<mpsc::Sender<oneshot::Sender<Sight>>>,
    /// What was seen at the start.
    first: Sight,
}

impl Looks {
    /// Whether any are taken.
    pub(crate) fn are_taken(&self) -> bool {
        self.ask.is_some()
    }

    /// One of `gpus` that was certainly gone at the start.
    pub(crate) fn gone_at_start<'a>(&self, gpus: &'a [String]) -> Option<&'a String> {
        self.first.gone(gpus)
    }

    /// One of `gpus` that is certainly gone now.
    pub(crate) async fn gone<'a>(&self, gpus: &'a [String]) -> Option<&'a String> {
        let (reply, answer) = oneshot::channel();
        self.ask.as_ref()?.try_send(reply).ok()?;
        let sight = timeout(ASKED_WITHIN, answer).await.ok()?.ok()?;
        sight.gone(gpus)
    }
}

/// Looks until the loops end.
#[derive(Debug)]
pub(crate) struct Lookout {
    driver: Driver,
    accelerators: Accelerators,
    /// Those that are offered, or were at the last look.
    gpus: Vec<Gpu>,
    asked: mpsc::Receiver<oneshot::Sender<Sight>>,
    /// What was wrong at the last look, so that it is said once.
    trouble: String,
}

impl Lookout {
    /// Takes the first look; nobody looks where accelerators are merely declared.
    pub(crate) async fn open(config: &Config) -> (Option<Self>, Looks) {
        if config.simulated_gpus.is_some() {
            return (None, Looks::default());
        }
        let (ask, asked) = mpsc::channel(ASKING);
        let mut lookout = Self {
            driver: Driver::of(config),
            accelerators: Accelerators::default(),
            gpus: Vec::new(),
            asked,
            trouble: String::new(),
        };
        let seen = lookout.look().await;
        let sight = seen.as_ref().map(|(sight, _)| sight.clone());
        let looks = Looks {
            ask: Some(ask),
            first: sight.clone().unwrap_or_default(),
        };
        lookout.accelerators = Accelerators::first(sight);
        lookout.gpus = seen.map_or_else(Vec::new, |(_, gpus)| gpus);
        (Some(lookout), looks)
    }

    /// Those that are offered.
    pub(crate) fn gpus(&self) -> &[Gpu] {
        &self.gpus
    }

    /// Looks until the loops end.
    pub(crate) async fn run(
        mut self,
        shared: Shared,
        nvidia: Nvidia,
        check: Check,
    ) -> Result<(), String> {
        let stop = shared.context.shutdown.reached(Phase::Loops);
        tokio::select! {
            () = stop => Ok(()),
            () = self.look_on(&shared, &nvidia, &check) => Ok(()),
        }
    }

    async fn look_on(&mut self, shared: &Shared, nvidia: &Nvidia, check: &Check) {
        let interval = shared.config.gpu_interval;
        // What replicas hold and the first look did not find is gone by a second one.
        let mut next = Instant::now() + interval / 10;
        loop {
            self.show(shared, check);
            let mut waiting = Vec::new();
            tokio::select! {
                () = sleep_until(next) => {}
                Some(reply) = self.asked.recv() => waiting.push(reply),
            }
            while let Ok(reply) = self.asked.try_recv() {
                waiting.push(reply);
            }
            let seen = self.look().await;
            let differs = match seen {
                Some((sight, gpus)) => {
                    for reply in waiting {
                        // Whoever no longer waits for it does without.
                        let _ = reply.send(sight.clone());
                    }
                    self.take(&sight, gpus, shared, nvidia).await
                }
                None => false,
            };
            next = Instant::now() + if differs { interval / 10 } else { interval };
        }
    }

    fn show(&self, shared: &Shared, check: &Check) {
        shared.measures.set_gpus(self.gpus.len());
        match self.trouble.is_empty() {
            true => check.ok(""),
            false => check.failed(&self.trouble),
        }
    }

    /// Has everyone act on what was seen; whether it is worth looking again soon.
    async fn take(
        &mut self,
        sight: &Sight,
        seen: Vec<Gpu>,
        shared: &Shared,
        nvidia: &Nvidia,
    ) -> bool {
        let there = self.accelerators.there().cloned();
        let differs = self.accelerators.take(sight);
        // What has come may be assigned as soon as the registry knows of it.
        if let Some(now) = self.accelerators.there()
            && there.as_ref() != Some(now)
        {
            for gpu in there.iter().flat_map(|there| there.difference(now)) {
                tracing::error!(gpu, "an accelerator is gone: what runs on it is stopped");
                shared.measures.note_gpu_gone();
            }
            shared.tell(Input::Accelerators(now.clone())).await;
        }
        let before: BTreeSet<&String> = self.gpus.iter().map(|gpu| &gpu.uuid).collect();
        let offered = self.accelerators.offered();
        if !before.iter().copied().eq(offered) {
            for gpu in before.iter().filter(|gpu| !offered.contains(**gpu)) {
                tracing::warn!(
                    gpu,
                    "an accelerator cannot be used: it is no longer offered"
                );
            }
            for gpu in offered.iter().filter(|gpu| !before.contains(gpu)) {
                tracing::info!(gpu, "an accelerator has come: it is offered");
            }
            self.gpus = offered_of(offered, seen, &self.gpus);
            shared.standing.set_gpus(self.gpus.clone());
            nvidia.reopen();
        }
        differs
    }

    /// Asks the driver, and notes what is wrong; none if it gives no answer.
    async fn look(&mut self) -> Option<(Sight, Vec<Gpu>)> {
        let (trouble, seen) = match self.driver.look().await {
            Ok(Look::NoDriver) => (String::new(), Some((Sight::default(), Vec::new()))),
            Ok(Look::Unusable(why)) => (
                format!("NVIDIA's driver cannot be used: {why}"),
                Some((Sight::default(), Vec::new())),
            ),
            Ok(Look::Cards { read, unread }) => {
                let trouble = unread.join("; ");
                let gpus = gpus(&read);
                let sight = Sight {
                    read: gpus.iter().map(|gpu| gpu.uuid.clone()).collect(),
                    whole: unread.is_empty(),
                };
                (trouble, Some((sight, gpus)))
            }
            Err(why) => (format!("accelerators cannot be looked at: {why}"), None),
        };
        if !trouble.is_empty() && trouble != self.trouble {
            tracing::warn!("{trouble}");
        }
        self.trouble = trouble;
        seen
    }
}

/// Each accelerator once, whatever the driver says: the registry takes no machine with two of one uuid, or with one
/// that is nothing.
fn gpus(cards: &[Card]) -> Vec<Gpu> {
    let mut uuids = BTreeSet::new();
    let mut gpus = Vec::with_capacity(cards.len());
    for card in cards {
        if card.uuid.is_empty() || !card.has_name() || !uuids.insert(&card.uuid) {
            tracing::warn!(
                gpu = card.uuid,
                "an accelerator has no name or uuid, or that of another: it is left out"
            );
        } else {
            gpus.push(card.gpu());
        }
    }
    gpus
}

/// What is offered, in the driver's order, as it was seen now or else before.
fn offered_of(offered: &BTreeSet<String>, seen: Vec<Gpu>, before: &[Gpu]) -> Vec<Gpu> {
    let mut left: BTreeSet<&String> = offered.iter().collect();
    let all = seen.into_iter().chain(before.iter().cloned());
    all.filter(|gpu| left.remove(&gpu.uuid)).collect()
}

/// Asks the driver, by a process of its own.
#[derive(Debug)]
struct Driver {
    command: Vec<OsString>,
    library: PathBuf,
    within: Duration,
    /// The process of an earlier look, if it did not end: the kernel may not let it go either.
    hanging: Option<Child>,
    /// What there was of a driver when none was found.
    absent: Option<Traces>,
}

impl Driver {
    fn of(config: &Config) -> Self {
        Self {
            command: config.supervisor_command.clone(),
            library: config.nvidia_library.clone(),
            within: config.gpu_timeout,
            hanging: None,
            absent: None,
        }
    }

    /// Looks, where that can find more than it did: as long as nothing has come of a driver that was not there, it is
    /// not there.
    async fn look(&mut self) -> Result<Look, String> {
        let traces = nvidia::traces(&self.library);
        if self.absent.as_ref() == Some(&traces) {
            return Ok(Look::NoDriver);
        }
        let seen = self.ask().await;
        self.absent = matches!(seen, Ok(Look::NoDriver)).then_some(traces);
        seen
    }

    async fn ask(&mut self) -> Result<Look, String> {
        if let Some(hanging) = &mut self.hanging {
            match hanging.try_wait() {
                Ok(Some(_)) => self.hanging = None,
                Ok(None) | Err(_) => return Err("NVIDIA's driver hangs".to_owned()),
            }
        }
        let mut child = self.spawn()?;
        let outcome = timeout(self.within, read(&mut child)).await;
        let Ok(outcome) = outcome else {
            let _ = child.start_kill();
            self.hanging = Some(child);
            return Err("NVIDIA's driver does not answer in time".to_owned());
        };
        outcome
    }

    fn spawn(&self) -> Result<Child, String> {
        let (program, args) = self
            .command
            .split_first()
            .ok_or("no supervisor command is configured")?;
        Command::new(program)
            .args(args)
            .arg("look")
            .arg(&self.library)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot run {}: {error}", program.display()))
    }
}

/// What a process that looks has to say.
async fn read(child: &mut Child) -> Result<Look, String> {
    let (mut output, mut complaint) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = async {
        if let Some(mut stdout) = stdout {
            stdout.read_to_end(&mut output).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let complain = async {
        if let Some(mut stderr) = stderr {
            stderr.read_to_end(&mut complaint).await?;
        }
        Ok(())
    };
    let outcome = tokio::try_join!(read, complain);
    outcome.map_err(|error| error.to_string())?;
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if !status.success() {
        let complaint = String::from_utf8_lossy(&complaint);
        let complaint = complaint.lines().last().unwrap_or_default().trim();
        return Err(format!("{status}: {complaint}"));
    }
    serde_json::from_slice(&output).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A driver that notes each look, and is not there.
    fn none_in(folder: &std::path::Path, library: PathBuf) -> Driver {
        let said = r#"echo >> "$0"; echo '"NoDriver"'"#;
        let words = ["/bin/sh", "-c", said].map(OsString::from);
        Driver {
            command: words
                .into_iter()
                .chain([folder.join("looks").into()])
                .collect(),
            library,
            within: Duration::from_secs(20),
            hanging: None,
            absent: None,
        }
    }

    #[tokio::test]
    async fn a_driver_that_is_not_there_is_asked_again_once_something_has_come() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libnvidia-ml.so.1");
        let mut driver = none_in(folder.path(), library.clone());
        let looks = || {
            fs::read_to_string(folder.path().join("looks"))
                .unwrap()
                .len()
        };
        for _ in 0..3 {
            assert_eq!(driver.look().await, Ok(Look::NoDriver));
        }
        assert_eq!(looks(), 1);
        fs::write(&library, "half of it").unwrap();
        for _ in 0..3 {
            assert_eq!(driver.look().await, Ok(Look::NoDriver));
        }
        assert_eq!(looks(), 2);
        fs::write(&library, "all of it is there").unwrap();
        assert_eq!(driver.look().await, Ok(Look::NoDriver));
        assert_eq!(looks(), 3);
    }

    #[tokio::test]
    async fn a_library_without_a_folder_is_one_of_the_system() {
        let folder = tempfile::tempdir().unwrap();
        let mut driver = none_in(folder.path(), nvidia::LIBRARY.into());
        for _ in 0..3 {
            assert_eq!(driver.look().await, Ok(Look::NoDriver));
        }
        let looks = fs::read_to_string(folder.path().join("looks")).unwrap();
        assert_eq!(looks.len(), 1);
    }
}
