//! Reads one table of the config file key by key, and collects everything that is wrong with it,
//! each with its line. It knows no key: whoever asks for one says what may stand there.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use muster_model::suggest;
use muster_runtime::args::parse_duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong: the table, the key, and what is allowed.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "line {}: {}", self.line, self.what)
    }
}

/// Everything that is wrong with a file so far.
#[derive(Debug)]
pub(super) struct Problems<'a> {
    text: &'a str,
    found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self {
            text,
            found: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, at: &Range<usize>, what: String) {
        let before = self.text.as_bytes().iter().take(at.start);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        self.found.push(Problem { line, what });
    }

    /// In order of line.
    pub(super) fn into_sorted(mut self) -> Vec<Problem> {
        self.found.sort();
        self.found
    }
}

/// A table that is read key by key. What has not been asked for in the end is unknown.
pub(super) struct Reader<'a, 'i> {
    table: &'a DeTable<'i>,
    /// Where the table is.
    span: Range<usize>,
    /// What the table is called, such as `backend "azure"`; empty for the file itself.
    name: String,
    known: Vec<&'static str>,
    tolerated: Vec<&'static str>,
}

impl<'a, 'i> Reader<'a, 'i> {
    pub(super) fn new(table: &'a DeTable<'i>, span: Range<usize>, name: String) -> Self {
        Self {
            table,
            span,
            name,
            known: Vec::new(),
            tolerated: Vec::new(),
        }
    }

    pub(super) fn rename(&mut self, name: String) {
        self.name = name;
    }

    /// Whether the table has the key. Does not make it known.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// Takes a key out of what is unknown, though it is none that may be used.
    pub(super) fn tolerate(&mut self, key: &'static str) {
        self.tolerated.push(key);
    }

    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// Says what is wrong with the value of a key.
    pub(super) fn complain(&self, key: &str, what: impl fmt::Display, problems: &mut Problems<'_>) {
        let at = self
            .table
            .get(key)
            .map_or_else(|| self.span.clone(), Spanned::span);
        let place = self.place();
        problems.add(&at, format!("{place}{key}: {what}"));
    }

    /// Says that a key is missing that is needed.
    pub(super) fn missing(&self, what: impl fmt::Display, problems: &mut Problems<'_>) {
        problems.add(&self.span, format!("{}{what}", self.place()));
    }

    /// A text, as `parse` reads it; the value is never shown, since it may be a secret.
    pub(super) fn text<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
        problems: &mut Problems<'_>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.complain(key, format!("must be {allowed}"), problems);
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.complain(key, format!("{error}"), problems);
                None
            }
        }
    }

    /// A time from `least` to `most`.
    pub(super) fn time(
        &mut self,
        key: &'static str,
        within: (Duration, Duration),
        problems: &mut Problems<'_>,
    ) -> Option<Duration> {
        let (least, most) = within;
        let parse = |text: &str| {
            let time = parse_duration(text)?;
            if (least..=most).contains(&time) {
                Ok(time)
            } else {
                let (least, most) = (print(least), print(most));
                Err(format!("{text:?} is not from {least} to {most}"))
            }
        };
        let allowed = "a time in quotes, such as \"30s\" or \"5m\"";
        self.text(key, allowed, parse, problems)
    }

    /// A whole number from `least` to `most`.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        within: (u32, u32),
        problems: &mut Problems<'_>,
    ) -> Option<u32> {
        let value = self.value(key)?;
        let number = value
            .get_ref()
            .as_integer()
            .filter(|number| number.radix() == 10)
            .and_then(|number| number.as_str().parse::<u32>().ok());
        let (least, most) = within;
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let what = format!("must be a whole number from {least} to {most}");
            self.complain(key, what, problems);
        }
        number
    }

    /// A number above 0.
    pub(super) fn weight(&mut self, key: &'static str, problems: &mut Problems<'_>) -> Option<f64> {
        let value = self.value(key)?.get_ref();
        let text = value
            .as_float()
            .map(|float| float.as_str())
            .or_else(|| value.as_integer().map(|integer| integer.as_str()));
        let number = text.and_then(|text| text.parse::<f64>().ok());
        let number = number.filter(|number| number.is_finite() && *number > 0.0);
        if number.is_none() {
            self.complain(key, "must be a number above 0, such as 2.0", problems);
        }
        number
    }

    /// A table within this one.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<Reader<'a, 'i>> {
        let value = self.value(key)?;
        match value.get_ref().as_table() {
            Some(table) => {
                let name = format!("{}{key}", self.place());
                Some(Reader::new(table, value.span(), name))
            }
            None => {
                self.complain(key, "must be a table", problems);
                None
            }
        }
    }

    /// Every key that was not asked for is unknown. `others` are known elsewhere.
    pub(super) fn finish(self, others: &[&str], problems: &mut Problems<'_>) {
        for (key, _) in self.table.iter() {
            let word = key.get_ref().as_ref();
            let mut expected = self.known.iter().chain(&self.tolerated).chain(others);
            if expected.any(|expected| *expected == word) {
                continue;
            }
            let mut known: Vec<&str> = self.known.iter().chain(others).copied().collect();
            known.sort_unstable();
            known.dedup();
            let place = self.place();
            let what = match suggest::nearest(word, known.iter().copied()) {
                Some(near) => format!("unknown key {word}; did you mean {near}?"),
                None => format!("unknown key {word}; known are {}", known.join(", ")),
            };
            problems.add(&key.span(), format!("{place}{what}"));
        }
    }

    fn place(&self) -> String {
        if self.name.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.name)
        }
    }
}

fn print(duration: Duration) -> String {
    muster_model::quantity::duration::print(duration)
}
