//! The embedded store on simulated disks, at a pace that renews the image every few transactions.

mod damage;
mod faults;
mod model;
mod schema_versions;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use redb::Builder;

use super::disk::{self, Pace};
use super::load::Contents;
use super::sim::SimDisk;
use super::{Embedded, guard, start};
use crate::epoch::Epoch;
use crate::leadership::Term;
use crate::open_error::OpenError;
use crate::options::Options;
use crate::shared::Shared;

const PATH: &str = "simulated";

/// An open store.
struct Subject {
    embedded: Embedded,
    shared: Arc<Shared>,
    term: Term,
}

fn pace() -> Pace {
    Pace {
        least_journal: 3_000,
        least_slice: 700,
        sweep: 4,
    }
}

fn options() -> Options {
    Options {
        epoch: Epoch::new(UNIX_EPOCH + Duration::from_secs(1), 7),
        cache_bytes: 1024 * 1024,
        ..Options::default()
    }
}

/// The contents of a disk that holds an empty store.
fn empty_disk() -> Vec<u8> {
    let disk = SimDisk::default();
    let database = Builder::new().create_with_backend(disk.clone()).unwrap();
    disk::initialize(&database, &Contents::empty(options().epoch)).unwrap();
    drop(database);
    disk.contents()
}

fn open(disk: &SimDisk) -> Result<Subject, OpenError> {
    let path = Path::new(PATH);
    let (embedded, shared, term) = guard(path, || start(path, disk.clone(), &options(), pace()))?;
    Ok(Subject {
        embedded,
        shared,
        term,
    })
}

/// Repeatable chance (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// How many rounds to play: many where MUSTER_SOAK=1.
fn rounds(few: u64, many: u64) -> u64 {
    let soak = std::env::var("MUSTER_SOAK").is_ok_and(|value| value == "1");
    if soak { many } else { few }
}
