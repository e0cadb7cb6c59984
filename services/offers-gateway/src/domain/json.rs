//! Reads the answer of a provider's API row by row: a large list is never in memory as a tree, one
//! odd row spoils nothing but itself, and no row can be larger than a bound. It knows no provider.

use std::fmt;

use muster_model::quantity::MicroUsd;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::excerpt::excerpt;
use super::number;

/// Values in one row at most; a provider's row has below 200.
const MAX_NODES: usize = 20_000;

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

    /// Every value in it that is text, a number or true or false, by the names that lead to it,
    /// joined by dots.
    pub fn fields(&self) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        self.collect("", &mut fields);
        fields
    }

    fn collect(&self, name: &str, to: &mut Vec<(String, String)>) {
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

/// An answer whose rows are given away.
struct Document<'a, F> {
    rows: &'static str,
    keep: &'a [&'a str],
    take: &'a mut F,
    found: &'a mut bool,
}

impl<'de, F: FnMut(Row<'_>)> DeserializeSeed<'de> for Document<'_, F> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        from.deserialize_any(self)
    }
}

/// Members of an answer that every API may complain in.
const COMPLAINTS: [&str; 6] = ["errors", "error", "success", "message", "msg", "detail"];

impl<'de, F: FnMut(Row<'_>)> Visitor<'de> for Document<'_, F> {
    type Value = Node;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut kept = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == self.rows {
                *self.found |= map.next_value_seed(Rows(self.take))?;
            } else if self.keep.contains(&name.as_str()) || COMPLAINTS.contains(&name.as_str()) {
                let mut room = MAX_NODES;
                if let Some(node) = map.next_value_seed(Seed(&mut room))? {
                    kept.push((name, node));
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Node::Object(kept))
    }
}

/// The rows of an answer: true if they are a list or an object.
struct Rows<'a, F>(&'a mut F);

impl<'de, F: FnMut(Row<'_>)> DeserializeSeed<'de> for Rows<'_, F> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, F: FnMut(Row<'_>)> Visitor<'de> for Rows<'_, F> {
    type Value = bool;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<bool, A::Error> {
        let mut number = 0u32;
        loop {
            let mut room = MAX_NODES;
            let Some(row) = rows.next_element_seed(Seed(&mut room))? else {
                return Ok(true);
            };
            self.0((&number.to_string(), row));
            number = number.saturating_add(1);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut rows: A) -> Result<bool, A::Error> {
        while let Some(name) = rows.next_key::<String>()? {
            let mut room = MAX_NODES;
            let row = rows.next_value_seed(Seed(&mut room))?;
            self.0((&name, row));
        }
        Ok(true)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }
}

/// A value of bounded size: none if it has more nodes than there is room for.
struct Seed<'a>(&'a mut usize);

impl Seed<'_> {
    fn one(self, node: Node) -> Option<Node> {
        *self.0 = self.0.checked_sub(1)?;
        Some(node)
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Option<Node>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Option<Node>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Option<Node>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Option<Node>, E> {
        Ok(self.one(Node::Null))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Option<Node>, E> {
        Ok(self.one(Node::Bool(flag)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Option<Node>, E> {
        Ok(self.one(Node::Number(number.into())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Option<Node>, E> {
        Ok(self.one(Node::Number(number.into())))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Option<Node>, E> {
        let number = serde_json::Number::from_f64(number);
        let number = number.ok_or_else(|| E::custom("a number that is none"))?;
        Ok(self.one(Node::Number(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<Node>, E> {
        Ok(self.one(Node::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<Node>, A::Error> {
        let mut nodes = Vec::new();
        while *self.0 > 0 {
            match list.next_element_seed(Seed(self.0))? {
                None => return Ok(self.one(Node::List(nodes))),
                Some(None) => break,
                Some(Some(node)) => nodes.push(node),
            }
        }
        *self.0 = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Node>, A::Error> {
        let mut members: Vec<(String, Node)> = Vec::new();
        while *self.0 > 0 {
            let Some(name) = map.next_key::<String>()? else {
                return Ok(self.one(Node::Object(members)));
            };
            match map.next_value_seed(Seed(self.0))? {
                None => break,
                Some(node) => members.push((name, node)),
            }
        }
        *self.0 = 0;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
