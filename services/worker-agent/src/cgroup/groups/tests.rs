use super::*;
use crate::attempt_dir::AttemptDir;
use crate::domain::end::Exit;

const NONE: Limits = Limits {
    cpu_milli: 0,
    memory_bytes: 0,
};

/// A folder that plays the kernel's hierarchy, and an agent's data.
struct Machine {
    folder: tempfile::TempDir,
    data: DataDir,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(&folder.path().join("data"), "w1").unwrap();
        let machine = Self { folder, data };
        for group in [machine.root(), machine.parent(), machine.own()] {
            machine.fill(&group);
        }
        machine
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("cgroup")
    }

    fn parent(&self) -> PathBuf {
        self.root().join("muster")
    }

    fn own(&self) -> PathBuf {
        let folder = fs::metadata(self.data.path()).unwrap();
        let name = format!("w1-{:x}-{:x}", folder.dev(), folder.ino());
        self.parent().join(name)
    }

    /// Makes what the kernel makes in a new group.
    fn fill(&self, group: &Path) {
        fs::create_dir_all(group).unwrap();
        fs::write(group.join("cgroup.controllers"), "cpu memory pids").unwrap();
        let files = "cgroup.subtree_control cgroup.procs cpu.max memory.max memory.oom.group memory.swap.max";
        for file in files.split(' ') {
            fs::write(group.join(file), "").unwrap();
        }
    }

    fn open(&self) -> Groups {
        Groups::open(&CgroupParent::Below(self.parent()), "w1", &self.data)
    }

    /// The group of an attempt, as the kernel fills it.
    fn filled(&self, groups: &Groups, name: &str) -> Group {
        let group = groups.group(&id(name)).unwrap();
        for folder in [group.path().to_owned(), group.supervisor(), group.replica()] {
            self.fill(&folder);
        }
        group
    }

    /// An attempt with a folder and with a group in which nothing, or everything, runs.
    fn attempt(&self, groups: &Groups, name: &str, populated: bool) -> (AttemptDir, Group) {
        let (dir, group) = (
            self.data.attempt(&id(name)),
            groups.group(&id(name)).unwrap(),
        );
        dir.make().unwrap();
        for folder in [group.path().to_owned(), group.supervisor(), group.replica()] {
            fs::create_dir_all(&folder).unwrap();
            if populated {
                fs::write(folder.join("cgroup.events"), "populated 1\n").unwrap();
            }
        }
        (dir, group)
    }
}

fn id(name: &str) -> AttemptId {
    AttemptId::parse(name).unwrap()
}

fn end(dir: &AttemptDir) {
    let exit = Exit::not_started(String::new(), std::time::SystemTime::UNIX_EPOCH);
    dir.set_exit(&dir.try_lock().unwrap().unwrap(), &exit)
        .unwrap();
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap()
}

#[test]
fn controllers_are_handed_on_down_to_the_replica() {
    let machine = Machine::new();
    let groups = machine.open();
    assert!(
        groups
            .said()
            .starts_with("limits of processes are kept in "),
        "{}",
        groups.said()
    );
    for group in [machine.parent(), machine.own()] {
        // Each is written alone: what one lacks is no reason to lack the other.
        assert_eq!(read(&group, "cgroup.subtree_control"), "+memory");
    }
    assert_eq!(
        read(&machine.root(), "cgroup.subtree_control"),
        "",
        "they were there"
    );
    let group = machine.filled(&groups, "a.0.1");
    assert_eq!(groups.make(&id("a.0.1"), Some(NONE)), Some(group.clone()));
    assert_eq!(read(group.path(), "cgroup.subtree_control"), "+memory");
}

#[test]
fn a_parent_that_lacks_controllers_is_given_them() {
    let machine = Machine::new();
    fs::write(machine.parent().join("cgroup.controllers"), "pids").unwrap();
    machine.open();
    assert_eq!(read(&machine.root(), "cgroup.subtree_control"), "+memory");
}

fn limits(cpu_milli: i64, memory_bytes: i64) -> Limits {
    Limits {
        cpu_milli,
        memory_bytes,
    }
}

#[test]
fn limits_are_those_of_a_container() {
    let machine = Machine::new();
    let groups = machine.open();
    let most = "9223372036854775807";
    for (limits, cpu, memory) in [
        (NONE, "", ["", "", ""]),
        (limits(1500, 0), "150000 100000", ["", "", ""]),
        (limits(1, 0), "1000 100000", ["", "", ""]),
        (limits(0, 64 << 20), "", ["67108864", "0", "1"]),
        (limits(-1, -1), "", ["", "", ""]),
        (
            limits(i64::MAX, i64::MAX),
            &format!("{most} 100000"),
            [most, "0", "1"],
        ),
    ] {
        let group = machine.filled(&groups, "a.0.1");
        groups.make(&id("a.0.1"), Some(limits)).unwrap();
        assert_eq!(read(&group.replica(), "cpu.max"), cpu, "{limits:?}");
        let files = ["memory.max", "memory.swap.max", "memory.oom.group"];
        let set = files.map(|file| read(&group.replica(), file));
        assert_eq!(set, memory, "{limits:?}");
        for untouched in [group.path().to_owned(), group.supervisor()] {
            let set = read(&untouched, "memory.max") + &read(&untouched, "cpu.max");
            assert_eq!(set, "");
        }
        fs::remove_dir_all(group.path()).unwrap();
    }
}

#[test]
fn a_limit_that_cannot_be_set_fails_nothing() {
    let machine = Machine::new();
    let groups = machine.open();
    let group = machine.filled(&groups, "a.0.1");
    let limits = limits(500, 1 << 20);
    fs::remove_file(group.replica().join("memory.swap.max")).unwrap();
    assert_eq!(
        set(&group.replica(), limits).len(),
        0,
        "there may be no swap to limit"
    );
    fs::remove_file(group.replica().join("memory.max")).unwrap();
    fs::create_dir(group.replica().join("memory.max")).unwrap();
    let unset: Vec<&str> = set(&group.replica(), limits)
        .into_iter()
        .map(|(what, _)| what)
        .collect();
    assert_eq!(unset, ["memory.max"]);
    assert_eq!(read(&group.replica(), "cpu.max"), "50000 100000");
    assert!(groups.make(&id("a.0.1"), Some(limits)).is_some());
}

#[test]
fn a_container_has_a_group_for_its_supervisor_alone() {
    let machine = Machine::new();
    let groups = machine.open();
    let group = groups.make(&id("a.0.1"), None).unwrap();
    assert!(group.supervisor().exists() && !group.replica().exists());
}

#[test]
fn what_is_not_allowed_is_said_with_what_to_do() {
    let said = |machine: &Machine, parent: &str, words: &[&str]| {
        let parent = machine.folder.path().join(parent);
        let groups = Groups::open(&CgroupParent::Below(parent), "w1", &machine.data);
        for word in words {
            assert!(groups.said().contains(word), "{word}: {}", groups.said());
        }
        groups
    };
    let nothing = |groups: Groups| {
        assert_eq!(groups.make(&id("a.0.1"), Some(NONE)), None);
        assert_eq!(groups.group(&id("a.0.1")), None);
        assert!(groups.left().is_empty());
    };
    let machine = Machine::new();
    // No hierarchy, or nothing above to make it in.
    for parent in ["data", "data/x", "no/such", "cgroup/no/such/parent"] {
        nothing(said(
            &machine,
            parent,
            &["no cgroup v2 hierarchy", "--cgroup-parent"],
        ));
    }
    // A folder cannot be made.
    fs::write(machine.root().join("file"), "").unwrap();
    nothing(said(
        &machine,
        "cgroup/file",
        &["cannot make", "--cgroup-parent"],
    ));
    // The parent may have processes if it is the root.
    fs::write(machine.parent().join("cgroup.procs"), "1\n").unwrap();
    machine.open().group(&id("a.0.1")).unwrap();
    assert_eq!(read(&machine.parent(), "cgroup.subtree_control"), "+memory");
    fs::write(machine.parent().join("cgroup.subtree_control"), "").unwrap();
    fs::write(machine.parent().join("cgroup.type"), "domain\n").unwrap();
    said(
        &machine,
        "cgroup/muster",
        &["cpu (", "memory (", "processes of its own"],
    );
    assert_eq!(
        read(&machine.parent(), "cgroup.subtree_control"),
        "",
        "nothing could run below"
    );
    fs::remove_file(machine.parent().join("cgroup.type")).unwrap();
    // The agent's own group is made, and a controller is not there, or not handed on.
    fs::write(machine.root().join("cgroup.controllers"), "memory pids").unwrap();
    fs::write(machine.parent().join("cgroup.controllers"), "memory pids").unwrap();
    let groups = said(
        &machine,
        "cgroup/muster",
        &["no limits of cpu (", "boot without cgroup v1"],
    );
    assert!(groups.make(&id("a.0.1"), Some(NONE)).is_some());
    fs::remove_file(machine.parent().join("cgroup.subtree_control")).unwrap();
    said(
        &machine,
        "cgroup/muster",
        &["nor of memory (", "does not hand it on"],
    );
    nothing(Groups::open(&CgroupParent::Off, "w1", &machine.data));
}

#[test]
fn each_reason_has_its_advice() {
    use rustix::io::Errno;
    for (errno, word) in [
        (Errno::ACCESS, "as root"),
        (Errno::PERM, "as root"),
        (Errno::ROFS, "off"),
        (Errno::BUSY, "processes of its own"),
        (Errno::NOENT, "another group"),
    ] {
        let said = advice(&errno.into());
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn two_agents_of_one_name_have_groups_of_their_own() {
    let (one, other) = (Machine::new(), Machine::new());
    let of = |data| {
        let parent = CgroupParent::Below(one.parent());
        let group = Groups::open(&parent, "w1", data)
            .group(&id("a.0.1"))
            .unwrap();
        group.path().to_owned()
    };
    assert_eq!(of(&one.data), one.own().join("attempt-a.0.1"));
    assert_ne!(of(&one.data), of(&other.data));
}

#[test]
fn no_name_of_an_attempt_is_a_file_of_the_kernels() {
    let machine = Machine::new();
    let groups = machine.open();
    for name in ["cgroup.procs", "cpu.max", "a.0.1"] {
        let group = groups.group(&id(name)).unwrap();
        assert_eq!(group.path().parent(), Some(machine.own().as_path()));
        assert!(!group.path().exists(), "{name}");
    }
}

#[test]
fn own_groups_that_were_removed_are_made_again() {
    let machine = Machine::new();
    let groups = machine.open();
    fs::remove_dir_all(machine.parent()).unwrap();
    assert!(
        groups
            .make(&id("a.0.1"), Some(NONE))
            .is_some_and(|group| group.path().exists())
    );
}

#[test]
fn what_has_ended_is_removed_and_what_has_not_stays() {
    let machine = Machine::new();
    let groups = machine.open();
    let left = |holds: &[&str]| {
        groups.clear(&machine.data, |id| holds.contains(&id.as_str()));
        let mut left: Vec<String> = groups.left().iter().map(|(id, _)| id.to_string()).collect();
        left.sort();
        left
    };
    let (ended, _) = machine.attempt(&groups, "ended.0.1", false);
    end(&ended);
    machine.attempt(&groups, "starts.0.1", false);
    machine.attempt(&groups, "runs.0.1", true);
    let (gone, _) = machine.attempt(&groups, "gone.0.1", false);
    fs::remove_dir_all(gone.path()).unwrap();
    fs::create_dir(machine.own().join("stranger")).unwrap();
    fs::create_dir(machine.own().join("attempt-.odd")).unwrap();
    assert_eq!(left(&["gone.0.1"]), ["gone.0.1", "runs.0.1", "starts.0.1"]);
    assert_eq!(left(&[]), ["runs.0.1", "starts.0.1"]);
    assert!(machine.own().join("stranger").exists() && machine.own().join("attempt-.odd").exists());
}

#[test]
fn what_still_runs_is_ended_and_its_group_is_not_forgotten() {
    let machine = Machine::new();
    let groups = machine.open();
    let (ended, of_ended) = machine.attempt(&groups, "ended.0.1", true);
    end(&ended);
    let (gone, of_gone) = machine.attempt(&groups, "gone.0.1", true);
    fs::remove_dir_all(gone.path()).unwrap();
    let kills = [&of_ended, &of_gone].map(|group| group.replica().join("cgroup.kill"));
    for kill in &kills {
        fs::write(kill, "").unwrap();
    }
    let mut supervisor = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    fs::write(
        of_gone.supervisor().join("cgroup.procs"),
        supervisor.id().to_string(),
    )
    .unwrap();
    let running = groups.clear(&machine.data, |_| false);
    assert_eq!(running, ["ended.0.1", "gone.0.1"].map(id).into());
    let status = supervisor.wait().unwrap();
    // It ends its replica by itself, with its grace.
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(15)
    );
    assert_eq!(
        kills
            .each_ref()
            .map(|kill| fs::read_to_string(kill).unwrap()),
        ["1", ""]
    );
    fs::write(of_gone.supervisor().join("cgroup.events"), "populated 0\n").unwrap();
    groups.clear(&machine.data, |_| false);
    assert_eq!(fs::read_to_string(&kills[1]).unwrap(), "1");
    assert_eq!(groups.left().len(), 2);
}

#[tokio::test]
async fn an_agent_that_ends_removes_what_is_empty() {
    let machine = Machine::new();
    let groups = machine.open();
    let data = Arc::new(DataDir::open(&machine.folder.path().join("more"), "w1").unwrap());
    // The kernel removes its files with a group.
    fs::remove_dir_all(machine.own()).unwrap();
    fs::create_dir(machine.own()).unwrap();
    machine.attempt(&groups, "runs.0.1", true);
    groups.clone().close(Arc::clone(&data)).await;
    assert!(machine.own().exists());
    fs::remove_dir_all(machine.own().join("attempt-runs.0.1")).unwrap();
    groups.close(data).await;
    assert!(
        !machine.own().exists() && machine.parent().exists(),
        "others may have theirs"
    );
}
