//! Services as `muster services` printed them, alone or as a list, to be applied
//! again. Decides what looks like that; never what a spec may say.

use muster_proto::replicas::v1::{ListServicesResponse, Service, ServiceSpec};
use serde_json::Value;

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
