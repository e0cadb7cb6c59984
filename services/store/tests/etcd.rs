//! What a store on a real etcd does when members, all of etcd, or a leader go away.
#![cfg(feature = "etcd")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test stops at the first fault"
)]

#[path = "support/etcd.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use muster_store::{
    Error, Leases, OpenError, Options, Outcome, RestoreError, Revision, Spec, Store, TERM_KEY,
    Transaction, restore,
};
use support::Etcd;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a test passes.
async fn until(what: &str, mut test: impl AsyncFnMut() -> bool) {
    let passes = async {
        while !test().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let passed = timeout(PATIENCE, passes).await;
    assert!(passed.is_ok(), "never: {what}");
}

fn options() -> Options {
    Options {
        leases: Leases {
            instance: Duration::from_secs(6),
            leader: Duration::from_secs(3),
        },
        ..Options::default()
    }
}

async fn open(etcd: &Etcd, prefix: &str) -> Store {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Store::etcd(&etcd.address(prefix), options()).await {
            Ok(store) => return store,
            Err(OpenError::Unreachable { .. }) if Instant::now() < deadline => {
                sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn put(store: &Store, key: &str, value: &str) -> Result<Revision, Error> {
    let put = Transaction::new().put(key, value.to_owned());
    match store.commit(put).await? {
        Outcome::Committed(revision) => Ok(revision),
        conflict @ Outcome::Conflict { .. } => panic!("{conflict:?}"),
    }
}

async fn value(store: &Store, key: &str) -> Option<String> {
    let record = store.get(key).await.unwrap()?;
    Some(String::from_utf8(record.value.to_vec()).unwrap())
}

/// Puts one number after the other, each under a key of its own, until told to stop; returns those that
/// were acknowledged, and the longest time that passed between two.
async fn write(
    store: Store,
    name: usize,
    stop: tokio::sync::watch::Receiver<bool>,
) -> (Vec<String>, Duration) {
    let (mut acknowledged, mut last, mut longest) = (Vec::new(), Instant::now(), Duration::ZERO);
    for number in 0.. {
        if *stop.borrow() {
            break;
        }
        let key = format!("n/{name}/{number:06}");
        match put(&store, &key, "x").await {
            Ok(_) => {
                acknowledged.push(key);
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            Err(Error::Unavailable(_)) => sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
    (acknowledged, longest)
}

/// What happens to one member while two instances write.
async fn writes_survive(etcd: &mut Etcd, prefix: &str, fault: impl FnOnce(&mut Etcd)) -> Duration {
    let stores = [open(etcd, prefix).await, open(etcd, prefix).await];
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut writers = JoinSet::new();
    for name in 0..8 {
        let store = stores[name % 2].clone();
        writers.spawn(write(store, name, stopped.clone()));
    }
    let written = async |count: usize| {
        until("writes go on", async || {
            stores[0].list("n/").await.unwrap().records.len() >= count
        })
        .await;
    };
    written(200).await;
    fault(etcd);
    let before = stores[0].list("n/").await.unwrap().records.len();
    written(before + 200).await;
    sleep(Duration::from_secs(3)).await;
    stop.send_replace(true);
    let mut longest = Duration::ZERO;
    let (mut all, last) = (Vec::new(), put(&stores[1], "last", "x").await.unwrap());
    for (acknowledged, pause) in writers.join_all().await {
        all.extend(acknowledged);
        longest = longest.max(pause);
    }
    for store in &stores {
        until("it is in step", async || {
            store.revision().await.unwrap() >= last
        })
        .await;
        for key in &all {
            assert!(value(store, key).await.is_some(), "{key} is lost");
        }
    }
    // And for whoever reads it all anew.
    let anew = open(etcd, prefix).await;
    assert!(anew.list("n/").await.unwrap().records.len() >= all.len());
    for store in stores.into_iter().chain([anew]) {
        store.close().await;
    }
    longest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_dies_or_hangs_loses_nothing_and_delays_little() {
    let Some(mut etcd) = Etcd::start(3) else {
        return;
    };
    let limit = Duration::from_secs(5);
    // The first is the one that stores speak to first.
    let longest = writes_survive(&mut etcd, "killed", |etcd| etcd.kill(0)).await;
    assert!(
        longest < limit,
        "writes paused for {longest:?} after a kill"
    );
    etcd.run(0);
    let again = open(&etcd, "again").await;
    until("all members are back", async || {
        put(&again, "a", "1").await.is_ok()
    })
    .await;
    let longest = writes_survive(&mut etcd, "hung", |etcd| etcd.signal(0, "STOP")).await;
    etcd.signal(0, "CONT");
    assert!(
        longest < limit,
        "writes paused for {longest:?} after a hang"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_reads_go_on_and_say_how_old_they_are() {
    let Some(mut etcd) = Etcd::start(1) else {
        return;
    };
    let one = open(&etcd, "away").await;
    let other = open(&etcd, "away").await;
    let seat = one.join("one", "at 1").await.unwrap();
    put(&one, "a", "1").await.unwrap();
    until("the other has it", async || {
        value(&other, "a").await.is_some()
    })
    .await;
    assert_eq!(other.age(), Duration::ZERO);
    etcd.kill(0);
    until("it knows", async || other.age() > Duration::from_secs(3)).await;
    assert_eq!(value(&other, "a").await.unwrap(), "1");
    let begun = Instant::now();
    let refused = put(&other, "a", "2").await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "no call hangs");
    let young = other.age();
    sleep(Duration::from_millis(500)).await;
    assert!(other.age() > young);
    etcd.run(0);
    until("writes go on", async || put(&one, "a", "3").await.is_ok()).await;
    until("all see it", async || {
        value(&other, "a").await.as_deref() == Some("3")
    })
    .await;
    until("it is in step", async || other.age() == Duration::ZERO).await;
    until("the seat is held", async || seat.holds()).await;
    until("all see the seat", async || {
        other.instances().await.unwrap().len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_at_a_time_and_who_was_paused_writes_nothing() {
    let Some(etcd) = Etcd::start(1) else {
        return;
    };
    let stores = [open(&etcd, "led").await, open(&etcd, "led").await];
    let old = stores[0].lead("first").await.unwrap();
    let waiting = stores[1].lead("second");
    tokio::pin!(waiting);
    let long = Duration::from_secs(6);
    assert!(timeout(long, &mut waiting).await.is_err(), "two lead");
    assert!(old.holds(), "it is kept for longer than its lease");
    // Both are stopped whole, as by SIGSTOP, for longer than the lease, while etcd goes on: nothing of
    // this process runs.
    std::thread::scope(|scope| {
        scope.spawn(|| stop_this_process(long)).join().unwrap();
    });
    let new = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert!(!old.holds());
    assert!(new.term() > old.term());
    let late = old.fence(Transaction::new().put("a", "old"));
    let outcome = stores[0].commit(late).await.unwrap();
    let Outcome::Conflict { key, actual } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!((&*key, actual), (TERM_KEY, Some(new.term().revision)));
    let current = new.fence(Transaction::new().put("a", "new"));
    let committed = stores[1].commit(current).await.unwrap();
    assert!(matches!(committed, Outcome::Committed(_)));
    // Given back, it does not run out.
    let given = Instant::now();
    stores[1].close().await;
    let next = timeout(PATIENCE, stores[0].lead("first"))
        .await
        .unwrap()
        .unwrap();
    assert!(
        given.elapsed() < Duration::from_secs(3),
        "{:?}",
        given.elapsed()
    );
    assert!(next.term() > new.term());
}

/// Sends this process SIGSTOP, and has a child continue it after a while.
fn stop_this_process(pause: Duration) {
    let id = std::process::id();
    let script = format!(
        "kill -s STOP {id}; sleep {}; kill -s CONT {id}",
        pause.as_secs()
    );
    let status = std::process::Command::new("sh")
        .args(["-c", &script])
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seats_are_seen_by_all_taken_away_and_regained() {
    let Some(etcd) = Etcd::start(1) else {
        return;
    };
    let (one, other) = (open(&etcd, "seats").await, open(&etcd, "seats").await);
    let seat = one.join("one", "at 1").await.unwrap();
    let _own = other.join("other", "at 2").await.unwrap();
    let term = other.lead("other").await.unwrap();
    for store in [&one, &other] {
        until("both are seen", async || {
            let seats = store.instances().await.unwrap();
            let seen: Vec<_> = seats.iter().map(|one| (&*one.id, one.leader)).collect();
            seen == [("one", false), ("other", true)]
        })
        .await;
    }
    let now = other.revision().await.unwrap();
    let mut changes = other.watch("store/instances/one", now).await.unwrap();
    other.evict(&term, "one").await.unwrap();
    assert!(changes.next().await.unwrap().changes[0].after.is_none());
    let again = timeout(PATIENCE, changes.next()).await.unwrap().unwrap();
    assert!(again.changes[0].after.is_some(), "it takes another");
    until("it holds", async || seat.holds()).await;
    drop(seat);
    until("it is gone", async || {
        other.instances().await.unwrap().len() == 1
    })
    .await;
}

/// An etcd whose space is used up takes no write until it is given more. Leases are kept all the same: nobody
/// is gone, and nobody may be taken for gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_without_space_costs_nobody_the_seat_or_the_lead() {
    let quota = ["--quota-backend-bytes", "8388608"].map(str::to_owned);
    let Some(etcd) = Etcd::start_with(1, "http", quota.to_vec()) else {
        return;
    };
    let store = open(&etcd, "full").await;
    let seat = store.join("one", "at 1").await.unwrap();
    let term = store.lead("one").await.unwrap();
    let much = "x".repeat(500_000);
    until("it is full", async || {
        put(&store, "much", &much).await.is_err()
    })
    .await;
    // Longer than either lease.
    sleep(Duration::from_secs(9)).await;
    assert!(put(&store, "more", "x").await.is_err(), "it has space");
    assert!(term.holds(), "the lead is lost");
    assert!(seat.holds(), "the seat is lost");
    assert_eq!(store.instances().await.unwrap().len(), 1);
    // Before anything is done about it, whoever looks after it wants a copy.
    let copied = store.backup().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup");
    copied.write_to(&file).unwrap();
    let spec = Spec::Embedded(folder.path().join("store.db"));
    restore(&file, &spec, Options::default()).await.unwrap();
    let restored = Store::open(&spec, Options::default()).await.unwrap();
    assert_eq!(value(&restored, "much").await, value(&store, "much").await);
    assert!(value(&restored, "much").await.is_some());
}

/// Two stores write side by side: the revisions of each have gaps, and those that change nothing are judged at
/// ones that only the other has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_of_one_etcd_do_not_disturb_each_other() {
    let Some(etcd) = Etcd::start(1) else {
        return;
    };
    let (here, there) = (open(&etcd, "x").await, open(&etcd, "x/y").await);
    let mut writers = JoinSet::new();
    for store in [here.clone(), there.clone()] {
        writers.spawn(async move {
            let mut last = Revision(0);
            for index in 0..300 {
                last = put(&store, "k", &index.to_string()).await.unwrap();
                let nothing = Transaction::new().delete("gone");
                let judged = store.commit(nothing).await.unwrap();
                assert_eq!(judged, Outcome::Committed(last));
            }
            last
        });
    }
    writers.join_all().await;
    for store in [&here, &there] {
        assert_eq!(value(store, "k").await.unwrap(), "299");
        let keys = store.list("").await.unwrap().records;
        assert!(
            keys.iter()
                .all(|one| !one.key.contains("mark") && !one.key.contains(':'))
        );
        assert_eq!(
            keys.iter()
                .filter(|one| !one.key.starts_with("store/"))
                .count(),
            1
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_restores_from_a_file_to_etcd_and_back() {
    let Some(etcd) = Etcd::start(1) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let file = Store::embedded(at("one.db"), Options::default()).unwrap();
    for index in 0..500 {
        put(&file, &format!("k/{index}"), &index.to_string())
            .await
            .unwrap();
    }
    file.backup()
        .await
        .unwrap()
        .write_to(&at("backup"))
        .unwrap();
    // So that it is known to be there.
    open(&etcd, "other").await.close().await;
    let spec: Spec = format!("etcd:{}", etcd.address("restored"))
        .parse()
        .unwrap();
    let restored = restore(at("backup"), &spec, Options::default())
        .await
        .unwrap();
    assert_eq!(restored.records, 500);
    let store = open(&etcd, "restored").await;
    assert_eq!(store.epoch(), restored.epoch);
    assert!(store.epoch() > file.epoch());
    assert_eq!(value(&store, "k/499").await.unwrap(), "499");
    let taken = restore(at("backup"), &spec, Options::default())
        .await
        .unwrap_err();
    assert!(matches!(taken, RestoreError::Taken { .. }), "{taken}");

    put(&store, "k/500", "500").await.unwrap();
    store
        .backup()
        .await
        .unwrap()
        .write_to(&at("again"))
        .unwrap();
    let back = Spec::Embedded(at("two.db"));
    let restored = restore(at("again"), &back, Options::default())
        .await
        .unwrap();
    assert_eq!(restored.records, 501);
    let file = Store::embedded(at("two.db"), Options::default()).unwrap();
    assert!(file.epoch() > store.epoch());
    assert_eq!(value(&file, "k/500").await.unwrap(), "500");
    assert!(value(&file, "store/epoch").await.is_none());
}

/// Certificates in PEM files: an authority's, and one signed by it for this host, to serve and to show.
fn certificates(folder: &Path) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let own = own.signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), own.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tls_each_side_shows_who_it_is() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let arguments = ["--trusted-ca-file", "--cert-file", "--key-file"].into_iter();
    let files = ["ca.pem", "cert.pem", "key.pem"].map(file);
    let pairs = arguments.zip(files.clone());
    let arguments = pairs.flat_map(|(name, file)| [name.to_owned(), file]);
    let arguments = arguments.chain(["--client-cert-auth".to_owned()]);
    let Some(mut etcd) = Etcd::start_with(1, "https", arguments.collect()) else {
        return;
    };
    let [ca, cert, key] = &files;
    let store = open(&etcd, &format!("tls?ca={ca}&cert={cert}&key={key}")).await;
    put(&store, "a", "1").await.unwrap();
    assert_eq!(value(&store, "a").await.unwrap(), "1");
    for (why, query) in [
        ("shows nothing", format!("?ca={ca}")),
        ("trusts nobody", String::new()),
    ] {
        let refused = Store::etcd(&etcd.address(&format!("tls{query}")), options()).await;
        assert!(
            matches!(refused, Err(OpenError::Unreachable { .. })),
            "{why}: {refused:?}"
        );
    }
    // All of it is made anew, as before its end; etcd itself reads its authority at its start only.
    certificates(folder.path());
    etcd.kill(0);
    etcd.run(0);
    until("writes go on", async || put(&store, "a", "2").await.is_ok()).await;
    let absent = etcd.address("tls?ca=/nowhere/ca.pem");
    let refused = Store::etcd(&absent, options()).await.unwrap_err();
    assert!(refused.to_string().contains("/nowhere/ca.pem"), "{refused}");
}
