//! Power cuts at every kind of moment, full disks and failing fsyncs: whatever was acknowledged is there
//! afterwards, nothing is half done, and nobody was shown what is not there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::sim::{Fault, SimDisk};
use super::{Dice, Subject, empty_disk, open, rounds};
use crate::error::Error;
use crate::leadership::TERM_KEY;
use crate::open_error::OpenError;
use crate::record::Revision;
use crate::transaction::{Outcome, Transaction};
use crate::watch::Watch;

type State = BTreeMap<String, Vec<u8>>;

/// What the store must hold after each of the transactions that were tried, and which were acknowledged.
struct Ledger {
    states: Vec<State>,
    acknowledged: usize,
    revision: Revision,
}

impl Ledger {
    fn new() -> Self {
        Self {
            states: vec![State::new()],
            acknowledged: 0,
            revision: Revision(0),
        }
    }

    /// The next transaction: all of three keys get its number, and some others come and go.
    fn next(&mut self, dice: &mut Dice) -> Transaction {
        let number = self.states.len();
        let mut state = self.states[number - 1].clone();
        let mut transaction = Transaction::new();
        for key in ["a", "b", "c"] {
            let mut value = format!("{number}:").into_bytes();
            value.resize(value.len() + usize::try_from(dice.roll(300)).unwrap(), b'.');
            transaction = transaction.put(key, value.clone());
            state.insert(key.to_owned(), value);
        }
        for _ in 0..dice.roll(3) {
            let key = format!("x/{}", dice.roll(40));
            if dice.roll(3) == 0 {
                transaction = transaction.delete(&*key);
                state.remove(&key);
            } else {
                transaction = transaction.put(&*key, vec![b'x'; 100]);
                state.insert(key, vec![b'x'; 100]);
            }
        }
        self.states.push(state);
        transaction
    }

    /// Commits, three transactions at a time, until the store fails.
    async fn play(&mut self, subject: &Subject, dice: &mut Dice) -> Error {
        loop {
            let first = self.states.len();
            let [one, two, three] = std::array::from_fn(|_| self.next(dice));
            let embedded = &subject.embedded;
            let (one, two, three) = tokio::join!(
                embedded.commit(one),
                embedded.commit(two),
                embedded.commit(three),
            );
            for (index, outcome) in [one, two, three].into_iter().enumerate() {
                match outcome {
                    Ok(Outcome::Committed(revision)) => {
                        self.acknowledged = first + index;
                        assert!(revision > self.revision);
                        self.revision = revision;
                    }
                    Ok(conflict) => panic!("{conflict:?}"),
                    Err(error) => return error,
                }
            }
        }
    }

    /// The store holds one of the states since the last acknowledged one; goes on from that one.
    fn check(&mut self, subject: &Subject) {
        let listing = subject.shared.list("").unwrap();
        assert!(listing.revision >= self.revision);
        assert_eq!(listing.revision, subject.term.revision);
        let state = listing
            .records
            .into_iter()
            .filter(|record| &*record.key != TERM_KEY);
        let state: State = state
            .map(|record| (record.key.to_string(), record.value.to_vec()))
            .collect();
        let found =
            (self.acknowledged..self.states.len()).find(|index| self.states[*index] == state);
        let found = found.expect("a state that was never acknowledged, or torn, or too old");
        self.states.truncate(found + 1);
        self.acknowledged = found;
        self.revision = listing.revision;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn power_cuts_lose_nothing_and_tear_nothing() {
    let empty = empty_disk();
    let runtime = runtime();
    for seed in 0..rounds(30, 3_000) {
        let mut dice = Dice(seed);
        let mut ledger = Ledger::new();
        let mut contents = empty.clone();
        for _ in 0..4 {
            let disk = SimDisk::holding(contents);
            disk.fail_after(dice.roll(400), Fault::PowerCut);
            match open(&disk) {
                Ok(subject) => {
                    ledger.check(&subject);
                    let error = runtime.block_on(ledger.play(&subject, &mut dice));
                    assert!(matches!(error, Error::Failed(_)), "{error:?}");
                }
                Err(OpenError::Io { .. } | OpenError::Damaged { .. }) => {}
                Err(other) => panic!("{other}"),
            }
            let kept = dice.roll(5);
            contents = disk.after_power_cut(|| dice.roll(4) < kept);
        }
        let subject = open(&SimDisk::holding(contents))
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        ledger.check(&subject);
    }
}

#[test]
fn a_failed_write_is_final_and_leaves_what_was_acknowledged() {
    let empty = empty_disk();
    let runtime = runtime();
    for seed in 0..rounds(40, 1_000) {
        let mut dice = Dice(seed);
        let fault = if seed % 2 == 0 {
            Fault::Full
        } else {
            Fault::Sync
        };
        let disk = SimDisk::holding(empty.clone());
        let mut ledger = Ledger::new();
        let subject = open(&disk).unwrap();
        let shown = subject.shared.revision().unwrap();
        let mut watch = Watch::new(Arc::clone(&subject.shared), "", shown).unwrap();
        disk.fail_after(dice.roll(300), fault);
        let error = runtime.block_on(ledger.play(&subject, &mut dice));
        let Error::Failed(reason) = &error else {
            panic!("{error:?}");
        };
        assert!(reason.starts_with("cannot write simulated: "), "{reason}");
        assert_eq!(subject.shared.open(), Err(error.clone()));
        runtime.block_on(async {
            for revision in shown.0 + 1..=ledger.revision.0 {
                assert_eq!(watch.next().await.unwrap().revision, Revision(revision));
            }
            assert_eq!(watch.next().await, Err(error.clone()));
        });
        let operations = disk.operations();
        let again = runtime.block_on(
            subject
                .embedded
                .commit(Transaction::new().put("a", "later")),
        );
        assert_eq!(again, Err(error.clone()));
        assert_eq!(disk.operations(), operations, "it wrote again");
        assert_eq!(
            subject.shared.revision(),
            Ok(ledger.revision.max(shown)),
            "it shows more than was acknowledged"
        );
        runtime.block_on(subject.embedded.close());
        ledger.check(&open(&SimDisk::holding(disk.contents())).unwrap());
    }
}

#[test]
fn a_disk_that_stands_still_is_seen_until_it_goes_on() {
    let disk = SimDisk::holding(empty_disk());
    let subject = open(&disk).unwrap();
    let embedded = &subject.embedded;
    let some = Duration::from_millis(50);
    runtime().block_on(async {
        let still = disk.stand_still();
        let mut commit = std::pin::pin!(embedded.commit(Transaction::new().put("a", "1")));
        let seen = async {
            while embedded.writing() < some {
                tokio::time::sleep(some / 10).await;
            }
        };
        tokio::select! {
            outcome = commit.as_mut() => panic!("{outcome:?}"),
            seen = tokio::time::timeout(Duration::from_secs(60), seen) => seen.unwrap(),
        }
        drop(still);
        assert!(matches!(commit.await, Ok(Outcome::Committed(_))));
        assert_eq!(embedded.writing(), Duration::ZERO);
    });
}
