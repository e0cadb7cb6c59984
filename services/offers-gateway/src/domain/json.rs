//! Reads the answer of a provider's API row by row: a large list is never in memory as a tree, one
//! odd row spoils nothing but itself, and no row can be larger than a bound. It knows no provider.

mod visit;

use muster_model::quantity::MicroUsd;
use serde::de::DeserializeSeed as _;

use super::excerpt::excerpt;
use super::number;
use visit::{Document, Seed};

/// Values in one row at most; a provider's row has below 200.
const MAX_NODES: usize = 20_000;

/// The longest name of a field of a row, in bytes, with all names that lead to it: each stands before
/// every one that is in it.
const MAX_NAME: usize = 128;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Null.
    Null,
    /// True or false.
    Bool(bool),
    /// A number, as it was written.
    Number(serde_json::Number),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// Names and values, in the order in which they came.
    Object(Vec<(String, Self)>),
}

/// An answer that is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unexpected {
    /// It is not JSON, or only a part of it.
    #[error("not whole JSON ({0}); it begins with: {1}")]
    NotJson(String, String),
    /// It tells of an error, however it was sent.
    #[error("it says: {0}")]
    Complaint(String),
    /// It has no list of the name that was looked for.
    #[error("there is no `{0}` in it; it begins with: {1}")]
    NoRows(&'static str, String),
}

/// A row: where it is (its number or its name), and itself, unless it is larger than is read.
pub type Row<'a> = (&'a str, Option<Node>);

/// Reads an answer: gives each element of its member `rows` to `take`, and returns its other
/// members that are in `keep`.
///
/// Rows are given as they come. An error that is found later makes the answer one that failed:
/// what was taken until then is to be dropped.
pub fn read(
    text: &[u8],
    rows: &'static str,
    keep: &[&str],
    mut take: impl FnMut(Row<'_>),
) -> Result<Node, Unexpected> {
    let mut found = false;
    let mut from = serde_json::Deserializer::from_slice(text);
    let document = Document {
        rows,
        keep,
        take: &mut take,
        found: &mut found,
    };
    let rest = document.deserialize(&mut from);
    let rest = rest.and_then(|rest| from.end().map(|()| rest));
    let rest = rest.map_err(|error| Unexpected::NotJson(error.to_string(), excerpt(text)))?;
    if let Some(complaint) = told(&rest, found) {
        return Err(Unexpected::Complaint(complaint));
    }
    if !found {
        return Err(Unexpected::NoRows(rows, excerpt(text)));
    }
    Ok(rest)
}

/// What a short answer complains of; none if it is no JSON or holds no complaint.
pub fn complaint(text: &[u8]) -> Option<String> {
    let mut from = serde_json::Deserializer::from_slice(text);
    let mut room = MAX_NODES;
    let node = Seed(&mut room).deserialize(&mut from).ok()??;
    told(&node, false)
}

/// The words of an error in the ways in which APIs write one. Where there are rows, a mere message
/// is no error.
fn told(answer: &Node, has_rows: bool) -> Option<String> {
    let errors = answer.get("errors").or_else(|| answer.get("error"));
    let error = match errors {
        None | Some(Node::Bool(false)) => None,
        Some(Node::List(errors)) => errors.first().map(words),
        Some(error) => Some(words(error)),
    };
    let failed = answer.get("success") == Some(&Node::Bool(false));
    let message = || {
        let message = ["message", "msg", "detail"]
            .iter()
            .find_map(|name| answer.get(name));
        message.map(words)
    };
    error
        .or_else(|| if has_rows && !failed { None } else { message() })
        .or_else(|| failed.then(|| "it did not succeed".to_owned()))
}

fn words(error: &Node) -> String {
    let inner = ["message", "msg", "code"]
        .iter()
        .find_map(|name| error.get(name));
    match inner.unwrap_or(error) {
        Node::Text(text) => excerpt(text.as_bytes()),
        Node::Number(number) => number.to_string(),
        Node::Null | Node::Bool(_) | Node::List(_) | Node::Object(_) => {
            "an error, without words".to_owned()
        }
    }
}

impl Node {
    /// The member of this name; none if it is null, or there is none.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let found = members.iter().find(|(known, _)| known == name);
        found
            .map(|(_, node)| node)
            .filter(|node| **node != Self::Null)
    }

    /// The member at the end of a path of names.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| node.get(name))
    }

    /// The text that it is.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.trim()).filter(|text| !text.is_empty()),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// The number that it is, or that it holds as text.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64(),
            Self::Text(text) => text
                .trim()
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite()),
            Self::Null | Self::Bool(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// The number that it is, times `by`, rounded to the nearest.
    pub fn scaled(&self, by: u32) -> Option<u32> {
        number::float_scaled(self.number()?, by)
    }

    /// The whole number that it is.
    pub fn whole(&self) -> Option<u32> {
        let number = self.number()?;
        if number.fract() == 0.0 {
            number::float_scaled(number, 1)
        } else {
            None
        }
    }

    /// The dollars that it is; none if it is no number of 0 or more.
    pub fn dollars(&self) -> Option<MicroUsd> {
        MicroUsd::from_dollars(self.number()?)
    }

    /// Its elements, if it is a list.
    pub fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(nodes) => Some(nodes),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::Object(_) => None,
        }
    }

    /// Its members, if it has any.
    pub fn members(&self) -> &[(String, Self)] {
        match self {
            Self::Object(members) => members,
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::List(_) => &[],
        }
    }

    /// Every value in it that is text, a number or true or false, by the names that lead to it, joined
    /// by dots; those that are too long to be shown lead nowhere.
    pub fn fields(&self) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        self.collect("", &mut fields);
        fields
    }

    fn collect(&self, name: &str, to: &mut Vec<(String, String)>) {
        if name.len() > MAX_NAME {
            return;
        }
        let inner = |part: &str| {
            if name.is_empty() {
                part.to_owned()
            } else {
                format!("{name}.{part}")
            }
        };
        match self {
            Self::Null => {}
            Self::Bool(flag) => to.push((name.to_owned(), flag.to_string())),
            Self::Number(number) => to.push((name.to_owned(), number.to_string())),
            Self::Text(text) => to.push((name.to_owned(), text.clone())),
            Self::List(nodes) => {
                let texts: Vec<&str> = nodes.iter().filter_map(Self::text).collect();
                to.push((name.to_owned(), texts.join(" ")));
            }
            Self::Object(members) => {
                for (part, node) in members {
                    node.collect(&inner(part), to);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
