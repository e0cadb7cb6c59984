//! The configuration file as text: what it says, and in which line that stands. It decides nothing about what may
//! stand there. What is said of it repeats no line: any may hold a secret, and others read what is said.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, Deserializer, Error};
use toml::{Spanned, Table};

/// A file that was read.
pub(super) struct ConfigFile {
    /// As it is named where something is said of it.
    name: String,
    text: String,
}

impl ConfigFile {
    /// Reads it. The error names it.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let name = format!("config file {}", path.display());
        match fs::read_to_string(path) {
            Ok(text) => Ok(Self { name, text }),
            Err(error) => Err(format!("{name}: {error}")),
        }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// All that it says.
    pub(super) fn table(&self) -> Result<Table, String> {
        self.text.parse().map_err(|error: Error| {
            let what = format!("not TOML: {}", error.message());
            self.wrong(error.span(), what)
        })
    }

    /// What its keys of `left` say together.
    pub(super) fn rest<T: DeserializeOwned>(&self, left: &Table) -> Result<T, String> {
        let mut document = self.document()?;
        let keys = document.get_mut();
        let names: Vec<_> = keys.keys().map(|key| key.get_ref().clone()).collect();
        for name in names.iter().filter(|name| !left.contains_key(&***name)) {
            keys.remove(&**name);
        }
        T::deserialize(Deserializer::from(document))
            .map_err(|error| self.wrong(error.span(), error.message()))
    }

    /// What is wrong with the value of a key, or with its item of this number.
    pub(super) fn wrong_at(
        &self,
        key: &str,
        item: Option<usize>,
        what: impl fmt::Display,
    ) -> String {
        let span = self.document().ok().and_then(|document| {
            let value = document.get_ref().get(key)?;
            let items = value.get_ref().as_array();
            let item = item.and_then(|index| items?.get(index));
            Some(item.unwrap_or(value).span())
        });
        self.wrong(span, what)
    }

    fn document(&self) -> Result<Spanned<DeTable<'_>>, String> {
        DeTable::parse(&self.text).map_err(|error| self.wrong(error.span(), error.message()))
    }

    fn wrong(&self, at: Option<Range<usize>>, what: impl fmt::Display) -> String {
        let before = self
            .text
            .as_bytes()
            .iter()
            .take(at.unwrap_or_default().start);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        format!("{}: line {line}: {what}", self.name)
    }
}
