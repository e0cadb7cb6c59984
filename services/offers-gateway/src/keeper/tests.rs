use super::*;
use crate::domain::skypilot;

fn told(observed: SystemTime) -> Told {
    let snapshot = skypilot::read("a b", "f", b"InstanceType,Region,Price\nt,eu,1\n").unwrap();
    Told {
        snapshot: Arc::new(snapshot),
        observed,
        live_capacity: true,
    }
}

#[tokio::test]
async fn what_is_kept_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(&folder.path().join("deep")).unwrap();
    let first = UNIX_EPOCH + Duration::new(1000, 7);
    keeper.keep("a b", "here", &told(first), "etag").await;
    let (back, validator) = keeper.load("a b", "here").await.unwrap();
    assert_eq!(
        (back.observed, back.live_capacity, validator.as_str()),
        (first, true, "etag")
    );
    assert_eq!(back.snapshot.parts(), told(first).snapshot.parts());
    let later = first + Duration::from_secs(5);
    keeper.touch("a b", "here", &told(later), "etag").await;
    assert_eq!(keeper.load("a b", "here").await.unwrap().0.observed, later);
    assert!(keeper.load("a b", "there").await.is_none());
    assert!(keeper.load("another", "here").await.is_none());
    assert!(Keeper::none().load("a b", "here").await.is_none());
}

#[tokio::test]
async fn damaged_offers_are_read_again_from_their_source() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    keeper.keep("a b", "here", &told(UNIX_EPOCH), "").await;
    let file = folder.path().join("a%20b.offers");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&file, &bytes).unwrap();
    assert!(keeper.load("a b", "here").await.is_none());
    std::fs::write(folder.path().join("a%20b.json"), "{").unwrap();
    assert!(keeper.load("a b", "here").await.is_none());
}
