use super::*;
use crate::domain::skypilot;

fn told(observed: SystemTime) -> Told {
    of_type("t", observed)
}

fn of_type(instance_type: &str, observed: SystemTime) -> Told {
    let rows = format!("InstanceType,Region,Price\n{instance_type},eu,1\n");
    Told {
        snapshot: Arc::new(skypilot::read("a b", "f", rows.as_bytes()).unwrap()),
        observed,
        live_capacity: true,
    }
}

async fn written(keeper: &Keeper, told: &Told, validator: &str) -> Place {
    let mut place = keeper.place("a b", "here");
    place.keep(told, validator, false);
    place.settle().await;
    place
}

#[tokio::test]
async fn what_is_kept_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(&folder.path().join("deep")).unwrap();
    let first = UNIX_EPOCH + Duration::new(1000, 7);
    written(&keeper, &told(first), "etag").await;
    let mut place = keeper.place("a b", "here");
    let (back, validator) = place.load().await.unwrap();
    assert_eq!(
        (back.observed, back.live_capacity, validator.as_str()),
        (first, true, "etag")
    );
    assert_eq!(back.snapshot.parts(), told(first).snapshot.parts());
    let later = first + Duration::from_secs(5);
    place.keep(&told(later), "etag", true);
    place.settle().await;
    assert_eq!(place.load().await.unwrap().0.observed, later);
    assert!(keeper.place("a b", "there").load().await.is_none());
    assert!(keeper.place("another", "here").load().await.is_none());
    assert!(Keeper::none().place("a b", "here").load().await.is_none());
}

#[tokio::test]
async fn damaged_offers_are_read_again_from_their_source() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    let mut place = written(&keeper, &told(UNIX_EPOCH), "").await;
    let file = folder.path().join("a%20b.offers");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&file, &bytes).unwrap();
    assert!(place.load().await.is_none());
    std::fs::write(folder.path().join("a%20b.json"), "{").unwrap();
    assert!(place.load().await.is_none());
}

#[tokio::test]
async fn offers_that_could_not_be_written_are_written_once_they_can() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    let mut place = written(&keeper, &of_type("old", UNIX_EPOCH), "old").await;
    // In the way of the draft.
    let draft = folder.path().join("a%20b.offers.new");
    std::fs::create_dir(&draft).unwrap();
    let now = UNIX_EPOCH + Duration::from_secs(5);
    let new = of_type("new", now);
    place.keep(&new, "new", false);
    place.settle().await;
    std::fs::remove_dir(&draft).unwrap();
    place.keep(&new, "new", true);
    place.settle().await;
    let (back, validator) = place.load().await.unwrap();
    assert_eq!((back.observed, validator.as_str()), (now, "new"));
    assert_eq!(back.snapshot.parts(), new.snapshot.parts());
}

#[tokio::test]
async fn a_disk_that_hangs_has_one_thing_asked_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    let mut place = keeper.place("a b", "here");
    let (release, hanging) = std::sync::mpsc::channel::<()>();
    place.job = Some(spawn_blocking(move || hanging.recv().is_ok()));
    let first = told(UNIX_EPOCH);
    place.keep(&first, "etag", false);
    assert!(!place.troubled.load(Ordering::Relaxed));
    place.began -= 2 * SLOW;
    place.keep(&first, "etag", true);
    assert!(place.troubled.load(Ordering::Relaxed), "it is told");
    release.send(()).unwrap();
    place.settle().await;
    place.keep(&first, "etag", true);
    place.settle().await;
    assert_eq!(place.load().await.unwrap().1, "etag");
}
