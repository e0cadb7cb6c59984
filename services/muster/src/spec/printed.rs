//! Services as `muster services` printed them, alone or as a list, to be applied
//! again. Decides what looks like that; never what a spec may say.

use std::fmt;

use muster_proto::replicas::v1::{ListServicesResponse, Service, ServiceSpec};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::document::{self, Node};
use crate::output::json;

/// The specs in a printed service or list of services; nothing if it is neither.
///
/// # Errors
/// What the contract does not have.
pub(super) fn read(printed: Value) -> Result<Option<Vec<ServiceSpec>>, json::Error> {
    let services = if printed.get("spec").is_some_and(Value::is_object) {
        vec![json::parse::<Service>(printed)?]
    } else if printed.get("services").is_some_and(Value::is_array) {
        json::parse::<ListServicesResponse>(printed)?.services
    } else {
        return Ok(None);
    };
    let specs = services.into_iter();
    Ok(Some(
        specs
            .map(|service| service.spec.unwrap_or_default())
            .collect(),
    ))
}

/// JSON in which no field of an object is given twice: which of them would count is nobody's to guess.
pub(super) struct Once(pub(super) Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Once;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Once, E> {
        Ok(Once(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Once, E> {
        Ok(Once(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Once, E> {
        Ok(Once(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Once, E> {
        Ok(Once(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Once, E> {
        Ok(Once(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Once, E> {
        Ok(Once(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Once, A::Error> {
        let mut all = Vec::new();
        while let Some(Once(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Once(all.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Once, A::Error> {
        let mut all = Map::new();
        while let Some((name, Once(value))) = fields.next_entry::<String, Once>()? {
            if all.contains_key(&name) {
                return Err(A::Error::custom(format!("`{name}` is given twice")));
            }
            all.insert(name, value);
        }
        Ok(Once(all.into()))
    }
}

/// A document of YAML as the same value in JSON.
pub(super) fn value(node: &Node) -> Value {
    match &node.value {
        document::Value::Plain(text) => plain(text),
        document::Value::Quoted(text) => Value::from(text.as_str()),
        document::Value::List(items) => items.iter().map(value).collect(),
        document::Value::Map(pairs) => {
            let pairs = pairs.iter();
            let field = |(name, field): &(Node, Node)| {
                let name = name.text().unwrap_or_default();
                (name.to_owned(), value(field))
            };
            Value::Object(pairs.map(field).collect())
        }
    }
}

/// What stands without quotes: a number, a truth or nothing, if it looks like that.
fn plain(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => value,
        _ if document::is_null(text) => Value::Null,
        _ => Value::from(text),
    }
}
