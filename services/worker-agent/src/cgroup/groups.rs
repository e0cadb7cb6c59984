//! The groups of an agent's attempts: made with the limits of each, removed when nothing runs in them.
//! Where the machine allows no groups, or not all limits, replicas run without, and that is said once
//! with its reason. It never fails a start.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{Group, groups_in, write};
use crate::config::CgroupParent;
use crate::data_dir::DataDir;
use crate::domain::ids::AttemptId;

/// What limits are kept by.
const CONTROLLERS: [&str; 2] = ["cpu", "memory"];
/// Before an attempt's id: no name of a group may be one of the kernel's files.
const PREFIX: &str = "attempt-";
/// Of processor time, in microseconds: engines take the same, so that limits are alike.
const CPU_PERIOD: i64 = 100_000;
/// The least that the kernel takes.
const LEAST_CPU: i64 = 1000;
/// Another agent may remove the parent that we share, when it is the last to leave.
const TRIES: u32 = 5;
/// A supervisor that has said how its replica ended may take this long to be gone.
const CLOSE_TRIES: u32 = 20;
const CLOSE_PAUSE: Duration = Duration::from_millis(10);

/// What a replica may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Processors in thousandths; 0 is no limit.
    pub(crate) cpu_milli: i64,
    /// Main memory in bytes; 0 is no limit.
    pub(crate) memory_bytes: i64,
}

/// Makes and removes groups. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Groups(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Where they are; absent where there are none.
    place: Option<Place>,
    /// How far limits are kept here.
    said: String,
    /// Held by who makes or removes the group of an attempt: one that begins is not taken for one that
    /// was left.
    changing: Mutex<()>,
}

/// An agent's own group, and what may be shared with others above it.
#[derive(Debug)]
struct Place {
    parent: PathBuf,
    own: PathBuf,
}

impl Groups {
    /// Makes the agent's own group. What stands in the way is said, here and by [`Groups::said`].
    pub(crate) fn open(parent: &CgroupParent, name: &str, data: &DataDir) -> Self {
        let (place, said) = match parent {
            CgroupParent::Off => (
                None,
                "by --cgroup-parent off, processes have no limits".into(),
            ),
            CgroupParent::Below(parent) => match Place::open(parent, name, data.path()) {
                Ok((place, lacks)) if lacks.is_empty() => {
                    let own = place.own.display();
                    let said = format!("limits of processes are kept in {own}");
                    (Some(place), said)
                }
                Ok((place, lacks)) => (
                    Some(place),
                    tell(parent, format!("processes have no limits of {lacks}")),
                ),
                Err(why) => (
                    None,
                    tell(parent, format!("processes have no limits: {why}")),
                ),
            },
        };
        let changing = Mutex::default();
        Self(Arc::new(Inner {
            place,
            said,
            changing,
        }))
    }

    /// How far limits are kept here, in words.
    pub(crate) fn said(&self) -> &str {
        &self.0.said
    }

    /// The group of an attempt, there or not; nothing where there are none.
    pub(crate) fn group(&self, id: &AttemptId) -> Option<Group> {
        let place = self.0.place.as_ref()?;
        Some(Group::new(place.own.join(format!("{PREFIX}{id}"))))
    }

    /// Makes the group of an attempt; nothing where that cannot be. Without `limits` it is for a
    /// supervisor alone. The attempt has its folder already.
    pub(crate) fn make(&self, id: &AttemptId, limits: Option<Limits>) -> Option<Group> {
        let (place, group) = (self.0.place.as_ref()?, self.group(id)?);
        let _changing = self.changing();
        let mut made = make(&group, limits.is_some());
        if matches!(&made, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            // Somebody has removed what was empty.
            made = place.prepare().and_then(|_| make(&group, limits.is_some()));
        }
        if let Err(error) = made {
            tracing::warn!(attempt = %id, %error, "no control group can be made: it has no limits");
            return None;
        }
        for (what, error) in limits.map_or_else(Vec::new, |limits| set(&group.replica(), limits)) {
            tracing::warn!(attempt = %id, what, %error, "a limit cannot be set");
        }
        Some(group)
    }

    /// Removes the groups of attempts that have ended. What still runs of those, or of an attempt
    /// without a folder that nobody `holds`, is told to end and comes back: its group stays until it has.
    pub(crate) fn clear(
        &self,
        data: &DataDir,
        holds: impl Fn(&AttemptId) -> bool,
    ) -> BTreeSet<AttemptId> {
        let _changing = self.changing();
        let mut running = BTreeSet::new();
        for (id, group) in self.left() {
            let dir = data.attempt(&id);
            // What cannot be looked at may be there.
            let gone = matches!(dir.path().try_exists(), Ok(false)) && !holds(&id);
            if !gone && !matches!(dir.exit(), Ok(Some(_))) {
                continue;
            }
            let is_supervised = gone && group.has_supervisor();
            if is_supervised {
                // It ends its replica with the grace that it has.
                group.interrupt();
                running.insert(id);
            } else if group.has_replica() {
                group.kill();
                running.insert(id);
            } else if !group.is_populated()
                && let Err(error) = group.remove()
            {
                tracing::warn!(attempt = %id, %error, "a control group is left");
            }
        }
        running
    }

    /// Removes what is empty, for an agent that ends. What runs on keeps its group.
    pub(crate) async fn close(self, data: Arc<DataDir>) {
        for _ in 0..CLOSE_TRIES {
            let (groups, data) = (self.clone(), Arc::clone(&data));
            let closed = spawn_blocking(move || groups.try_close(&data)).await;
            if closed.unwrap_or(true) {
                return;
            }
            sleep(CLOSE_PAUSE).await;
        }
    }

    /// Whether no group is left that is about to be empty.
    fn try_close(&self, data: &DataDir) -> bool {
        let Some(place) = &self.0.place else {
            return true;
        };
        self.clear(data, |_| true);
        let is_ending = |id: &AttemptId| matches!(data.attempt(id).exit(), Ok(Some(_)));
        if self.left().iter().any(|(id, _)| is_ending(id)) {
            return false;
        }
        if fs::remove_dir(&place.own).is_ok() && place.parent == Path::new(CgroupParent::DEFAULT) {
            // Others may have theirs in it.
            let _ = fs::remove_dir(&place.parent);
        }
        true
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        let changing = self.0.changing.lock();
        changing.unwrap_or_else(PoisonError::into_inner)
    }

    /// The attempts that have groups.
    fn left(&self) -> Vec<(AttemptId, Group)> {
        let own = self.0.place.as_ref().map(|place| groups_in(&place.own));
        let groups = own.and_then(Result::ok).unwrap_or_default().into_iter();
        groups
            .filter_map(|path| {
                let name = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
                Some((AttemptId::parse(name).ok()?, Group::new(path)))
            })
            .collect()
    }
}

impl Place {
    /// Also what limits it lacks, in words; or why there is none.
    fn open(parent: &Path, name: &str, data: &Path) -> Result<(Self, String), String> {
        // One data folder has one agent, whatever others call theirs and from where they see it.
        let folder = fs::metadata(data).map_err(|error| format!("{}: {error}", data.display()))?;
        let place = Self {
            parent: parent.to_owned(),
            own: parent.join(format!("{name}-{:x}-{:x}", folder.dev(), folder.ino())),
        };
        let above = parent.parent().unwrap_or(parent);
        if ![parent, above].iter().any(|folder| is_of_version_2(folder)) {
            return Err(format!(
                "{} is in no cgroup v2 hierarchy: boot with one, or name a group in one by --cgroup-parent",
                parent.display()
            ));
        }
        let lacks = place.prepare().map_err(|error| {
            let own = place.own.display();
            format!("cannot make {own}: {error}: {}", advice(&error))
        })?;
        Ok((place, lacks))
    }

    /// Makes the groups that are not there, and has them hand on what limits are kept by; says what
    /// they cannot, in words.
    fn prepare(&self) -> io::Result<String> {
        let mut tries = TRIES;
        loop {
            tries -= 1;
            let made = make_folder(&self.parent).and_then(|()| {
                let lacks = hand_on(&self.parent);
                make_folder(&self.own).map(|()| lacks)
            });
            match made {
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries > 0 => {}
                Err(error) => return Err(error),
                Ok(lacks) => {
                    for controller in CONTROLLERS {
                        let _ = enable(&self.own, controller);
                    }
                    return Ok(lacks);
                }
            }
        }
    }
}

/// Says what is not as it was asked for; by itself a machine need not have any limits.
fn tell(parent: &Path, said: String) -> String {
    if parent == Path::new(CgroupParent::DEFAULT) {
        tracing::info!("{said}");
    } else {
        tracing::warn!("{said}");
    }
    said
}

/// Whether a folder is a group of the unified hierarchy.
fn is_of_version_2(folder: &Path) -> bool {
    folder.join("cgroup.controllers").is_file()
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Has a group hand on every controller; says which it cannot, and why.
fn hand_on(parent: &Path) -> String {
    let lacks = CONTROLLERS.into_iter().filter_map(|controller| {
        let why = hand_on_one(parent, controller).err()?;
        Some(format!("{controller} ({why})"))
    });
    lacks.collect::<Vec<_>>().join(" nor of ")
}

fn hand_on_one(parent: &Path, controller: &str) -> Result<(), String> {
    let handed = |group: &Path| {
        let enabled = if has_processes(group) {
            // Some controllers would be handed on all the same, and nothing could run below.
            Err(Errno::BUSY.into())
        } else {
            enable(group, controller)
        };
        enabled.map_err(|error| {
            let group = group.display();
            format!("{group} does not hand it on: {error}: {}", advice(&error))
        })
    };
    if !has(parent, controller) {
        let above = parent.parent().filter(|above| has(above, controller));
        let lacks = "does not have it: boot without cgroup v1";
        handed(above.ok_or_else(|| format!("{} {lacks}", parent.display()))?)?;
    }
    handed(parent)
}

/// Whether a group has processes of its own and must not, as any but the root.
fn has_processes(group: &Path) -> bool {
    group.join("cgroup.type").exists()
        && fs::read(group.join("cgroup.procs")).is_ok_and(|all| !all.is_empty())
}

/// Whether a group has a controller to hand on.
fn has(group: &Path, controller: &str) -> bool {
    names(&group.join("cgroup.controllers"), controller)
}

fn names(file: &Path, controller: &str) -> bool {
    let names = fs::read_to_string(file).unwrap_or_default();
    names.split_ascii_whitespace().any(|one| one == controller)
}

/// Has a group hand a controller on to those below.
fn enable(group: &Path, controller: &str) -> io::Result<()> {
    let file = group.join("cgroup.subtree_control");
    if names(&file, controller) {
        return Ok(());
    }
    write(&file, &format!("+{controller}"))
}

fn advice(error: &io::Error) -> &'static str {
    let kind = error.kind();
    if kind == io::ErrorKind::PermissionDenied {
        "run the agent as root, or name a group that it may write by --cgroup-parent"
    } else if kind == io::ErrorKind::ReadOnlyFilesystem {
        "let the agent write there, or say --cgroup-parent off"
    } else if kind == io::ErrorKind::ResourceBusy {
        "it has processes of its own: name a group without any by --cgroup-parent"
    } else {
        "name another group by --cgroup-parent"
    }
}

/// Makes an attempt's group and its leaves.
fn make(group: &Group, has_replica: bool) -> io::Result<()> {
    make_folder(group.path())?;
    make_folder(&group.supervisor())?;
    if !has_replica {
        return Ok(());
    }
    for controller in CONTROLLERS {
        // Those that there are; of the others was said that they are not.
        let _ = enable(group.path(), controller);
    }
    make_folder(&group.replica())
}

/// Sets the limits of a replica whose controllers are there; what could not be set comes back.
fn set(replica: &Path, limits: Limits) -> Vec<(&'static str, io::Error)> {
    let mut wanted = Vec::new();
    if limits.cpu_milli > 0 && has(replica, "cpu") {
        let quota = limits.cpu_milli.saturating_mul(CPU_PERIOD / 1000);
        wanted.push(("cpu.max", format!("{} {CPU_PERIOD}", quota.max(LEAST_CPU))));
    }
    if limits.memory_bytes > 0 && has(replica, "memory") {
        // Half a replica is of no use to anyone.
        wanted.push(("memory.oom.group", "1".to_owned()));
        if replica.join("memory.swap.max").exists() {
            wanted.push(("memory.swap.max", "0".to_owned()));
        }
        wanted.push(("memory.max", limits.memory_bytes.to_string()));
    }
    let set = wanted
        .into_iter()
        .map(|(what, value)| (what, write(&replica.join(what), &value)));
    set.filter_map(|(what, set)| Some((what, set.err()?)))
        .collect()
}

#[cfg(test)]
mod tests;
