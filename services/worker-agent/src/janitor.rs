//! Removes the folders of attempts of which nobody has to hear any more, once their output has been
//! kept long enough. It never touches the folder of an attempt that somebody still asks about, nor one
//! in which something is mounted. It also removes containers that an engine was not there to remove
//! when their attempts ended, and control groups that agents who died have left.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, SystemTime};

use muster_runtime::shutdown::Phase;
use tokio::time::{sleep, timeout};

use crate::config::LogRetention;
use crate::data_dir::DataDir;
use crate::domain::ids::AttemptId;
use crate::engine::Engine;
use crate::record;
use crate::shared::Shared;

const EVERY: Duration = Duration::from_secs(60);
/// Between looks at what runs on though it has ended, at first: some cannot be killed.
const END_PAUSE: Duration = Duration::from_secs(1);
/// Between looks at what an engine was not there to remove.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// For the engine to say which containers there are, or to remove one.
const ENGINE_TIME: Duration = Duration::from_secs(10);

/// Removes what is old until the loops end.
#[derive(Debug)]
pub(crate) struct Janitor {
    pub(crate) shared: Shared,
}

/// An attempt that is only its output.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    id: AttemptId,
    ended: SystemTime,
}

impl Janitor {
    /// Works until the loops end.
    pub(crate) async fn run(self) -> Result<(), String> {
        let stop = self.shared.context.shutdown.reached(Phase::Loops);
        tokio::select! {
            () = stop => Ok(()),
            () = self.clean_on() => Ok(()),
            () = self.sweep_on() => Ok(()),
        }
    }

    async fn clean_on(&self) {
        let (mut known, mut known_running) = (BTreeSet::new(), BTreeSet::new());
        let mut pause = END_PAUSE;
        loop {
            let (data, retention) = (self.shared.data.clone(), self.shared.config.log_retention);
            let now = self.shared.context.clock.now();
            let cleaned = tokio::task::spawn_blocking(move || clean(&data, retention, now)).await;
            match cleaned {
                Ok(Ok(left)) => {
                    for (id, error) in left.iter().filter(|(id, _)| !known.contains(*id)) {
                        tracing::warn!(attempt = %id, %error, "old output is not removed");
                    }
                    known = left.into_keys().collect();
                }
                Ok(Err(error)) => tracing::warn!(%error, "cannot look for old output"),
                // The loops end.
                Err(_) => {}
            }
            let running = self.clear_groups().await;
            for id in running.difference(&known_running) {
                tracing::error!(attempt = %id, "it has ended, or nobody knows it, and it runs: it is ended");
            }
            if running.is_empty() {
                pause = END_PAUSE;
                sleep(EVERY).await;
            } else {
                sleep(pause).await;
                pause = (pause * 2).min(EVERY);
            }
            known_running = running;
        }
    }

    /// What has ended and still runs.
    async fn clear_groups(&self) -> BTreeSet<AttemptId> {
        let (groups, data) = (self.shared.groups.clone(), self.shared.data.clone());
        let view = self.shared.view.borrow().clone();
        let clear = move || groups.clear(&data, |id| view.attempts.contains_key(id));
        // An error: the loops end.
        tokio::task::spawn_blocking(clear).await.unwrap_or_default()
    }

    async fn sweep_on(&self) {
        loop {
            self.sweep().await;
            sleep(SWEEP_EVERY).await;
        }
    }

    /// Has the engine remove what is left of attempts that have ended here. It may serve several
    /// agents: what has no folder here is another's.
    async fn sweep(&self) {
        let engine = Engine::new(&self.shared.config.docker_socket);
        let Ok(Ok(containers)) = timeout(ENGINE_TIME, engine.of_attempts()).await else {
            return;
        };
        for (container, attempt) in containers {
            let ended = AttemptId::parse(&attempt)
                .map(|id| self.shared.data.attempt(&id).exit())
                .is_ok_and(|exit| matches!(exit, Ok(Some(_))));
            if !ended {
                continue;
            }
            match timeout(ENGINE_TIME, engine.remove(&container)).await {
                Ok(Ok(())) => tracing::info!(attempt, "a container that was left is removed"),
                Ok(Err(error)) => tracing::warn!(attempt, %error, "a container is left"),
                Err(_) => tracing::warn!(attempt, "a container is left: no answer"),
            }
        }
    }
}

/// Removes what is old; what cannot be removed comes back, and is tried again the next time.
fn clean(
    data: &DataDir,
    retention: LogRetention,
    now: SystemTime,
) -> io::Result<BTreeMap<AttemptId, io::Error>> {
    let mut kept = Vec::new();
    for id in data.attempts()? {
        let dir = data.attempt(&id);
        if let Some(ended) = record::forgotten_time(&dir) {
            kept.push(Kept { id, ended });
        }
    }
    let gone = too_old(kept, retention, now).into_iter();
    let removed = gone.map(|id| (data.attempt(&id).remove(), id));
    Ok(removed
        .filter_map(|(removed, id)| Some((id, removed.err()?)))
        .collect())
}

/// What goes: by age, by the number for its replica, and by the number in all; the oldest first.
fn too_old(mut kept: Vec<Kept>, retention: LogRetention, now: SystemTime) -> Vec<AttemptId> {
    kept.sort_by(|one, other| {
        other
            .ended
            .cmp(&one.ended)
            .then_with(|| one.id.cmp(&other.id))
    });
    let mut of_replica: BTreeMap<String, usize> = BTreeMap::new();
    let mut in_all = 0;
    let mut gone = Vec::new();
    for one in kept {
        let age = now.duration_since(one.ended).unwrap_or_default();
        let seen = of_replica.entry(replica(&one.id).to_owned()).or_default();
        if age > retention.age || *seen >= retention.per_replica || in_all >= retention.in_all {
            gone.push(one.id);
        } else {
            *seen += 1;
            in_all += 1;
        }
    }
    gone
}

/// An attempt's id without its last part, its number.
fn replica(id: &AttemptId) -> &str {
    id.as_str()
        .rsplit_once('.')
        .map_or(id.as_str(), |(replica, _)| replica)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION: LogRetention = LogRetention {
        per_replica: 2,
        in_all: 4,
        age: Duration::from_secs(100),
    };

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    fn gone(kept: &[(&str, u64)], now: u64) -> Vec<String> {
        let kept = kept.iter().map(|(id, ended)| Kept {
            id: AttemptId::parse(id).unwrap(),
            ended: at(*ended),
        });
        let ids = too_old(kept.collect(), RETENTION, at(now));
        ids.iter().map(|id| id.as_str().to_owned()).collect()
    }

    #[test]
    fn the_latest_of_each_replica_are_kept() {
        let kept = [("a.0.1", 1), ("a.0.2", 2), ("a.0.3", 3), ("a.1.1", 1)];
        assert_eq!(gone(&kept, 50), ["a.0.1"]);
        assert_eq!(gone(&kept, 102), ["a.0.1", "a.1.1"]);
    }

    #[test]
    fn there_is_an_end_to_all_of_them() {
        let kept = [
            ("a.0.1", 1),
            ("b.0.1", 2),
            ("c.0.1", 3),
            ("d.0.1", 4),
            ("e.0.1", 5),
        ];
        assert_eq!(gone(&kept, 50), ["a.0.1"]);
    }

    #[test]
    fn only_what_is_forgotten_goes() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path(), "w1").unwrap();
        let ids = ["a.0.1", "a.0.2"].map(|id| AttemptId::parse(id).unwrap());
        for id in &ids {
            data.attempt(id).make().unwrap();
        }
        record::set_forgotten(&data.attempt(&ids[1])).unwrap();
        let retention = LogRetention {
            in_all: 0,
            ..RETENTION
        };
        let left = clean(&data, retention, SystemTime::UNIX_EPOCH).unwrap();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(data.attempts().unwrap(), ids[..1]);
    }

    fn ran(program: &str, args: &[&std::path::Path]) -> bool {
        let status = std::process::Command::new(program).args(args).status();
        status.is_ok_and(|status| status.success())
    }

    #[test]
    fn what_is_mounted_in_a_folder_is_left_alone_and_the_others_go() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path(), "w1").unwrap();
        let ids = ["a.0.1", "a.0.2"].map(|id| AttemptId::parse(id).unwrap());
        for id in &ids {
            data.attempt(id).make().unwrap();
            record::set_forgotten(&data.attempt(id)).unwrap();
        }
        let (precious, mounted) = (
            folder.path().join("precious"),
            data.attempt(&ids[0]).work_path().join("models"),
        );
        std::fs::create_dir(&precious).unwrap();
        std::fs::create_dir(&mounted).unwrap();
        std::fs::write(precious.join("model"), "weights").unwrap();
        if !ran("mount", &["--bind".as_ref(), &precious, &mounted]) {
            eprintln!("SKIPPED: nothing can be mounted here");
            return;
        }
        let retention = LogRetention {
            in_all: 0,
            ..RETENTION
        };
        let cleaned = clean(&data, retention, SystemTime::UNIX_EPOCH);
        let (kept, marked) = (
            precious.join("model").exists(),
            record::forgotten_time(&data.attempt(&ids[0])),
        );
        assert!(ran("umount", &[&mounted]));
        assert!(kept, "it is not ours");
        assert!(marked.is_some(), "the folder is whole");
        assert_eq!(cleaned.unwrap().into_keys().collect::<Vec<_>>(), ids[..1]);
        assert_eq!(data.attempts().unwrap(), ids[..1]);
        clean(&data, retention, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(data.attempts().unwrap(), []);
    }
}
