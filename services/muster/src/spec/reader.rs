//! Reads nodes as the values that a spec is made of, and collects every problem
//! with its line. Knows kinds of values; never a field of a spec.

use std::{collections::BTreeMap, time::Duration};

use muster_model::{quantity, suggest};

use super::{
    Problem,
    document::{Node, Value},
};

/// What is wrong with a document, in the order it was found.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn add(&mut self, entry: &Entry<'_>, message: impl AsRef<str>) {
        let node = entry.node;
        self.0.push(Problem::at(
            node.line,
            node.column,
            &entry.path,
            message.as_ref(),
        ));
    }

    /// The problems by line.
    pub(crate) fn into_sorted(mut self) -> Vec<Problem> {
        self.0.sort_by_key(|problem| (problem.line, problem.column));
        self.0
    }
}

/// A node and its path, such as `probes.ready.http`.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'n> {
    pub(crate) path: String,
    pub(crate) node: &'n Node,
}

/// The fields of a mapping, taken one by one; what is left over is unknown.
pub(crate) struct Fields<'n> {
    path: String,
    pairs: &'n [(Node, Node)],
    asked: Vec<&'static str>,
}

impl<'n> Entry<'n> {
    /// The document's root.
    pub(crate) fn root(node: &'n Node) -> Self {
        Self {
            path: String::new(),
            node,
        }
    }

    fn child(&self, name: &str, node: &'n Node) -> Self {
        let path = match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        Self { path, node }
    }

    /// The fields of a mapping.
    pub(crate) fn fields(&self, problems: &mut Problems) -> Option<Fields<'n>> {
        if let Value::Map(pairs) = &self.node.value {
            return Some(Fields {
                path: self.path.clone(),
                pairs,
                asked: Vec::new(),
            });
        }
        problems.add(
            self,
            format!("a mapping is needed here, not {}", self.node.kind()),
        );
        None
    }

    /// Whether it is a mapping.
    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// The items of a list.
    pub(crate) fn items(&self, problems: &mut Problems) -> Vec<Self> {
        let Value::List(items) = &self.node.value else {
            problems.add(
                self,
                format!("a list is needed here, not {}", self.node.kind()),
            );
            return Vec::new();
        };
        let place = |(at, node)| Self {
            path: format!("{}[{at}]", self.path),
            node,
        };
        items.iter().enumerate().map(place).collect()
    }

    /// The entries of a mapping with free keys.
    pub(crate) fn entries(&self, problems: &mut Problems) -> Vec<(String, Self)> {
        let Value::Map(pairs) = &self.node.value else {
            problems.add(
                self,
                format!("a mapping is needed here, not {}", self.node.kind()),
            );
            return Vec::new();
        };
        let place = |(key, node): &'n (Node, Node)| {
            let name = key.text().unwrap_or_default();
            (name.to_owned(), self.child(name, node))
        };
        pairs.iter().map(place).collect()
    }

    /// A text.
    pub(crate) fn text(&self, problems: &mut Problems) -> Option<String> {
        let text = self.node.text();
        if text.is_none() {
            problems.add(
                self,
                format!("a text is needed here, not {}", self.node.kind()),
            );
        }
        text.map(str::to_owned)
    }

    /// A list of texts.
    pub(crate) fn texts(&self, problems: &mut Problems) -> Vec<String> {
        let items = self.items(problems);
        items
            .iter()
            .filter_map(|item| item.text(problems))
            .collect()
    }

    /// A mapping of texts.
    pub(crate) fn text_map(&self, problems: &mut Problems) -> BTreeMap<String, String> {
        let entries = self.entries(problems);
        entries
            .into_iter()
            .filter_map(|(name, entry)| Some((name, entry.text(problems)?)))
            .collect()
    }

    /// `true` or `false`.
    pub(crate) fn truth(&self, problems: &mut Problems) -> Option<bool> {
        match &self.node.value {
            Value::Plain(text) if text == "true" => Some(true),
            Value::Plain(text) if text == "false" => Some(false),
            Value::Plain(_) | Value::Quoted(_) | Value::List(_) | Value::Map(_) => {
                problems.add(self, "has to be `true` or `false`");
                None
            }
        }
    }

    /// A whole number.
    pub(crate) fn count(&self, problems: &mut Problems) -> Option<i32> {
        let Value::Plain(text) = &self.node.value else {
            problems.add(
                self,
                format!("a whole number is needed here, not {}", self.node.kind()),
            );
            return None;
        };
        let number = text.parse().ok();
        if number.is_none() {
            problems.add(self, format!("`{text}` is not a whole number"));
        }
        number
    }

    /// A number.
    pub(crate) fn number(&self, problems: &mut Problems) -> Option<f64> {
        let number = self.node.text().and_then(|text| text.parse::<f64>().ok());
        let number = number.filter(|number| number.is_finite());
        if number.is_none() {
            problems.add(self, "a number is needed here");
        }
        number
    }

    /// A duration such as `30s`.
    pub(crate) fn duration(&self, problems: &mut Problems) -> Option<Duration> {
        self.parsed(problems, quantity::duration::parse)
    }

    /// A text that `parse` understands.
    pub(crate) fn parsed<T, E: ToString>(
        &self,
        problems: &mut Problems,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(problems)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                problems.add(self, error.to_string());
                None
            }
        }
    }

    /// One of a closed list of words.
    pub(crate) fn word<T: Copy>(
        &self,
        problems: &mut Problems,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(problems)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let hint = suggest::hint(&text, allowed.iter().copied());
        problems.add(
            self,
            format!("`{text}` is not one of {}{hint}", allowed.join(", ")),
        );
        None
    }
}

impl<'n> Fields<'n> {
    /// The field of this name, unless it is absent or empty.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<Entry<'n>> {
        self.asked.push(name);
        let (_, node) = self
            .pairs
            .iter()
            .find(|(key, _)| key.text() == Some(name))?;
        let path = match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        (!node.is_null()).then_some(Entry { path, node })
    }

    /// Reports every field that was not asked for.
    pub(crate) fn finish(self, problems: &mut Problems) {
        self.finish_knowing(&[], problems);
    }

    /// The same, and says of a field that stands elsewhere where that is.
    pub(crate) fn finish_knowing(self, elsewhere: &[(&str, &str)], problems: &mut Problems) {
        for (key, _) in self.pairs {
            let name = key.text().unwrap_or_default();
            if self.asked.contains(&name) {
                continue;
            }
            let place = match self.path.as_str() {
                "" => "there is no such field in a service".to_owned(),
                path => format!("there is no such field in `{path}`"),
            };
            let entry = Entry {
                path: name.to_owned(),
                node: key,
            };
            let there = elsewhere.iter().find(|(field, _)| *field == name);
            let hint = match (there, suggest::hint(name, self.asked.iter().copied())) {
                (Some((_, path)), _) => format!("; it is `{path}`"),
                (None, hint) if hint.is_empty() => format!("; it has {}", self.asked.join(", ")),
                (None, hint) => hint,
            };
            problems.add(&entry, format!("{place}{hint}"));
        }
    }
}
