//! What only a store in a file promises: what it is after a restart, and why it does not open.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test stops at the first fault"
)]

use std::fs::{self, Permissions};
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use muster_store::{
    Condition, Error, OpenError, Options, Outcome, RestoreError, Revision, Spec, Store,
    Transaction, restore,
};
use redb::Database;
use rustix::fs::inotify;
use tempfile::TempDir;

struct Place {
    directory: TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data/of/store.db");
    Place { directory, path }
}

fn open(path: &Path) -> Store {
    Store::embedded(path, Options::default()).unwrap()
}

fn refused(path: &Path) -> OpenError {
    let error = Store::embedded(path, Options::default()).unwrap_err();
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error} does not name the file"
    );
    error
}

async fn put(store: &Store, key: &str, value: &str) -> Revision {
    match store
        .commit(Transaction::new().put(key, value.to_owned()))
        .await
        .unwrap()
    {
        Outcome::Committed(revision) => revision,
        conflict @ Outcome::Conflict { .. } => panic!("{conflict:?}"),
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let place = place();
    let store = open(&place.path);
    let (epoch, term) = (store.epoch(), store.lead("one").await.unwrap().term());
    assert_eq!(term.revision, Revision(1));
    put(&store, "a", "1").await;
    put(&store, "b", "1").await;
    let latest = put(&store, "a", "2").await;
    let before = store.list("").await.unwrap();
    store.close().await;

    let store = open(&place.path);
    assert_eq!(store.epoch(), epoch);
    let next = store.lead("one").await.unwrap().term();
    assert_eq!(next.revision, Revision(latest.0 + 1));
    assert!(next > term);
    let after = store.list("").await.unwrap();
    let services = |listing: &muster_store::Listing| listing.records[..2].to_vec();
    assert_eq!(services(&after), services(&before));
    let swap = Transaction::new()
        .when("a", Condition::ModifiedAt(latest))
        .delete("a");
    assert_eq!(
        store.commit(swap).await,
        Ok(Outcome::Committed(Revision(latest.0 + 2)))
    );
    store.close().await;
    assert_eq!(open(&place.path).get("a").await, Ok(None));
}

#[tokio::test]
async fn the_latest_revision_resumes_after_a_restart_and_an_older_one_does_not() {
    let place = place();
    let store = open(&place.path);
    put(&store, "a", "1").await;
    let latest = put(&store, "a", "2").await;
    store.close().await;

    let store = open(&place.path);
    let mut watch = store.watch("a", latest).await.unwrap();
    let at = put(&store, "a", "3").await;
    assert_eq!(watch.next().await.unwrap().revision, at);
    let older = store.watch("a", Revision(latest.0 - 1)).await.unwrap_err();
    assert_eq!(older, Error::Compacted { oldest: latest });
}

#[tokio::test]
async fn what_a_killed_creator_left_is_removed() {
    let place = place();
    let parent = place.path.parent().unwrap();
    fs::create_dir_all(parent).unwrap();
    for name in [
        "store.db.0198c3a2f1b4-00000007.draft",
        "store.db.bak",
        "other.db.0198c3a2f1b4-00000007.draft",
        // Of a store whose name begins with this one's, and which may be in the making now.
        "store.db.2.0198c3a2f1b4-00000007.draft",
    ] {
        fs::write(parent.join(name), "x").unwrap();
    }
    open(&place.path).close().await;
    let entries = fs::read_dir(parent).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let left = [
        "other.db.0198c3a2f1b4-00000007.draft",
        "store.db",
        "store.db.2.0198c3a2f1b4-00000007.draft",
        "store.db.bak",
    ];
    assert_eq!(names, left);
}

#[tokio::test]
async fn only_its_user_may_read_a_store_and_its_backups() {
    let place = place();
    let store = open(&place.path);
    let backup = place.path.with_extension("backup");
    store.backup().await.unwrap().write_to(&backup).unwrap();
    for path in [&place.path, &backup] {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    }
    store.close().await;
}

/// The folder is opened once the file has its name there: that puts the name on disk, and nothing else needs it.
#[tokio::test]
async fn a_backup_keeps_its_name_over_a_loss_of_power() {
    let place = place();
    let store = open(&place.path);
    let folder = tempfile::tempdir().unwrap();
    let seen = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let wanted = inotify::WatchFlags::OPEN | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&seen, folder.path(), wanted).unwrap();
    let backup = store.backup().await.unwrap();
    backup.write_to(&folder.path().join("backup")).unwrap();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(seen, &mut buffer);
    let mut last = inotify::ReadFlags::empty();
    while let Ok(event) = events.next() {
        last = match event.events() {
            moved if moved.contains(inotify::ReadFlags::MOVED_TO) => moved,
            opened if last.contains(inotify::ReadFlags::MOVED_TO) => last | opened,
            before => before,
        };
    }
    let synced =
        inotify::ReadFlags::MOVED_TO | inotify::ReadFlags::OPEN | inotify::ReadFlags::ISDIR;
    assert_eq!(last, synced);
    store.close().await;
}

#[tokio::test]
async fn a_dropped_store_is_closed_in_the_background() {
    let place = place();
    let store = open(&place.path);
    let mut watch = store
        .watch("", store.revision().await.unwrap())
        .await
        .unwrap();
    drop(store);
    assert_eq!(watch.next().await, Err(Error::Closed));
}

#[tokio::test]
async fn a_file_in_use_is_refused_until_it_is_closed() {
    let place = place();
    let store = open(&place.path);
    let error = refused(&place.path);
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    store.close().await;
    open(&place.path).close().await;
}

#[test]
fn a_file_that_may_not_be_written_is_refused() {
    let place = place();
    fs::create_dir_all(place.path.parent().unwrap()).unwrap();
    drop(Store::embedded(&place.path, Options::default()).unwrap());
    fs::set_permissions(&place.path, Permissions::from_mode(0o444)).unwrap();
    if fs::OpenOptions::new().write(true).open(&place.path).is_ok() {
        // Whoever may do everything is refused only by a file system without writing.
        println!("SKIPPED on a read-only file: this user may write it all the same");
    } else {
        assert!(matches!(
            refused(&place.path),
            OpenError::NotWritable { .. }
        ));
    }
    let sys = Path::new("/sys/muster-store-test.db");
    if sys.parent().unwrap().is_dir() {
        assert!(matches!(refused(sys), OpenError::NotWritable { .. }));
    } else {
        println!("SKIPPED on a read-only directory: there is no /sys");
    }
}

#[test]
fn a_path_that_is_no_file_is_refused() {
    let place = place();
    fs::create_dir_all(&place.path).unwrap();
    assert!(matches!(refused(&place.path), OpenError::WrongPath { .. }));
    let file = place.directory.path().join("file");
    fs::write(&file, "text").unwrap();
    assert!(matches!(
        refused(&file.join("store.db")),
        OpenError::WrongPath { .. }
    ));
    assert!(matches!(
        refused(Path::new("/dev/null")),
        OpenError::WrongPath { .. }
    ));
}

#[tokio::test]
async fn what_is_no_whole_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let foreign = directory.path().join("foreign.db");
    drop(Database::create(&foreign).unwrap());
    let text = directory.path().join("text.db");
    fs::write(&text, "not a store, but of some length".repeat(1_000)).unwrap();
    let empty = directory.path().join("empty.db");
    fs::write(&empty, "").unwrap();
    let cut = directory.path().join("cut.db");
    open(&cut).close().await;
    let whole = fs::read(&cut).unwrap();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    for path in [foreign, text, empty, cut] {
        let error = refused(&path);
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("muster restore"), "{error}");
    }
}

#[tokio::test]
async fn the_user_chooses_the_store() {
    let place = place();
    let spec: Spec = format!("embedded:{}", place.path.display())
        .parse()
        .unwrap();
    let store = Store::open(&spec, Options::default()).await.unwrap();
    put(&store, "a", "1").await;
    store.close().await;
    assert!(open(&place.path).get("a").await.unwrap().is_some());
    let memory = Store::open(&Spec::Memory, Options::default())
        .await
        .unwrap();
    put(&memory, "a", "1").await;
    // Nobody listens on that port.
    let etcd: Spec = "etcd:http://127.0.0.1:1/muster".parse().unwrap();
    let error = Store::open(&etcd, Options::default()).await.unwrap_err();
    let words = match cfg!(feature = "etcd") {
        true => "cannot be reached",
        false => "the feature `etcd`",
    };
    assert!(error.to_string().contains(words), "{error}");
}

#[tokio::test]
async fn a_backup_that_is_not_whole_is_refused_and_nothing_is_made() {
    let place = place();
    let store = open(&place.path);
    for index in 0..50 {
        let puts = (0..60).fold(Transaction::new(), |transaction, part| {
            transaction.put(format!("k/{index}/{part}"), "v".repeat(200))
        });
        let _committed = store.commit(puts).await.unwrap();
    }
    let file = place.directory.path().join("backup");
    store.backup().await.unwrap().write_to(&file).unwrap();
    let whole = fs::read(&file).unwrap();
    let target = place.directory.path().join("target.db");
    let spec = Spec::Embedded(target.clone());
    let mut broken: Vec<Vec<u8>> = [0, 10, 57, 61, whole.len() / 2, whole.len() - 1]
        .map(|length| whole[..length].to_vec())
        .into();
    broken.push([&whole[..], b"x"].concat());
    for index in [3, 30, 55, 62, 70, 5_000, whole.len() - 3] {
        let mut changed = whole.clone();
        changed[index] ^= 4;
        broken.push(changed);
    }
    for bytes in broken {
        fs::write(&file, bytes).unwrap();
        let error = restore(&file, &spec, Options::default()).await.unwrap_err();
        assert!(matches!(error, RestoreError::Backup { .. }), "{error}");
        assert!(!target.exists());
    }
    fs::write(&file, whole).unwrap();
    restore(&file, &spec, Options::default()).await.unwrap();
    let twice = restore(&file, &spec, Options::default()).await.unwrap_err();
    assert!(matches!(twice, RestoreError::Exists { .. }), "{twice}");
    let lost = restore(&file, &Spec::Memory, Options::default())
        .await
        .unwrap_err();
    assert!(matches!(lost, RestoreError::Memory), "{lost}");
    let left: Vec<_> = fs::read_dir(place.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 3, "something else is left: {left:?}");
}
