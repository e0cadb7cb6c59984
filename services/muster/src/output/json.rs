//! Messages as proto3 JSON and as YAML: camelCase, defaults printed.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage, SerializeOptions};
use serde_json::Value;

/// Every message of the contract.
static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(muster_proto::DESCRIPTORS).ok());

/// Why a message could not be printed or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The contract does not have it.
    #[error("the message {0} is not in the contract")]
    Unknown(String),
    /// It is not what it says it is.
    #[error("the message could not be read")]
    Decode(#[from] prost::DecodeError),
    /// It is not JSON of this message.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

fn empty<M: Name>() -> Result<DynamicMessage, Error> {
    let name = M::full_name();
    let pool = POOL.as_ref();
    let descriptor = pool.and_then(|pool| pool.get_message_by_name(&name));
    Ok(DynamicMessage::new(descriptor.ok_or(Error::Unknown(name))?))
}

/// A message as JSON.
pub(crate) fn value<M: Message + Name>(message: &M) -> Result<Value, Error> {
    let mut dynamic = empty::<M>()?;
    dynamic.merge(message.encode_to_vec().as_slice())?;
    let options = SerializeOptions::new()
        .skip_default_fields(false)
        .stringify_64_bit_integers(true);
    Ok(dynamic.serialize_with_options(serde_json::value::Serializer, &options)?)
}

/// A message from its JSON. Unknown fields are errors.
pub(crate) fn parse<M: Message + Name + Default>(value: Value) -> Result<M, Error> {
    let descriptor = ReflectMessage::descriptor(&empty::<M>()?);
    let dynamic = DynamicMessage::deserialize(descriptor, value)?;
    Ok(M::decode(dynamic.encode_to_vec().as_slice())?)
}

/// A value as YAML.
pub(crate) fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write_yaml(value, 0, &mut text);
    text
}

/// Block style for what holds something; JSON, which is YAML, for the rest.
fn write_yaml(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                text.push_str(&format!("{indent}{}:", key(name)));
                write_below(field, depth, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                text.push_str(&format!("{indent}-"));
                write_below(item, depth, text);
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => text.push_str(&format!("{indent}{}\n", scalar(value))),
    }
}

fn write_below(value: &Value, depth: usize, text: &mut String) {
    let nests = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    if nests {
        text.push('\n');
        write_yaml(value, depth + 1, text);
    } else {
        text.push_str(&format!(" {}\n", scalar(value)));
    }
}

/// What holds nothing as JSON, with nothing in it that a reader of YAML refuses, or takes for the end of a line.
fn scalar(value: &Value) -> String {
    let mut text = String::new();
    for letter in value.to_string().chars() {
        match letter {
            '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            _ => text.push(letter),
        }
    }
    text
}

/// A key, in quotes unless it is a plain word.
fn key(name: &str) -> String {
    // What an older reader of YAML takes for a truth or for nothing.
    let other = ["y", "yes", "n", "no", "on", "off", "true", "false", "null"];
    let plain = !name.is_empty()
        && !other.contains(&name.to_ascii_lowercase().as_str())
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        && !name.starts_with(|letter: char| letter.is_ascii_digit());
    if plain {
        name.to_owned()
    } else {
        scalar(&Value::from(name))
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::{offers::v1::Offer, types::v1::Price};
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_printed_and_names_are_camel_case() {
        let offer = Offer {
            id: "a/b/c/spot".to_owned(),
            price: Some(Price {
                micro_usd_per_hour: 5,
            }),
            ..Offer::default()
        };
        let printed = value(&offer).unwrap();
        assert_eq!(printed["instanceType"], json!(""));
        assert_eq!(printed["price"], json!({"microUsdPerHour": "5"}));
        assert_eq!(printed["gpus"], json!([]));
        assert_eq!(printed["availability"], json!("AVAILABILITY_UNSPECIFIED"));
        assert_eq!(parse::<Offer>(printed).unwrap(), offer);
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = parse::<Offer>(json!({"idd": "x"})).unwrap_err();
        assert!(error.to_string().contains("idd"), "{error}");
    }

    /// What readers of YAML refuse, or take for the end of a line.
    #[test]
    fn yaml_has_no_character_that_some_reader_takes_for_another() {
        let value =
            json!({"a": "\u{85}\u{2028}\u{2029}\u{7f}\u{9f}\u{feff}\u{fffe}\u{1f600}\u{e9}"});
        let expected = "a: \"\\u0085\\u2028\\u2029\\u007f\\u009f\\ufeff\\ufffe\u{1f600}\u{e9}\"\n";
        assert_eq!(yaml(&value), expected);
    }

    #[test]
    fn yaml_nests() {
        let value = json!({"a": [{"b": 1, "c": []}, "x: y"], "d/e": {"f": null}, "g": {"No": 1}});
        let expected =
            "a:\n  -\n    b: 1\n    c: []\n  - \"x: y\"\n\"d/e\":\n  f: null\ng:\n  \"No\": 1\n";
        assert_eq!(yaml(&value), expected);
    }
}
