//! The output of one attempt on disk: a bounded row of files, each line with its time and stream.
//! The supervisor writes it, the agent reads it, and neither waits for the other.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub mod reader;
pub mod writer;

/// A longer line is cut into several; in bytes.
pub const LONGEST_LINE: usize = 64 * 1024;

/// Which output a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was read.
    pub time: SystemTime,
    /// Where it came from.
    pub stream: Stream,
    /// Without its end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// Adds a line as it stands in a file: nanoseconds since the Unix epoch, `o` or `e`, the text.
fn print(into: &mut Vec<u8>, time: SystemTime, stream: Stream, text: &[u8]) {
    let nanos = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    into.extend_from_slice(nanos.to_string().as_bytes());
    into.extend_from_slice(match stream {
        Stream::Out => b" o ",
        Stream::Err => b" e ",
    });
    into.extend_from_slice(text);
    into.push(b'\n');
}

/// Reads what [`print`] wrote, without its line end; nothing if it is anything else.
fn parse(bytes: &[u8]) -> Option<Line> {
    let mut parts = bytes.splitn(3, |byte| *byte == b' ');
    let nanos: u64 = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let stream = match parts.next()? {
        b"o" => Stream::Out,
        b"e" => Stream::Err,
        _ => return None,
    };
    Some(Line {
        time: SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos),
        stream,
        text: String::from_utf8_lossy(parts.next()?).into_owned(),
    })
}

/// The numbers of the files in a folder, oldest first.
fn segments(folder: &Path) -> Vec<u64> {
    let mut numbers: Vec<u64> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            entry
                .ok()?
                .file_name()
                .to_str()?
                .strip_prefix("log.")?
                .parse()
                .ok()
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("log.{number:08}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_line_is_nothing() {
        for bytes in [&b""[..], b"1", b"1 o", b"x o y", b"1 z y", b"-1 o y"] {
            assert_eq!(parse(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn a_line_is_read_as_it_was_written(nanos in any::<u32>(), text in "[^\n]{0,80}", err in any::<bool>()) {
            let line = Line {
                time: SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::from(nanos)),
                stream: if err { Stream::Err } else { Stream::Out },
                text,
            };
            let mut bytes = Vec::new();
            print(&mut bytes, line.time, line.stream, line.text.as_bytes());
            prop_assert_eq!(bytes.pop(), Some(b'\n'));
            prop_assert_eq!(parse(&bytes), Some(line));
        }
    }
}
