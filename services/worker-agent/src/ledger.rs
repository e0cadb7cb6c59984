//! What must never be unlearned, however the agent ends: which allocations never start here again,
//! and up to which token each accelerator is served. Lines are added and put on disk; a line that
//! is only half there was never told to anyone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::domain::ids::{AllocationId, FencingToken};
use crate::files::{self, Durability};

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
    file: File,
}

impl Ledger {
    /// Opens the ledger, and says what it holds. It is written anew without what is superseded.
    pub fn open(path: &Path) -> io::Result<(Self, Facts)> {
        let text = files::read(path)?.unwrap_or_default();
        let facts = parse(&String::from_utf8_lossy(&text));
        files::replace(path, print_all(&facts).as_bytes(), Durability::Disk)?;
        let file = OpenOptions::new().append(true).mode(0o600).open(path)?;
        Ok((Self { file }, facts))
    }

    /// Adds lines; on disk when it returns.
    pub fn add(&mut self, entries: &[Entry]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let lines: String = entries.iter().map(print).collect();
        self.file.write_all(lines.as_bytes())?;
        self.file.sync_data()
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

/// Lines that are none are left out: at the end one may be only half there.
fn parse(text: &str) -> Facts {
    let mut facts = Facts::default();
    for line in text
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
    {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["ended", id] => {
                if let Ok(id) = AllocationId::parse(id) {
                    facts.ended.entry(id).or_insert(false);
                }
            }
            ["told", id] => {
                if let Ok(id) = AllocationId::parse(id) {
                    facts.ended.insert(id, true);
                }
            }
            ["token", gpu, token] => {
                let token = FencingToken((*token).to_owned());
                let seen = facts
                    .tokens
                    .entry((*gpu).to_owned())
                    .or_insert(token.clone());
                if *seen < token {
                    *seen = token;
                }
            }
            _ => {}
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

    #[test]
    fn half_a_line_was_never_told() {
        let facts =
            parse("ended a-1\nrubbish\nended ../x\ntoken GPU-0 e-2\ntoken GPU-0 e-1\nended a-2");
        assert_eq!(facts.ended, BTreeMap::from([(id("a-1"), false)]));
        assert_eq!(facts.tokens["GPU-0"], FencingToken("e-2".into()));
    }
}
