//! Writes an attempt's output. It decides where lines are cut and which file goes. It never fails
//! its caller: what a full disk cannot take is dropped and counted, since a replica must not stand
//! still for its log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{LONGEST_LINE, Stream, print, segment_path, segments};
use crate::attempt_dir::LogLimits;

/// Cuts one stream into lines.
#[derive(Debug)]
pub struct Cutter {
    stream: Stream,
    unfinished: Vec<u8>,
}

impl Cutter {
    /// Cuts `stream`, from its start.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            unfinished: Vec::new(),
        }
    }

    /// The lines, printed for the file, that `bytes` complete.
    pub fn take(&mut self, mut bytes: &[u8], time: SystemTime) -> Vec<u8> {
        let mut printed = Vec::with_capacity(bytes.len() + 64);
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.grow(&bytes[..end], time, &mut printed);
            self.finish(time, &mut printed);
            bytes = &bytes[end + 1..];
        }
        self.grow(bytes, time, &mut printed);
        printed
    }

    /// What is left when the stream ends without a line end.
    pub fn rest(&mut self, time: SystemTime) -> Vec<u8> {
        let mut printed = Vec::new();
        if !self.unfinished.is_empty() {
            self.finish(time, &mut printed);
        }
        printed
    }

    fn grow(&mut self, mut bytes: &[u8], time: SystemTime, printed: &mut Vec<u8>) {
        while self.unfinished.len() + bytes.len() > LONGEST_LINE {
            let (fits, rest) = bytes.split_at(LONGEST_LINE - self.unfinished.len());
            self.unfinished.extend_from_slice(fits);
            self.finish(time, printed);
            bytes = rest;
        }
        self.unfinished.extend_from_slice(bytes);
    }

    fn finish(&mut self, time: SystemTime, printed: &mut Vec<u8>) {
        let line = self
            .unfinished
            .strip_suffix(b"\r")
            .unwrap_or(&self.unfinished);
        print(printed, time, self.stream, line);
        self.unfinished.clear();
    }
}

/// The open end of an attempt's output.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    limits: LogLimits,
    number: u64,
    open: Option<File>,
    written: u64,
    dropped: u64,
}

impl Writer {
    /// Goes on after what the folder has.
    pub fn new(folder: &Path, limits: LogLimits) -> Self {
        Self {
            folder: folder.to_owned(),
            limits,
            number: segments(folder).last().copied().unwrap_or(0),
            open: None,
            written: 0,
            dropped: 0,
        }
    }

    /// Adds whole printed lines.
    pub fn add(&mut self, lines: &[u8], time: SystemTime) {
        if lines.is_empty() {
            return;
        }
        if self.try_add(lines, time).is_err() {
            self.dropped += u64::try_from(lines.len()).unwrap_or(u64::MAX);
            // A half-written line must not join the next one: go on in a new file.
            self.open = None;
        }
    }

    fn try_add(&mut self, lines: &[u8], time: SystemTime) -> io::Result<()> {
        if self.open.is_none() || self.written >= self.limits.segment_bytes {
            self.turn()?;
        }
        let Some(file) = &mut self.open else {
            return Ok(());
        };
        if self.dropped > 0 {
            let mut notice = Vec::new();
            let text = format!(
                "muster: {} bytes of output could not be written",
                self.dropped
            );
            print(&mut notice, time, Stream::Err, text.as_bytes());
            file.write_all(&notice)?;
            self.dropped = 0;
        }
        file.write_all(lines)?;
        self.written += u64::try_from(lines.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Opens the next file and removes those that are too many.
    fn turn(&mut self) -> io::Result<()> {
        let keep = usize::try_from(self.limits.segments.max(1)).unwrap_or(usize::MAX) - 1;
        let old = segments(&self.folder);
        for number in old.iter().take(old.len().saturating_sub(keep)) {
            std::fs::remove_file(segment_path(&self.folder, *number))?;
        }
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(segment_path(&self.folder, self.number + 1))?;
        self.number += 1;
        self.written = 0;
        self.open = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LogLimits = LogLimits {
        segment_bytes: 100,
        segments: 3,
    };
    const T: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn lines_are_cut_where_they_end() {
        let mut cutter = Cutter::new(Stream::Out);
        assert_eq!(cutter.take(b"a\nb\r\nc", T), b"0 o a\n0 o b\n");
        assert_eq!(cutter.take(b"d", T), b"");
        assert_eq!(cutter.rest(T), b"0 o cd\n");
        assert_eq!(cutter.rest(T), b"");
    }

    #[test]
    fn an_endless_line_is_cut_into_several() {
        let mut cutter = Cutter::new(Stream::Err);
        let printed = cutter.take(&vec![b'x'; 2 * LONGEST_LINE + 1], T);
        assert_eq!(printed.iter().filter(|byte| **byte == b'\n').count(), 2);
        assert_eq!(cutter.rest(T), b"0 e x\n");
    }

    #[test]
    fn the_oldest_file_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(folder.path(), LIMITS);
        for _ in 0..10 {
            writer.add(&[b'x'; 60], T);
        }
        assert_eq!(segments(folder.path()), [3, 4, 5]);
        let mut next = Writer::new(folder.path(), LIMITS);
        next.add(b"0 o a\n", T);
        assert_eq!(segments(folder.path()), [4, 5, 6]);
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("later");
        let mut writer = Writer::new(&gone, LIMITS);
        writer.add(b"0 o lost\n", T);
        std::fs::create_dir(&gone).unwrap();
        writer.add(b"0 o kept\n", T);
        let text = std::fs::read_to_string(segment_path(&gone, 1)).unwrap();
        assert_eq!(
            text,
            "0 e muster: 9 bytes of output could not be written\n0 o kept\n"
        );
    }
}
