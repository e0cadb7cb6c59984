//! Replicas that write down what happens to them, and do what a test asks through files. While one runs
//! it holds the lock of its replica and of each of its accelerators, with every process of its own: a second
//! one at the same time finds it taken and says so, whoever forgot it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use muster_proto::replicas::v1::{RetryPolicy, ServiceSpec};
use tokio::time::{Instant, sleep};

use super::spec;

/// The folder in which the replicas of one service leave their marks.
#[derive(Debug)]
pub struct Witness {
    folder: PathBuf,
}

/// Something that a replica wrote down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// `start`, `stop`, `overlap`, `doubled` (an accelerator), or what else its replicas say.
    pub what: String,
    pub ordinal: i32,
    pub attempt: String,
    pub pid: i32,
    /// Of `overlap` the attempt that was there, of `doubled` the accelerator.
    pub with: String,
}

impl Mark {
    /// Whether it tells of two at the same time.
    pub fn is_of_two(&self) -> bool {
        ["overlap", "doubled"].contains(&&*self.what)
    }
}

const SCRIPT: &str = r#"
cd "$WITNESS" || exit 9
n=${MUSTER_REPLICA##*/}
say() { echo "$1 $n $MUSTER_ATTEMPT $$ $2" >> marks; }
exec 9>> "lock-$n"
flock -n 9 || say overlap "$(cat "holder-$n")"
echo "$MUSTER_ATTEMPT" > "holder-$n"
fd=3
IFS=,
for gpu in $CUDA_VISIBLE_DEVICES; do
    eval "exec $fd>> ../lock-$gpu"
    flock -n $fd || say doubled "$gpu"
    fd=$((fd + 1))
done
trap 'say stop; exit 0' TERM
say start
echo "$MUSTER_REPLICA is up"
while :; do
    if [ -e "crash-$n" ]; then
        [ "$(cat "crash-$n")" = once ] && rm "crash-$n"
        echo "$MUSTER_REPLICA cannot go on"
        exit 3
    fi
    sleep 0.1
done
"#;

impl Witness {
    /// Of a service, in a folder of its own inside `folder`.
    pub fn new(folder: &Path, service: &str) -> Self {
        let folder = Self::folder(folder, service);
        fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    /// Where the replicas of a service find and leave what they exchange with a test.
    pub(super) fn folder(folder: &Path, service: &str) -> PathBuf {
        folder.join(format!("witness-{service}"))
    }

    /// A service of such replicas.
    pub fn spec(&self, name: &str, replicas: i32, retry: Option<RetryPolicy>) -> ServiceSpec {
        let script = format!("WITNESS='{}'\n{SCRIPT}", self.folder.display());
        spec::service(name, replicas, &script, retry)
    }

    /// Lets the running attempt of a replica exit with code 3.
    pub fn fail(&self, ordinal: i32) {
        self.order(ordinal, "once");
    }

    /// Lets every attempt of a replica exit with code 3, until it is mended.
    pub fn crash_loop(&self, ordinal: i32) {
        self.order(ordinal, "always");
    }

    fn order(&self, ordinal: i32, words: &str) {
        let (new, file) = (self.folder.join("new"), format!("crash-{ordinal}"));
        fs::write(&new, words).unwrap();
        fs::rename(new, self.folder.join(file)).unwrap();
    }

    pub fn mend(&self, ordinal: i32) {
        fs::remove_file(self.folder.join(format!("crash-{ordinal}"))).unwrap();
    }

    /// Everything written down so far.
    pub fn marks(&self) -> Vec<Mark> {
        let text = fs::read_to_string(self.folder.join("marks")).unwrap_or_default();
        let mark = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            Some(Mark {
                what: words.next()?,
                ordinal: words.next()?.parse().ok()?,
                attempt: words.next()?,
                pid: words.next()?.parse().ok()?,
                with: words.next().unwrap_or_default(),
            })
        };
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter_map(mark).collect()
    }

    /// The marks of one kind that a replica has left.
    pub fn of(&self, ordinal: i32, what: &str) -> Vec<Mark> {
        let mut marks = self.marks();
        marks.retain(|mark| mark.ordinal == ordinal && mark.what == what);
        marks
    }

    /// How many attempts have started in all.
    pub fn starts(&self) -> usize {
        let marks = self.marks().into_iter();
        marks.filter(|mark| mark.what == "start").count()
    }

    /// Never were two processes of one replica, or on one accelerator, there at the same time.
    pub fn saw_no_overlap(&self) {
        let marks = self.marks();
        assert!(
            marks.iter().all(|mark| !mark.is_of_two()),
            "two processes of one replica or accelerator: {marks:#?}"
        );
    }

    /// Waits until a replica has left so many marks of a kind.
    pub async fn until(&self, ordinal: i32, what: &str, count: usize, patience: Duration) {
        let end = Instant::now() + patience;
        while self.of(ordinal, what).len() < count {
            assert!(
                Instant::now() < end,
                "{ordinal} has not left {count} marks {what:?}: {:#?}",
                self.marks()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}
