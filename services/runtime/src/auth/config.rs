//! The `[[auth]]` entries of the configuration file: who has which role, and what proves it.

use std::fmt::Write as _;

use serde::Deserialize;

use super::Role;

/// Someone who may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// How they are called in logs and histories.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// What shows that it is them.
    pub proof: Proof,
}

/// What shows who someone is.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// A bearer token with this SHA-256.
    Token([u8; 32]),
    /// A certificate with this subject alternative name; `*.example.org` covers one label.
    San(String),
}

impl Proof {
    pub(super) fn is_pattern(&self) -> bool {
        matches!(self, Self::San(san) if san.starts_with("*."))
    }

    pub(super) fn covers(&self, san: &str) -> bool {
        let Self::San(expected) = self else {
            return false;
        };
        match expected.strip_prefix("*.") {
            Some(suffix) => san.split_once('.').is_some_and(|(label, rest)| {
                // A URI is no host, whatever it ends with.
                let is_label = !label.is_empty() && !label.contains([':', '/', '@']);
                is_label && rest.eq_ignore_ascii_case(suffix)
            }),
            // The case of a URI's path means something.
            None if expected.contains(':') => san == expected,
            None => san.eq_ignore_ascii_case(expected),
        }
    }
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(_) => to.write_str("Token"),
            Self::San(san) => write!(to, "San({san})"),
        }
    }
}

/// An entry that makes no sense, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[[auth]] {words}")]
pub struct Rejected {
    words: String,
    entry: Option<usize>,
}

impl Rejected {
    /// Which entry that is, counted from 0; none where there are no entries to count.
    pub fn entry(&self) -> Option<usize> {
        self.entry
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    role: String,
    san: Option<String>,
    token_sha256: Option<String>,
}

/// Reads the array `auth` of a configuration file.
pub fn read_entries(auth: toml::Value) -> Result<Vec<Entry>, Rejected> {
    let auth = Vec::<toml::Value>::deserialize(auth).map_err(|error| Rejected {
        words: error.message().to_owned(),
        entry: None,
    })?;
    let mut entries: Vec<Entry> = Vec::new();
    for (index, raw) in auth.into_iter().enumerate() {
        let entry = read_entry(raw).and_then(|entry| {
            let is_taken = entries.iter().any(|other| other.proof == entry.proof);
            match is_taken {
                true => Err(format!("{}: another entry has the same proof", entry.name)),
                false => Ok(entry),
            }
        });
        entries.push(entry.map_err(|words| Rejected {
            words,
            entry: Some(index),
        })?);
    }
    Ok(entries)
}

fn read_entry(raw: toml::Value) -> Result<Entry, String> {
    let raw = Raw::deserialize(raw).map_err(|error| error.message().to_owned())?;
    let Raw {
        name,
        role,
        san,
        token_sha256,
    } = raw;
    let rejected = |words: &str| Err(format!("{name:?}: {words}"));
    if name.is_empty() || name.contains(':') {
        return rejected("a name is not empty and has no \":\"");
    }
    let Some(role) = Role::ALL.into_iter().find(|known| known.name() == role) else {
        return rejected(&format!(
            "unknown role {role:?}; there are {}",
            role_names()
        ));
    };
    let proof = match (san, token_sha256) {
        (Some(san), None) if !san.is_empty() => Proof::San(san),
        (None, Some(hash)) => match read_hash(&hash) {
            Some(hash) => Proof::Token(hash),
            None => return rejected("token_sha256 is not 64 hexadecimal digits"),
        },
        _ => return rejected("give one of san and token_sha256"),
    };
    Ok(Entry { name, role, proof })
}

fn role_names() -> String {
    let mut names = String::new();
    for role in Role::ALL
        .into_iter()
        .filter(|role| *role != Role::Anonymous)
    {
        let comma = if names.is_empty() { "" } else { ", " };
        let _ = write!(names, "{comma}{}", role.name());
    }
    names
}

fn read_hash(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut hash = [0; 32];
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(hash)
}
