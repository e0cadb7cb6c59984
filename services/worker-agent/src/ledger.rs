//! What must never be unlearned, however the agent ends: which allocations never start here again,
//! and up to which token each accelerator is served. Lines are added and put on disk; a line that
//! is only half there was never told to anyone. It decides when the file is written anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use crate::domain::holdings::REMEMBERED;
use crate::domain::ids::{AllocationId, FencingToken};
use crate::files::{self, Durability};

/// Room on the disk that is taken beforehand, in bytes: replicas may fill the rest. The file is written
/// anew once it has twice as much as then, and this at least.
const RESERVED: u64 = 1 << 20;

/// What the ledger says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Allocations that never start here; with true, the registry need not be told.
    pub ended: BTreeMap<AllocationId, bool>,
    /// The token that each accelerator is served at, by its uuid.
    pub tokens: BTreeMap<String, FencingToken>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An allocation never starts here; the registry has to be told.
    Ended(AllocationId),
    /// The same, and the registry need not be told.
    Told(AllocationId),
    /// An accelerator is served at this token.
    Token(String, FencingToken),
}

/// The ledger, open for adding.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    /// Absent if another one may have taken its place.
    file: Option<File>,
    /// Bytes of whole lines.
    length: u64,
    /// Something may stand behind them.
    torn: bool,
    /// It is written anew when it is longer.
    enough: u64,
    facts: Facts,
}

impl Ledger {
    /// Opens the ledger, and says what it holds. It is written anew without what is superseded, if
    /// there is room for that.
    pub fn open(path: &Path) -> io::Result<(Self, Facts)> {
        let text = files::read(path)?.unwrap_or_default();
        let whole = text.iter().rposition(|byte| *byte == b'\n');
        let whole = whole.map_or(0, |last| last + 1);
        let facts = parse(&String::from_utf8_lossy(&text[..whole]));
        let file = append_to(path)?;
        file.set_len(whole as u64)?;
        let mut ledger = Self {
            path: path.to_owned(),
            file: Some(file),
            length: whole as u64,
            torn: false,
            enough: 0,
            facts,
        };
        ledger.write_anew();
        let facts = ledger.facts.clone();
        Ok((ledger, facts))
    }

    /// Adds lines; on disk when it returns. On an error none of them is there.
    pub fn add(&mut self, entries: &[Entry]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = append_to(&self.path)?;
                self.length = file.metadata()?.len();
                self.file.insert(file)
            }
        };
        if self.torn {
            file.set_len(self.length)?;
        }
        let lines: String = entries.iter().map(print).collect();
        self.torn = true;
        file.write_all(lines.as_bytes())?;
        file.sync_data()?;
        self.torn = false;
        self.length += lines.len() as u64;
        for entry in entries {
            self.facts.note(entry.clone());
        }
        if self.length > self.enough {
            self.write_anew();
        }
        Ok(())
    }

    /// Writes it without what is superseded, and takes room for what is to come. Neither is needed: the
    /// file that is there has everything.
    fn write_anew(&mut self) {
        self.facts.forget_oldest();
        let text = print_all(&self.facts);
        let written = files::replace(&self.path, text.as_bytes(), Durability::Disk);
        self.file = None;
        match written.and_then(|()| append_to(&self.path)) {
            Ok(file) => {
                self.length = text.len() as u64;
                let room = self.length + RESERVED;
                let _ = fallocate(&file, FallocateFlags::KEEP_SIZE, 0, room);
                self.file = Some(file);
            }
            Err(error) => tracing::warn!(%error, "the ledger is not written anew"),
        }
        self.enough = (2 * self.length).max(RESERVED);
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

impl Facts {
    fn note(&mut self, entry: Entry) {
        match entry {
            Entry::Ended(id) => {
                self.ended.entry(id).or_insert(false);
            }
            Entry::Told(id) => {
                self.ended.insert(id, true);
            }
            Entry::Token(gpu, token) => {
                let seen = self.tokens.entry(gpu).or_insert_with(|| token.clone());
                if *seen < token {
                    *seen = token;
                }
            }
        }
    }

    /// As the holdings forget them.
    fn forget_oldest(&mut self) {
        let mut too_many = self.ended.len().saturating_sub(REMEMBERED);
        self.ended.retain(|_, told| {
            let goes = *told && too_many > 0;
            too_many -= usize::from(goes);
            !goes
        });
    }
}

fn print(entry: &Entry) -> String {
    match entry {
        Entry::Ended(id) => format!("ended {id}\n"),
        Entry::Told(id) => format!("told {id}\n"),
        Entry::Token(gpu, token) => format!("token {gpu} {}\n", token.0),
    }
}

fn print_all(facts: &Facts) -> String {
    let mut text = String::new();
    for (id, told) in &facts.ended {
        let word = if *told { "told" } else { "ended" };
        let _ = writeln!(text, "{word} {id}");
    }
    for (gpu, token) in &facts.tokens {
        let _ = writeln!(text, "token {gpu} {}", token.0);
    }
    text
}

/// Lines that are none are left out.
fn parse(text: &str) -> Facts {
    let mut facts = Facts::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let entry = match words.as_slice() {
            ["ended", id] => AllocationId::parse(id).ok().map(Entry::Ended),
            ["told", id] => AllocationId::parse(id).ok().map(Entry::Told),
            ["token", gpu, token] => {
                let token = FencingToken((*token).to_owned());
                Some(Entry::Token((*gpu).to_owned(), token))
            }
            _ => None,
        };
        if let Some(entry) = entry {
            facts.note(entry);
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> AllocationId {
        AllocationId::parse(text).unwrap()
    }

    fn token(gpu: &str, token: &str) -> Entry {
        Entry::Token(gpu.into(), FencingToken(token.into()))
    }

    #[test]
    fn what_was_added_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let (mut ledger, facts) = Ledger::open(&path).unwrap();
        assert_eq!(facts, Facts::default());
        ledger
            .add(&[Entry::Ended(id("a-1")), token("GPU-0", "e-1")])
            .unwrap();
        ledger
            .add(&[
                Entry::Ended(id("a-2")),
                Entry::Told(id("a-1")),
                token("GPU-0", "e-2"),
            ])
            .unwrap();
        drop(ledger);
        let (_, facts) = Ledger::open(&path).unwrap();
        assert_eq!(
            facts.ended,
            BTreeMap::from([(id("a-1"), true), (id("a-2"), false)])
        );
        assert_eq!(facts.tokens["GPU-0"], FencingToken("e-2".into()));
        assert_eq!(Ledger::open(&path).unwrap().1, facts);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
    }

    fn ended(path: &Path) -> BTreeMap<AllocationId, bool> {
        Ledger::open(path).unwrap().1.ended
    }

    #[test]
    fn half_a_line_was_never_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let text = "ended a-1\nrubbish\nended ../x\ntoken GPU-0 e-2\ntoken GPU-0 e-1\nended a-2";
        // Also where it cannot be written anew.
        for blocked in [true, false] {
            std::fs::write(&path, text).unwrap();
            let fresh = folder.path().join("ledger.new");
            if blocked {
                std::fs::create_dir(&fresh).unwrap();
            }
            let (mut ledger, facts) = Ledger::open(&path).unwrap();
            assert_eq!(facts.ended, BTreeMap::from([(id("a-1"), false)]));
            assert_eq!(facts.tokens["GPU-0"], FencingToken("e-2".into()));
            ledger.add(&[Entry::Ended(id("a-3"))]).unwrap();
            let expected = BTreeMap::from([(id("a-1"), false), (id("a-3"), false)]);
            assert_eq!(ended(&path), expected);
            if blocked {
                std::fs::remove_dir(&fresh).unwrap();
            }
        }
    }

    #[test]
    fn what_was_not_written_is_not_there_and_can_be_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let (mut ledger, _) = Ledger::open(&path).unwrap();
        ledger.add(&[Entry::Ended(id("a-1"))]).unwrap();
        ledger.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
        assert!(ledger.add(&[Entry::Ended(id("a-2"))]).is_err());
        let mut file = append_to(&path).unwrap();
        file.write_all(b"ended a-").unwrap();
        ledger.file = Some(file);
        ledger.add(&[Entry::Ended(id("a-3"))]).unwrap();
        let expected = BTreeMap::from([(id("a-1"), false), (id("a-3"), false)]);
        assert_eq!(ended(&path), expected);
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let (mut ledger, _) = Ledger::open(&path).unwrap();
        let long = "x".repeat(60);
        for thousand in 0..20 {
            let ids = (0..1000).map(|n| id(&format!("a-{long}{:06}", thousand * 1000 + n)));
            let ids: Vec<_> = ids.collect();
            let entries = ids.iter().map(|id| Entry::Ended(id.clone()));
            ledger.add(&entries.collect::<Vec<_>>()).unwrap();
            let entries = ids.iter().map(|id| Entry::Told(id.clone()));
            ledger.add(&entries.collect::<Vec<_>>()).unwrap();
        }
        let untold = id("a-0");
        ledger.add(&[Entry::Ended(untold.clone())]).unwrap();
        let size = std::fs::metadata(&path).unwrap().len();
        assert!(size < 2 * RESERVED, "{size}");
        drop(ledger);
        let left = ended(&path);
        assert_eq!(left.len(), REMEMBERED);
        assert_eq!(left.first_key_value(), Some((&untold, &false)));
        assert_eq!(
            left.last_key_value().unwrap().0,
            &id(&format!("a-{long}019999"))
        );
    }
}
