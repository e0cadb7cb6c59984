//! Several stores on one cluster in memory, on a paused clock, with lines that are cut.

use std::time::Duration;

use tokio::time::{Instant, advance, sleep, timeout};

use super::*;
use crate::cluster::{Link, MemoryCluster};
use crate::history::HistoryLimits;
use crate::transaction::MAX_BYTES;
use crate::watch::Watch;

const PREFIX: &str = "/muster/test/";
const LEADER: Duration = Duration::from_secs(3);
const SEAT: Duration = Duration::from_secs(90);

async fn open(cluster: &MemoryCluster) -> (Store, Link) {
    cluster.open(PREFIX, Options::default()).await.unwrap()
}

async fn put(store: &Store, key: &str, value: &str) -> Result<Outcome, Error> {
    let put = Transaction::new().put(key, value.to_owned());
    store.commit(put).await
}

async fn committed(store: &Store, key: &str, value: &str) -> Revision {
    match put(store, key, value).await.unwrap() {
        Outcome::Committed(revision) => revision,
        conflict @ Outcome::Conflict { .. } => panic!("{conflict:?}"),
    }
}

async fn value(store: &Store, key: &str) -> Option<Bytes> {
    store.get(key).await.unwrap().map(|record| record.value)
}

async fn until(what: &str, mut test: impl AsyncFnMut() -> bool) {
    let reached = async {
        while !test().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(600), reached)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(start_paused = true)]
async fn instances_share_an_epoch_and_see_each_others_writes_in_one_order() {
    let cluster = MemoryCluster::new();
    let (one, _) = open(&cluster).await;
    let (other, _) = open(&cluster).await;
    assert_eq!(one.epoch(), other.epoch());
    assert!(one.is_shared());
    let start = other.revision().await.unwrap();
    until("both are there", async || {
        one.revision().await.unwrap() >= start
    })
    .await;
    let mut watches: Vec<Watch> = Vec::new();
    for store in [&one, &other] {
        watches.push(store.watch("", start).await.unwrap());
    }
    for index in 0..50 {
        let store = [&one, &other][index % 2];
        // What others do in the same cluster leaves gaps.
        cluster.pass_revisions(index as u64 % 3);
        committed(store, "k", &index.to_string()).await;
        assert_eq!(value(store, "k").await.unwrap(), index.to_string());
    }
    let mut seen = Vec::new();
    for watch in &mut watches {
        let mut batches = Vec::new();
        while batches.len() < 50 {
            batches.push(watch.next().await.unwrap());
        }
        seen.push(batches);
    }
    assert_eq!(seen[0], seen[1]);
    let middle = &seen[0][20];
    let mut resumed = other.watch("", middle.revision).await.unwrap();
    assert_eq!(&resumed.next().await.unwrap(), &seen[0][21]);
}

#[tokio::test(start_paused = true)]
async fn what_changes_nothing_is_answered_beside_busy_neighbours() {
    let cluster = MemoryCluster::new();
    let (store, _) = open(&cluster).await;
    let at = committed(&store, "a", "1").await;
    cluster.pass_revisions(7);
    let nothing = store.commit(Transaction::new().delete("gone")).await;
    assert_eq!(nothing, Ok(Outcome::Committed(at)));
    let (other, _) = open(&cluster).await;
    let newer = committed(&other, "a", "2").await;
    let stale = Transaction::new()
        .when("a", Condition::ModifiedAt(at))
        .put("a", "3");
    let conflict = Outcome::Conflict {
        key: "a".into(),
        actual: Some(newer),
    };
    assert_eq!(store.commit(stale).await, Ok(conflict));
    assert_eq!(
        value(&store, "a").await.unwrap(),
        "2",
        "it can be read here by then"
    );
}

#[tokio::test(start_paused = true)]
async fn one_leads_until_it_ends_and_then_another() {
    let cluster = MemoryCluster::new();
    let (one, _) = open(&cluster).await;
    let (other, _) = open(&cluster).await;
    let first = one.lead("one").await.unwrap();
    assert!(first.holds());
    let waiting = other.lead("other");
    tokio::pin!(waiting);
    assert!(
        timeout(LEADER * 20, &mut waiting).await.is_err(),
        "two lead"
    );
    assert!(first.holds(), "it is kept");
    let begun = Instant::now();
    drop(first);
    let second = waiting.await.unwrap();
    assert!(begun.elapsed() < LEADER, "given back, it does not run out");
    let third = one.lead("one");
    tokio::pin!(third);
    assert!(timeout(LEADER * 5, &mut third).await.is_err());
    let term = second.term();
    other.close().await;
    let third = third.await.unwrap();
    assert!(third.term() > term);
    assert!(!second.holds());
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_while_it_takes_the_lead_gives_it_back() {
    let cluster = MemoryCluster::new();
    let (one, _) = open(&cluster).await;
    let (other, _) = open(&cluster).await;
    // Begun, and dropped as the answer is under way.
    let given_up = timeout(Duration::ZERO, one.lead("one")).await;
    assert!(given_up.is_err());
    let begun = Instant::now();
    other.lead("other").await.unwrap();
    assert!(begun.elapsed() < LEADER, "after {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_while_it_takes_a_seat_leaves_none() {
    let cluster = MemoryCluster::new();
    let (one, _) = open(&cluster).await;
    let (other, _) = open(&cluster).await;
    let given_up = timeout(Duration::ZERO, one.join("one", "")).await;
    assert!(given_up.is_err());
    // Far within what the lease of a seat lasts.
    sleep(LEADER).await;
    assert!(other.instances().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_knows_in_time_and_writes_nothing_after() {
    let cluster = MemoryCluster::new();
    let (one, link) = open(&cluster).await;
    let (other, _) = open(&cluster).await;
    let old = one.lead("one").await.unwrap();
    link.cut();
    let cut = Instant::now();
    old.lost().await;
    assert!(!old.holds());
    assert!(cut.elapsed() <= LEADER);
    let new = other.lead("other").await.unwrap();
    assert!(cut.elapsed() < LEADER * 2, "after {:?}", cut.elapsed());
    assert!(new.term() > old.term());
    committed(&other, "a", "new").await;
    link.heal();
    let late = old.fence(Transaction::new().put("a", "old"));
    let outcome = one.commit(late).await.unwrap();
    let Outcome::Conflict { key, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(&*key, TERM_KEY);
    assert_eq!(value(&other, "a").await.unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_is_lost_is_unknown_and_seen_by_all() {
    let cluster = MemoryCluster::new();
    let (one, link) = open(&cluster).await;
    let (other, _) = open(&cluster).await;
    link.lose_answers(1);
    let unknown = put(&one, "a", "1").await.unwrap_err();
    assert!(matches!(unknown, Error::Unavailable(_)), "{unknown}");
    for store in [&one, &other] {
        until("the write is seen", async || {
            value(store, "a").await.is_some()
        })
        .await;
    }
    committed(&one, "a", "2").await;
}

#[tokio::test(start_paused = true)]
async fn away_from_the_cluster_reads_go_on_and_say_how_old_they_are() {
    let cluster = MemoryCluster::new();
    let (one, link) = open(&cluster).await;
    let (other, _) = open(&cluster).await;
    committed(&one, "a", "1").await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(one.age(), Duration::ZERO, "quiet is not away");
    link.cut();
    committed(&other, "a", "2").await;
    let begun = Instant::now();
    assert!(matches!(
        put(&one, "b", "1").await,
        Err(Error::Unavailable(_))
    ));
    assert!(begun.elapsed() <= Duration::from_secs(4), "no call hangs");
    advance(Duration::from_secs(60)).await;
    assert_eq!(value(&one, "a").await.unwrap(), "1");
    let age = one.age();
    assert!(age >= Duration::from_secs(60), "{age:?}");
    assert!(age <= begun.elapsed() + Duration::from_secs(1), "{age:?}");
    link.heal();
    until("it has caught up", async || {
        value(&one, "a").await.unwrap() == "2"
    })
    .await;
    assert_eq!(one.age(), Duration::ZERO);
    committed(&one, "b", "2").await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_stops_and_goes_on_loses_nobody_anything() {
    let cluster = MemoryCluster::new();
    let (one, _) = open(&cluster).await;
    let (other, _) = open(&cluster).await;
    let seat = one.join("one", "here").await.unwrap();
    committed(&one, "a", "1").await;
    let leadership = one.lead("one").await.unwrap();
    cluster.stop();
    sleep(Duration::from_secs(60)).await;
    assert!(!leadership.holds());
    assert!(seat.holds(), "for as long as its lease");
    assert!(matches!(
        put(&other, "a", "2").await,
        Err(Error::Unavailable(_))
    ));
    assert_eq!(value(&other, "a").await.unwrap(), "1");
    cluster.start();
    until("writes go on", async || put(&other, "a", "3").await.is_ok()).await;
    let next = timeout(LEADER * 5, other.lead("other")).await;
    assert!(next.unwrap().unwrap().holds());
    until("all see it", async || {
        value(&one, "a").await.unwrap() == "3"
    })
    .await;
    assert!(seat.holds());
}

#[tokio::test(start_paused = true)]
async fn seats_are_seen_kept_lost_by_their_own_count_and_taken_again() {
    let cluster = MemoryCluster::new();
    let (one, link) = open(&cluster).await;
    let (other, _) = open(&cluster).await;
    let seat = one.join("one", "at 1").await.unwrap();
    let _own = other.join("other", "at 2").await.unwrap();
    let leadership = other.lead("other").await.unwrap();
    sleep(SEAT * 3).await;
    let ids = async |store: &Store| {
        let all = store.instances().await.unwrap().into_iter();
        all.map(|one| (one.id.to_string(), one.value, one.leader))
            .collect::<Vec<_>>()
    };
    let both = vec![
        ("one".to_owned(), Bytes::from("at 1"), false),
        ("other".to_owned(), Bytes::from("at 2"), true),
    ];
    assert_eq!(ids(&one).await, both);
    assert_eq!(ids(&other).await, both);

    link.cut();
    sleep(SEAT - Duration::from_secs(35)).await;
    assert!(seat.holds(), "the lease has not run out");
    sleep(Duration::from_secs(40)).await;
    assert!(!seat.holds());
    assert_eq!(ids(&other).await, both[1..]);
    link.heal();
    until("it sits again", async || seat.holds()).await;
    until("all see it", async || ids(&other).await == both).await;

    let now = other.revision().await.unwrap();
    let mut seats = other.watch("store/instances/one", now).await.unwrap();
    other.evict(&leadership, "one").await.unwrap();
    assert!(seats.next().await.unwrap().changes[0].after.is_none());
    assert!(
        seats.next().await.unwrap().changes[0].after.is_some(),
        "it sits again"
    );
    until("all see it", async || ids(&other).await == both).await;
    drop(seat);
    until("it is gone", async || ids(&other).await == both[1..]).await;
}

#[tokio::test(start_paused = true)]
async fn who_missed_what_is_forgotten_starts_anew() {
    let cluster = MemoryCluster::new();
    let (one, link) = open(&cluster).await;
    let (other, _) = open(&cluster).await;
    link.cut();
    committed(&other, "a", "1").await;
    let last = committed(&other, "a", "2").await;
    other.compact(last).await.unwrap();
    link.heal();
    let reason = timeout(Duration::from_secs(60), one.failed())
        .await
        .unwrap();
    assert!(reason.contains("forgotten"), "{reason}");
    assert!(matches!(put(&one, "a", "3").await, Err(Error::Failed(_))));
    let (anew, _) = open(&cluster).await;
    assert_eq!(value(&anew, "a").await.unwrap(), "2");
    committed(&anew, "a", "3").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_store_or_of_a_later_release_is_left_alone() {
    let cluster = MemoryCluster::new();
    cluster.stop();
    let refused = cluster.open(PREFIX, Options::default()).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::Unreachable { .. }),
        "{refused}"
    );
    cluster.start();
    let (outer, _) = cluster.open("/", Options::default()).await.unwrap();
    for (value, expected) in [
        ("2 00000000000f-00000000", "schema version 2"),
        ("x", "no store of ours"),
        ("1 x", "no store of ours"),
    ] {
        committed(&outer, "muster/test/store/epoch", value).await;
        let refused = cluster.open(PREFIX, Options::default()).await.unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    let delete = Transaction::new()
        .delete("muster/test/store/epoch")
        .put("muster/test/something", "else");
    let _committed = outer.commit(delete).await.unwrap();
    let refused = cluster.open(PREFIX, Options::default()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_of_a_shared_store_is_told_to_list_again() {
    let cluster = MemoryCluster::new();
    let history = HistoryLimits {
        revisions: 5,
        ..HistoryLimits::default()
    };
    let options = Options {
        history,
        ..Options::default()
    };
    let (store, _) = cluster.open(PREFIX, options).await.unwrap();
    let mut slow = store
        .watch("", store.revision().await.unwrap())
        .await
        .unwrap();
    for index in 0..20 {
        cluster.pass_revisions(3);
        committed(&store, "k", &index.to_string()).await;
    }
    let told = slow.next().await.unwrap_err();
    assert!(matches!(told, Error::Compacted { .. }), "{told}");
}

#[tokio::test(start_paused = true)]
async fn an_instance_begins_at_a_revision_that_the_others_come_to() {
    let cluster = MemoryCluster::new();
    let (one, _) = open(&cluster).await;
    cluster.pass_revisions(100);
    let (other, _) = open(&cluster).await;
    let at = other.revision().await.unwrap();
    until("it comes to the same revision", async || {
        one.revision().await.unwrap() >= at
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_conflict_shows_what_it_found_though_others_count_on() {
    let cluster = MemoryCluster::new();
    let (one, _) = open(&cluster).await;
    let (other, _) = open(&cluster).await;
    for index in 0..50 {
        let at = committed(&other, "a", &index.to_string()).await;
        cluster.pass_revisions(3);
        let begun = Instant::now();
        let stale = Transaction::new().when("a", Condition::Absent);
        let Outcome::Conflict { actual, .. } = one.commit(stale).await.unwrap() else {
            panic!("it is there");
        };
        assert_eq!(actual, Some(at));
        assert_eq!(value(&one, "a").await.unwrap(), index.to_string());
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_leads_keeps_an_hour_of_history_and_no_more() {
    let cluster = MemoryCluster::new();
    let (one, link) = open(&cluster).await;
    let (away, cut) = open(&cluster).await;
    let _term = one.lead("one").await.unwrap();
    let first = committed(&one, "a", "1").await;
    sleep(Duration::from_mins(50)).await;
    assert!(cluster.compacted() < first.0);
    committed(&one, "a", "2").await;
    sleep(Duration::from_mins(25)).await;
    assert!(cluster.compacted() >= first.0);
    cut.cut();
    committed(&one, "a", "3").await;
    sleep(Duration::from_mins(30)).await;
    cut.heal();
    until("half an hour is made up for", async || {
        value(&away, "a").await.unwrap() == "3"
    })
    .await;
    cut.cut();
    committed(&one, "a", "4").await;
    sleep(Duration::from_hours(2)).await;
    drop(link);
    cut.heal();
    let reason = timeout(Duration::from_mins(1), away.failed()).await;
    assert!(reason.unwrap().contains("forgotten"));
}

fn records(count: u64, size: usize) -> Records {
    let record = |index: u64| {
        let key: Arc<str> = format!("k/{index:04}").into();
        let record = crate::record::Record {
            key: Arc::clone(&key),
            value: vec![b'v'; size].into(),
            created: Revision(1),
            modified: Revision(2),
        };
        (key, Arc::new(record))
    };
    (0..count).map(record).collect()
}

#[tokio::test(start_paused = true)]
async fn a_restore_is_a_store_only_once_all_of_it_is_there() {
    use restore::{Refusal, restore};
    let cluster = MemoryCluster::new();
    let epoch = Options::default().epoch;
    let many = records(400, 10);
    let (target, link) = cluster.reach(PREFIX);
    // The marker's answer is lost: the restore ends there, and nobody takes what it left for a store.
    link.lose_answers(1);
    let cut = restore(&target, &many, epoch).await;
    let Err(Refusal::Fault(fault)) = cut else {
        panic!("{cut:?}");
    };
    assert!(fault.to_string().contains("no answer"), "{fault}");
    let refused = cluster.open(PREFIX, Options::default()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
    let again = restore(&target, &many, epoch).await;
    assert!(matches!(again, Err(Refusal::Taken)), "{again:?}");

    for (prefix, records) in [
        ("/a:", many),
        ("/b:", records(5, MAX_BYTES - 100)),
        ("/c:", Records::new()),
    ] {
        let (target, _) = cluster.reach(prefix);
        let revision = restore(&target, &records, epoch).await.unwrap();
        let (store, _) = cluster.open(prefix, Options::default()).await.unwrap();
        assert_eq!(store.epoch(), epoch);
        assert!(store.revision().await.unwrap() >= revision);
        let listed = store.list("k/").await.unwrap().records;
        assert!(
            listed
                .iter()
                .map(|one| (&one.key, &one.value))
                .eq(records.values().map(|one| (&one.key, &one.value)))
        );
        assert_eq!(store.get("store/restoring").await, Ok(None));
        let taken = restore(&target, &records, epoch).await;
        assert!(matches!(taken, Err(Refusal::Taken)), "a store stands");
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_does_not_go_on_in_a_store_that_was_put_back_under_it() {
    let cluster = MemoryCluster::new();
    let (store, _) = open(&cluster).await;
    committed(&store, "a", "1").await;
    let (direct, _) = cluster.reach(PREFIX);
    let (records, _) = direct.list().await.unwrap();
    let wipe = Request {
        writes: records
            .iter()
            .map(|one| (Arc::clone(&one.key), None))
            .collect(),
        ..Request::default()
    };
    direct.commit(wipe).await.unwrap();
    let (left, _) = direct.list().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    let epoch = Options::default().epoch.later_than(store.epoch());
    restore::restore(&direct, &Records::new(), epoch)
        .await
        .unwrap();
    sleep(Duration::from_secs(5)).await;
    let (fresh, _) = open(&cluster).await;
    assert_eq!(fresh.epoch(), epoch);
    let written = put(&store, "b", "of the old epoch").await;
    assert!(
        written.is_err(),
        "{written:?} in {} as {}",
        fresh.epoch(),
        store.epoch()
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_gives_signs_of_life_and_tells_nothing_is_begun_anew() {
    let stale = Transaction::new().when("a", Condition::Absent);
    for unread in [
        Transaction::new().put("b", "1"),
        Transaction::new(),
        stale.put("b", "1"),
    ] {
        let cluster = MemoryCluster::new();
        let (one, link) = open(&cluster).await;
        let (other, _) = open(&cluster).await;
        committed(&one, "b", "0").await;
        link.stall_watches();
        committed(&other, "a", "1").await;
        sleep(Duration::from_secs(10)).await;
        assert_eq!(value(&one, "a").await, None);
        let began = Instant::now();
        let unread = one.commit(unread).await.unwrap_err();
        assert!(matches!(unread, Error::Unavailable(_)), "{unread}");
        until("it has caught up", async || {
            value(&one, "a").await.is_some()
        })
        .await;
        assert!(began.elapsed() < ANSWERS_WITHIN * 2);
        committed(&one, "b", "2").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_tells_nothing_is_begun_anew_also_where_nobody_waits_for_it() {
    let cluster = MemoryCluster::new();
    let (one, link) = open(&cluster).await;
    let (other, _) = open(&cluster).await;
    committed(&one, "b", "0").await;
    link.stall_watches();
    committed(&other, "a", "1").await;
    until("it has caught up", async || {
        value(&one, "a").await.is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn whoever_lost_its_seat_knows_within_its_lease_though_its_watch_tells_nothing() {
    let cluster = MemoryCluster::new();
    let (judge, _) = open(&cluster).await;
    let lead = judge.lead("judge").await.unwrap();
    // An instance whose leases are renewed, and whose watch stands still from some time on.
    let (own, _) = cluster.reach(PREFIX);
    let (records, revision) = own.list().await.unwrap();
    let records: Records = records
        .into_iter()
        .map(|record| (Arc::clone(&record.key), Arc::new(record)))
        .collect();
    let core = Arc::new(Core {
        shared: Arc::new(Shared::new(
            records,
            Revision(revision),
            HistoryLimits::default(),
        )),
        cluster: own,
        epoch: judge.epoch(),
        leases: Options::default().leases,
        reached: watch::Sender::new(revision),
        heard: Mutex::new(Instant::now()),
        hurry: Notify::new(),
        stuck: watch::Sender::new(()),
        term: Mutex::default(),
        in_flight: watch::Sender::new(0),
        closing: watch::Sender::new(false),
    });
    let clustered = Clustered {
        core: Arc::clone(&core),
        tasks: Mutex::default(),
    };
    let mut following = JoinSet::new();
    following.spawn(follow::follow(core));
    let instance = Instance {
        id: "stuck".into(),
        value: Bytes::new(),
        leader: false,
    };
    let seat = clustered.join(instance).await.unwrap();
    assert!(seat.holds());
    following.abort_all();
    judge.evict(&lead, "stuck").await.unwrap();
    sleep(SEAT + Duration::from_secs(1)).await;
    // It may try to sit down again, and does not while it cannot read that it has.
    assert!(!seat.holds(), "it goes on, and nobody asks it");
}
