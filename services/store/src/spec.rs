//! The words by which a user chooses a store. Parsing opens nothing.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Which store to open: `memory:`, `embedded:PATH` or `etcd:http://HOST:PORT[,...]/prefix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// Lost with the process.
    Memory,
    /// One file.
    Embedded(PathBuf),
    /// An etcd cluster: what stands after `etcd:`.
    Etcd(String),
}

/// The text names no store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{:?} names no store: use memory:, embedded:PATH or etcd:http://HOST:PORT[,HOST:PORT]/prefix",
    without_password(.0)
)]
pub struct ParseSpecError(String);

impl Spec {
    /// The file that everything is in, if it is one on this machine.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Embedded(path) => Some(path),
            Self::Memory | Self::Etcd(_) => None,
        }
    }

    /// The part of it that belongs to a component: all components may be told the same etcd and prefix, and
    /// each keeps what is its own under its name. A file is one component's anyway.
    #[must_use]
    pub fn part_of(&self, component: &str) -> Self {
        let Self::Etcd(address) = self else {
            return self.clone();
        };
        let (place, options) = match address.split_once('?') {
            Some((place, options)) => (place, format!("?{options}")),
            None => (address.as_str(), String::new()),
        };
        let place = place.trim_end_matches('/');
        Self::Etcd(format!("{place}/{component}{options}"))
    }
}

impl FromStr for Spec {
    type Err = ParseSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || ParseSpecError(text.to_owned());
        let (kind, rest) = text.split_once(':').ok_or_else(unknown)?;
        match kind {
            "memory" if rest.is_empty() => Ok(Self::Memory),
            "embedded" if !rest.is_empty() => Ok(Self::Embedded(PathBuf::from(rest))),
            "etcd" if rest.starts_with("http://") || rest.starts_with("https://") => {
                Ok(Self::Etcd(rest.to_owned()))
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => formatter.write_str("memory:"),
            Self::Embedded(path) => write!(formatter, "embedded:{}", path.display()),
            Self::Etcd(rest) => write!(formatter, "etcd:{}", without_password(rest)),
        }
    }
}

/// An address as it may be shown and logged.
fn without_password(address: &str) -> Cow<'_, str> {
    let scheme = address.find("://").map_or(0, |at| at + 3);
    let hosts_end = address[scheme..]
        .find(['/', '?'])
        .map_or(address.len(), |at| scheme + at);
    // A password may have slashes of its own: what stands before the last @ is never shown.
    let user_end = address.rfind('@').filter(|at| *at >= scheme);
    let Some(user_end) = user_end else {
        return Cow::Borrowed(address);
    };
    let name_end = address[scheme..user_end]
        .find(':')
        .map_or(user_end, |at| scheme + at);
    let name = address.get(scheme..name_end.min(hosts_end)).unwrap_or("");
    Cow::Owned(format!(
        "{}{name}:***{}",
        &address[..scheme],
        &address[user_end..]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_and_shown_alike() {
        for text in [
            "memory:",
            "embedded:/var/lib/muster/workers.db",
            "etcd:http://a:1,b:2/p",
        ] {
            let spec: Spec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
        }
    }

    #[test]
    fn each_component_has_a_part_of_a_cluster_of_its_own() {
        for (text, part) in [
            ("memory:", "memory:"),
            ("embedded:/a/b.db", "embedded:/a/b.db"),
            ("etcd:http://a:1,b:2/p", "etcd:http://a:1,b:2/p/x"),
            ("etcd:http://a:1", "etcd:http://a:1/x"),
            (
                "etcd:https://a:1/p/?ca=/etc/ca.crt",
                "etcd:https://a:1/p/x?ca=/etc/ca.crt",
            ),
        ] {
            let spec: Spec = text.parse().unwrap();
            assert_eq!(spec.part_of("x").to_string(), part);
        }
    }

    #[test]
    fn no_password_is_shown() {
        for (text, shown) in [
            (
                "etcd:http://me:secret@a:1,b:2/p",
                "etcd:http://me:***@a:1,b:2/p",
            ),
            ("etcd:http://me:s:e@cret@a:1/p", "etcd:http://me:***@a:1/p"),
            (
                "etcd:https://me:se/cret@a:1/p?ca=x",
                "etcd:https://me:***@a:1/p?ca=x",
            ),
        ] {
            assert_eq!(text.parse::<Spec>().unwrap().to_string(), shown);
        }
        for text in ["etcd:me:hush@a:1/p", "etcd:htp://me:hush@a:1/p"] {
            let error = text.parse::<Spec>().unwrap_err().to_string();
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn all_else_is_refused_with_the_choices() {
        for text in [
            "",
            "memory",
            "memory:x",
            "embedded:",
            "etcd:a:1",
            "sqlite:x",
        ] {
            let error = text.parse::<Spec>().unwrap_err();
            assert!(error.to_string().contains("embedded:PATH"), "{error}");
        }
    }
}
