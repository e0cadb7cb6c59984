//! What differs between two specs at a path, value by value, for a person to read. It decides nothing:
//! which paths differ is the server's word.

use serde_json::Value;

/// A line for each value under a path that is another one after than before, such as
/// `  replicas.max: 4 -> 5`.
pub(crate) fn lines(path: &str, before: &Value, after: &Value) -> String {
    let mut text = String::new();
    compare(path, at(path, before), at(path, after), &mut text);
    if text.is_empty() {
        // They differ in what JSON does not show.
        text = format!("  {path}\n");
    }
    text
}

/// The value at a path of snake_case names, whose JSON is in camelCase.
fn at<'v>(path: &str, value: &'v Value) -> &'v Value {
    path.split('.')
        .fold(value, |value, name| &value[camel(name)])
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| {
        let (head, tail) = word.split_at(word.len().min(1));
        text + &head.to_uppercase() + tail
    })
}

fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

fn compare(path: &str, before: &Value, after: &Value, text: &mut String) {
    match (before, after) {
        (before, after) if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            let mut names: Vec<_> = old.keys().chain(new.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let path = format!("{path}.{}", snake(name));
                compare(&path, &before[name], &after[name], text);
            }
        }
        _ => text.push_str(&format!("  {path}: {} -> {}\n", word(before), word(after))),
    }
}

/// A value as it is written; nothing is `-`.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_value_that_differs_has_its_line() {
        let before = json!({"replicas": {"min": 2, "max": 4}, "retry": null, "minHealthy": 1,
            "run": {"command": ["sh"]}});
        let after = json!({"replicas": {"min": 2, "max": 5}, "retry": {"interval": "30s"},
            "minHealthy": 2, "run": {"command": ["sh", "-c"]}});
        for (path, expected) in [
            ("replicas.max", "  replicas.max: 4 -> 5\n"),
            ("replicas", "  replicas.max: 4 -> 5\n"),
            ("retry", "  retry: - -> {\"interval\":\"30s\"}\n"),
            ("min_healthy", "  min_healthy: 1 -> 2\n"),
            (
                "run.command",
                "  run.command: [\"sh\"] -> [\"sh\",\"-c\"]\n",
            ),
            ("replicas.min", "  replicas.min\n"),
            ("nowhere.at_all", "  nowhere.at_all\n"),
        ] {
            assert_eq!(lines(path, &before, &after), expected, "{path}");
        }
    }

    #[test]
    fn names_nested_below_a_path_are_written_as_in_a_spec() {
        let before = json!({"retry": {"maxDuration": "3600s"}});
        let after = json!({"retry": {"maxDuration": "60s"}});
        let expected = "  retry.max_duration: 3600s -> 60s\n";
        assert_eq!(lines("retry", &before, &after), expected);
    }
}
