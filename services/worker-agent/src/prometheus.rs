//! Reads one metric out of the text that a replica exports for Prometheus. It knows just enough of
//! the format to add up the series of a name, whatever else is there.

/// The sum over all series of `name`; nothing if there is none. A histogram or summary has its own
/// name's series only where it exports one.
pub fn sum(text: &str, name: &str) -> Option<f64> {
    let mut sum = None;
    for value in text.lines().filter_map(|line| value_of(line, name)) {
        sum = Some(sum.unwrap_or(0.0) + value);
    }
    sum.filter(|sum: &f64| sum.is_finite())
}

/// The value in a line of the form `NAME[{LABELS}] VALUE [TIMESTAMP]`.
fn value_of(line: &str, name: &str) -> Option<f64> {
    let rest = line.trim_start().strip_prefix(name)?;
    let rest = match rest.strip_prefix('{') {
        Some(labels) => after_labels(labels)?,
        None if rest.starts_with([' ', '\t']) => rest,
        None => return None,
    };
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// What follows the closing brace; braces within quotes do not count.
fn after_labels(labels: &str) -> Option<&str> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, character) in labels.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return labels.get(at + 1..),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = r#"# HELP vllm:num_requests_waiting Requests that wait
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model="a"} 3
vllm:num_requests_waiting{model="b} \" 7",x="y"} 4.5 1700000000000
vllm:num_requests_waiting_total 100
  spaced 2
bad{model="a" 1
nan NaN
nan 1
huge 1e400
"#;

    #[test]
    fn the_series_of_a_name_are_added_up() {
        for (name, expected) in [
            ("vllm:num_requests_waiting", Some(7.5)),
            ("vllm:num_requests_waiting_total", Some(100.0)),
            ("spaced", Some(2.0)),
            ("vllm", None),
            ("bad", None),
            ("nan", None),
            ("huge", None),
            ("missing", None),
        ] {
            assert_eq!(sum(TEXT, name), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_fail(text in any::<String>(), name in "[a-z]{0,3}") {
            let _ = sum(&text, &name);
            let _ = sum(&format!("{name}{{{text}"), &name);
        }
    }
}
