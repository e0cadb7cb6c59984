//! The beginning of what someone sent instead of what was asked for, as it is shown in an error.

/// Characters shown at most.
const SHOWN: usize = 120;

/// The first words of `bytes` on one line, without control characters; empty if there are none.
pub fn excerpt(bytes: &[u8]) -> String {
    // A character has at most four bytes; twice as many leave room for space that is dropped.
    let start = &bytes[..bytes.len().min(8 * SHOWN)];
    let text = String::from_utf8_lossy(start);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let mut line = String::new();
    for word in words.filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    match line.char_indices().nth(SHOWN) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_short_line() {
        assert_eq!(
            excerpt(b"<html>\r\n\t<body>  no\x00t\x1b[1m here"),
            "<html> <body> no t [1m here"
        );
        assert_eq!(excerpt(b" \n "), "");
        let long = excerpt("é".repeat(10_000).as_bytes());
        assert_eq!(long.chars().count(), SHOWN + 1);
        assert!(excerpt(&[0xff; 4000]).ends_with('…'));
    }
}
