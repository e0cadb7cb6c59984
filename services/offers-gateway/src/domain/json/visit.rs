//! How JSON becomes rows: what the parser finds is given away as it comes, and no row grows beyond
//! its room.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{MAX_NODES, Node, Row};

/// An answer whose rows are given away.
pub(super) struct Document<'a, F> {
    pub(super) rows: &'static str,
    pub(super) keep: &'a [&'a str],
    pub(super) take: &'a mut F,
    pub(super) found: &'a mut bool,
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
pub(super) struct Seed<'a>(pub(super) &'a mut usize);

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
