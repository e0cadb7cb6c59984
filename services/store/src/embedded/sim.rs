//! A disk for tests: it forgets what was not synced when its power is cut, and fails when told to.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

/// What survives or not as a whole when the power is cut.
const SECTOR: usize = 512;

/// What happens from some operation on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Writes and growing say that the disk is full; fsync and reading work.
    Full,
    /// fsync says that it failed.
    Sync,
    /// Nothing works.
    PowerCut,
}

/// A disk whose clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct SimDisk(Arc<Mutex<Sim>>);

#[derive(Debug, Default)]
struct Sim {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Unsynced>,
    operations: u64,
    fault: Option<(u64, Fault)>,
}

#[derive(Debug)]
enum Unsynced {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl SimDisk {
    /// A disk with these contents, all durable.
    pub(super) fn holding(contents: Vec<u8>) -> Self {
        let disk = Self::default();
        {
            let mut sim = disk.sim();
            sim.durable.clone_from(&contents);
            sim.current = contents;
        }
        disk
    }

    /// From the given number of writing operations from now on, the fault.
    pub(super) fn fail_after(&self, operations: u64, fault: Fault) {
        let mut sim = self.sim();
        sim.fault = Some((sim.operations + operations, fault));
    }

    /// The number of writing operations so far.
    pub(super) fn operations(&self) -> u64 {
        self.sim().operations
    }

    /// What is on the disk as the programs see it.
    pub(super) fn contents(&self) -> Vec<u8> {
        self.sim().current.clone()
    }

    /// What may be on the disk after a power cut now: `keep` decides for each sector that was not synced.
    pub(super) fn after_power_cut(&self, mut keep: impl FnMut() -> bool) -> Vec<u8> {
        let sim = self.sim();
        let mut disk = sim.durable.clone();
        for operation in &sim.unsynced {
            match operation {
                Unsynced::Length(length) => {
                    if keep() {
                        disk.resize(*length, 0);
                    }
                }
                Unsynced::Write(offset, data) => {
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        let at = offset + index * SECTOR;
                        if at + sector.len() <= disk.len() && keep() {
                            disk[at..at + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        disk
    }

    /// Nothing that is asked of the disk ends until what this returns is dropped.
    pub(super) fn stand_still(&self) -> impl Sized {
        self.sim()
    }

    fn sim(&self) -> MutexGuard<'_, Sim> {
        self.0.lock().unwrap()
    }
}

impl Sim {
    fn fault(&self) -> Option<Fault> {
        let (at, fault) = self.fault?;
        (self.operations > at).then_some(fault)
    }

    /// Counts a writing operation, and refuses it if it is one of those that the fault is for.
    fn operate(&mut self, refused: &[Fault]) -> io::Result<()> {
        self.operations += 1;
        match self.fault() {
            Some(fault) if refused.contains(&fault) => Err(match fault {
                Fault::Full => {
                    io::Error::new(io::ErrorKind::StorageFull, "no space left on device")
                }
                Fault::Sync => io::Error::other("input/output error"),
                Fault::PowerCut => io::Error::other("the power is cut"),
            }),
            _ => Ok(()),
        }
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl StorageBackend for SimDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.sim().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let sim = self.sim();
        let from = at(offset);
        let found = sim.current.get(from..from + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut sim = self.sim();
        sim.operate(&[Fault::Full, Fault::PowerCut])?;
        sim.current.resize(at(len), 0);
        sim.unsynced.push(Unsynced::Length(at(len)));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut sim = self.sim();
        sim.operate(&[Fault::Sync, Fault::PowerCut])?;
        for operation in std::mem::take(&mut sim.unsynced) {
            match operation {
                Unsynced::Length(length) => sim.durable.resize(length, 0),
                Unsynced::Write(from, data) => {
                    sim.durable[from..from + data.len()].copy_from_slice(&data);
                }
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut sim = self.sim();
        sim.operate(&[Fault::Full, Fault::PowerCut])?;
        let from = at(offset);
        sim.current[from..from + data.len()].copy_from_slice(data);
        sim.unsynced.push(Unsynced::Write(from, data.to_vec()));
        Ok(())
    }
}
