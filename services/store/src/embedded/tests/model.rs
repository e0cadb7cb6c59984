//! Random transactions and restarts, compared with a model that is too simple to be wrong.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::sim::SimDisk;
use super::*;
use crate::leadership::TERM_KEY;
use crate::record::{Batch, Revision};
use crate::transaction::{Condition, Outcome, Transaction};
use crate::watch::Watch;

#[derive(Clone, Debug)]
enum Step {
    Commit {
        conditions: Vec<(u8, Expect)>,
        writes: Vec<(u8, Option<u8>)>,
    },
    Reopen,
}

/// What a transaction expects of a key.
#[derive(Clone, Copy, Debug)]
enum Expect {
    Absent,
    Exists,
    /// It was last put by the revision that did so.
    Unchanged,
    /// It was last put by another revision than that.
    Changed,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let expect = prop_oneof![
        Just(Expect::Absent),
        Just(Expect::Exists),
        Just(Expect::Unchanged),
        Just(Expect::Changed),
    ];
    let commit = (
        prop::collection::vec((0..6_u8, expect), 0..3),
        prop::collection::vec((0..6_u8, prop::option::of(any::<u8>())), 0..5),
    );
    let commit = commit.prop_map(|(conditions, writes)| Step::Commit { conditions, writes });
    prop::collection::vec(prop_oneof![20 => commit, 1 => Just(Step::Reopen)], 1..120)
}

/// Value, created, modified.
type Model = BTreeMap<String, (Vec<u8>, u64, u64)>;

fn name(key: u8) -> String {
    format!("key/{key}")
}

fn value(seed: u8) -> Vec<u8> {
    vec![seed; usize::from(seed)]
}

/// The transaction, and the first key whose condition does not hold.
fn transaction(
    model: &Model,
    conditions: &[(u8, Expect)],
    writes: &[(u8, Option<u8>)],
) -> (Transaction, Option<String>) {
    let mut transaction = Transaction::new();
    let mut conflict = None;
    for (key, expect) in conditions {
        let key = name(*key);
        let modified = model.get(&key).map_or(0, |(_, _, modified)| *modified);
        let (condition, holds) = match expect {
            Expect::Absent => (Condition::Absent, modified == 0),
            Expect::Exists => (Condition::Exists, modified != 0),
            Expect::Unchanged => (Condition::ModifiedAt(Revision(modified)), modified != 0),
            Expect::Changed => (Condition::ModifiedAt(Revision(modified + 1)), false),
        };
        transaction = transaction.when(&*key, condition);
        if !holds && conflict.is_none() {
            conflict = Some(key);
        }
    }
    for (key, put) in writes {
        transaction = match put {
            Some(seed) => transaction.put(name(*key), value(*seed)),
            None => transaction.delete(name(*key)),
        };
    }
    (transaction, conflict)
}

/// Writes to the model; whether anything changed.
fn write(model: &mut Model, writes: &[(u8, Option<u8>)], revision: u64) -> bool {
    let last: BTreeMap<_, _> = writes.iter().copied().collect();
    let mut changed = false;
    for (key, put) in last {
        let before = model.get(&name(key)).map(|(_, created, _)| *created);
        changed |= before.is_some() || put.is_some();
        match put {
            Some(seed) => {
                let created = before.unwrap_or(revision);
                model.insert(name(key), (value(seed), created, revision));
            }
            None => drop(model.remove(&name(key))),
        }
    }
    changed
}

fn contents(subject: &Subject) -> Model {
    let listing = subject.shared.list("key/").unwrap();
    let entry = |record: Arc<crate::record::Record>| {
        let entry = (record.value.to_vec(), record.created.0, record.modified.0);
        (record.key.to_string(), entry)
    };
    listing.records.into_iter().map(entry).collect()
}

/// A model that only follows a watch.
fn follow(followed: &mut Model, batch: &Batch) {
    for change in &batch.changes {
        let key = change.key.to_string();
        let before = change
            .before
            .as_ref()
            .map(|record| (record.value.to_vec(), record.created.0, record.modified.0));
        assert_eq!(followed.remove(&key), before);
        if let Some(after) = &change.after {
            assert_eq!(after.modified, batch.revision);
            followed.insert(
                key,
                (after.value.to_vec(), after.created.0, after.modified.0),
            );
        }
    }
}

async fn play(steps: &[Step]) {
    let disk = SimDisk::holding(empty_disk());
    let mut subject = open(&disk).unwrap();
    let mut revision = subject.term.revision.0;
    let (mut model, mut followed) = (Model::new(), Model::new());
    let mut watch = Watch::new(Arc::clone(&subject.shared), "key/", Revision(revision)).unwrap();
    for step in steps {
        match step {
            Step::Commit { conditions, writes } => {
                let (transaction, conflict) = transaction(&model, conditions, writes);
                let outcome = subject.embedded.commit(transaction).await.unwrap();
                if let Some(expected) = conflict {
                    let actual = model
                        .get(&expected)
                        .map(|(_, _, modified)| Revision(*modified));
                    assert_eq!(
                        outcome,
                        Outcome::Conflict {
                            key: expected.into(),
                            actual
                        }
                    );
                    continue;
                }
                if write(&mut model, writes, revision + 1) {
                    revision += 1;
                    let batch = watch.next().await.unwrap();
                    assert_eq!(batch.revision, Revision(revision));
                    follow(&mut followed, &batch);
                }
                assert_eq!(outcome, Outcome::Committed(Revision(revision)));
            }
            Step::Reopen => {
                subject.embedded.close().await;
                subject = open(&disk).unwrap();
                watch =
                    Watch::new(Arc::clone(&subject.shared), "key/", Revision(revision)).unwrap();
                revision += 1;
                assert_eq!(subject.term.revision, Revision(revision));
                assert!(subject.shared.get(TERM_KEY).unwrap().is_some());
            }
        }
        assert_eq!(contents(&subject), model);
        assert_eq!(followed, model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: u32::try_from(rounds(64, 5_000)).unwrap(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn behaves_as_the_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(play(&steps));
    }
}

#[tokio::test]
async fn the_file_does_not_grow_with_the_number_of_transactions() {
    let disk = SimDisk::holding(empty_disk());
    let subject = open(&disk).unwrap();
    let mut sizes = Vec::new();
    for _ in 0..rounds(6, 60) {
        for index in 0..400 {
            let put = Transaction::new().put(format!("key/{}", index % 50), vec![b'v'; 400]);
            let _committed = subject.embedded.commit(put).await.unwrap();
        }
        sizes.push(disk.contents().len());
    }
    let (early, late) = sizes.split_at(sizes.len() / 2);
    assert_eq!(early.iter().max(), late.iter().max(), "{sizes:?}");
}
