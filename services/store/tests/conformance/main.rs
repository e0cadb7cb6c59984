//! The promises of the store, checked on each backend. A further backend is one more [`Fixture`] and one
//! more line at the end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test stops at the first fault"
)]

#[cfg(feature = "etcd")]
#[path = "../support/etcd.rs"]
mod etcd;
mod reads;
mod transactions;
mod watches;
mod whole;

use std::sync::OnceLock;

#[cfg(feature = "etcd")]
use muster_store::OpenError;
use muster_store::{HistoryLimits, MemoryCluster, Options, Outcome, Revision, Store, Transaction};
use tempfile::TempDir;

/// Where a suite's stores come from.
trait Fixture: Sized {
    /// The backend, unless it is not there, which it says.
    fn found() -> Option<Self>;

    /// A new, empty store.
    async fn store(&self, options: Options) -> Store;
}

struct Memory;

impl Fixture for Memory {
    fn found() -> Option<Self> {
        Some(Self)
    }

    async fn store(&self, options: Options) -> Store {
        Store::memory_with(options)
    }
}

#[derive(Default)]
struct Embedded {
    directory: OnceLock<TempDir>,
}

impl Fixture for Embedded {
    fn found() -> Option<Self> {
        Some(Self::default())
    }

    async fn store(&self, options: Options) -> Store {
        let directory = self.directory.get_or_init(|| tempfile::tempdir().unwrap());
        let file = format!("{}.db", options.epoch);
        Store::embedded(directory.path().join(file), options).unwrap()
    }
}

/// A cluster in memory for each store.
struct Clustered;

impl Fixture for Clustered {
    fn found() -> Option<Self> {
        Some(Self)
    }

    async fn store(&self, options: Options) -> Store {
        let cluster = MemoryCluster::new();
        let opened = cluster.open("/muster/test/", options).await;
        opened.unwrap().0
    }
}

/// A prefix for each store, on an etcd of one member.
#[cfg(feature = "etcd")]
struct RealEtcd {
    server: etcd::Etcd,
}

#[cfg(feature = "etcd")]
impl Fixture for RealEtcd {
    fn found() -> Option<Self> {
        let server = etcd::Etcd::start(1)?;
        Some(Self { server })
    }

    async fn store(&self, options: Options) -> Store {
        let address = self.server.address(&format!("muster/{}", options.epoch));
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            match Store::etcd(&address, options).await {
                Ok(store) => return store,
                // It has only just been started.
                Err(OpenError::Unreachable { .. }) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Options that keep the history of so many revisions.
fn history(revisions: usize) -> Options {
    let history = HistoryLimits {
        revisions,
        ..HistoryLimits::default()
    };
    Options {
        history,
        ..Options::default()
    }
}

/// Commits what cannot conflict.
async fn commit(store: &Store, transaction: Transaction) -> Revision {
    match store.commit(transaction).await.unwrap() {
        Outcome::Committed(revision) => revision,
        conflict @ Outcome::Conflict { .. } => panic!("{conflict:?}"),
    }
}

async fn put(store: &Store, key: &str, value: &str) -> Revision {
    commit(store, Transaction::new().put(key, value.to_owned())).await
}

macro_rules! conformance {
    ($($suite:ident: $($test:ident),+;)+) => {
        on_backend!(memory, Memory; $($suite: $($test),+;)+);
        on_backend!(embedded, Embedded; $($suite: $($test),+;)+);
        on_backend!(clustered, Clustered; $($suite: $($test),+;)+);
        #[cfg(feature = "etcd")]
        on_backend!(etcd_server, RealEtcd; $($suite: $($test),+;)+);
    };
}

macro_rules! on_backend {
    ($backend:ident, $fixture:ident; $($suite:ident: $($test:ident),+;)+) => {
        mod $backend {
            $(mod $suite {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $test() {
                        if let Some(fixture) = <crate::$fixture as crate::Fixture>::found() {
                            crate::$suite::$test(&fixture).await;
                        }
                    }
                )+
            })+
        }
    };
}

conformance! {
    transactions:
        conditions_hold_or_conflict,
        a_conflict_changes_nothing,
        a_transaction_is_whole,
        what_changes_nothing_takes_no_revision,
        the_last_word_on_a_key_counts,
        a_key_deleted_and_put_again_is_created_anew,
        queued_transactions_are_judged_in_order,
        compare_and_swap_loses_no_increment,
        the_size_is_bounded,
        any_text_is_a_key_and_any_bytes_a_value,
        a_dropped_commit_harms_nothing;
    reads:
        a_list_has_its_prefix_in_order,
        a_list_is_of_one_revision,
        what_was_answered_is_read_everywhere;
    watches:
        a_change_has_before_and_after,
        one_revision_is_one_batch_in_its_order,
        watches_have_no_gaps_under_concurrent_writers,
        a_watch_resumes_anywhere_in_the_history,
        forgotten_and_future_revisions_are_refused,
        a_slow_watch_is_told_to_list_again,
        waiting_for_a_change_can_be_given_up,
        no_change_is_slept_through;
    whole:
        closing_finishes_what_is_queued,
        a_closed_store_says_so,
        a_closed_store_has_not_failed,
        a_stale_leader_is_fenced_off,
        leadership_lasts_until_the_end,
        a_seat_is_held_until_the_end,
        a_backup_is_of_one_revision_and_restores_to_a_new_epoch;
}
