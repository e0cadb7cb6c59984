//! Durable state with revisions, transactions and watches.
//!
//! A [`Store`] is an ordered map of keys to opaque values, changed only by [`Transaction`]s. Each that
//! changes something has the next [`Revision`]; all of one life of the data belong to one [`Epoch`].
//!
//! What holds on every backend:
//!
//! - Writes are linearizable. Transactions that one process queues are judged in order, each on the state left by those
//!   before it, each with a revision and an outcome of its own.
//! - A transaction is answered, and shown to readers and watches, only once it is durable. Whoever was
//!   answered, or was shown a revision, reads it from then on, also after the process was killed.
//! - A transaction happens whole or not at all, also for watches: one revision is one [`Batch`].
//! - A [`Watch`] misses nothing and repeats nothing, or says [`Error::Compacted`]. It never slows a writer.
//! - A failed write is final ([`Error::Failed`], [`Store::failed`]): it is never tried again, and nothing
//!   is written after it.
//!
//! The backends:
//!
//! - `memory:` keeps everything until the last handle is dropped. It has no thread and no clock of its
//!   own, which makes it the one for simulations.
//! - `embedded:PATH` is one file, written by one thread: it drains what is queued, judges it, writes it
//!   under one fsync, shows it, and answers. Readers are served from memory and never wait for the disk.
//!   The file is locked: [`Store::close`] it before it is opened again. What it looks like inside, and why,
//!   stands in `embedded/schema.rs`.
//!
//! Several instances of a component may share a store on a *cluster* that orders their transactions (etcd; for
//! simulations a [`MemoryCluster`]). Then, beside the above:
//!
//! - Each instance holds all records in memory and follows the cluster; a transaction is answered once its
//!   own instance shows it. Transactions that are in flight together may be judged in any order, and revisions
//!   have gaps, since others count them too.
//! - One instance at a time leads ([`Store::lead`]), and its writes can be fenced: they conflict once another
//!   leads, however late they come. Seats ([`Store::join`]) say which instances there are.
//! - A cluster that cannot be reached is not a failed store: reads go on, [`Store::age`] says how old they are,
//!   transactions are [`Error::Unavailable`], and all goes on after. Whoever leads lets the cluster forget what is
//!   older than an hour; an instance that was away for longer fails, and reads everything anew when it starts.
//!
//! `etcd:http://[USER:PASSWORD@]HOST:PORT[,HOST:PORT]/PREFIX` (or `https`, with `?ca=FILE&cert=FILE&key=FILE` where
//! those of the system will not do) is there with the cargo feature `etcd`, for etcd 3.4 and later. Several
//! stores may share one etcd by different prefixes.
//!
//! The history for watches is in memory: 100,000 revisions, 10 minutes or 128 MiB, whichever is least
//! ([`HistoryLimits`]). After a restart the latest revision can be resumed, and an older one gets
//! `Compacted`; a shared store begins with a revision of its own each time it is opened. [`Store::backup`] copies any store while it is written to; [`restore`] makes a new one from
//! the copy, in a later epoch.
//!
//! A backend keeps `Shared`, which serves all readers, in step with what is durable, and commits. A further
//! one is a variant of `Backend` in `store.rs`, or of `Cluster` in `cluster.rs`, and a `Fixture` of the conformance
//! tests.
//!
//! What this package never does: interpret a value, retry, or read a clock to decide what is committed.

mod backup;
mod cluster;
mod clustered;
mod codec;
mod embedded;
mod epoch;
mod error;
mod group;
mod history;
mod instance;
mod leadership;
mod memory;
mod open_error;
mod options;
mod record;
mod restore;
mod shared;
mod spec;
mod store;
mod transaction;
mod watch;

pub use backup::Backup;
pub use cluster::{Link, MemoryCluster};
pub use epoch::{Epoch, ParseEpochError};
pub use error::Error;
pub use history::HistoryLimits;
pub use instance::{Instance, Seat};
pub use leadership::{Leadership, TERM_KEY, Term};
pub use open_error::OpenError;
pub use options::{Leases, Options};
pub use record::{Batch, Change, Listing, Record, Revision};
pub use restore::{RestoreError, Restored, restore};
pub use spec::{ParseSpecError, Spec};
pub use store::Store;
pub use transaction::{Condition, MAX_BYTES, MAX_RECORDS, Outcome, Transaction};
pub use watch::Watch;
