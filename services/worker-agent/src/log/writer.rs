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
    /// The open file ends in the middle of a line.
    is_torn: bool,
    /// No file has gone for the open one yet.
    is_extra: bool,
    /// Bytes of lines that are missing, and of which that is still to be told.
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
            is_torn: false,
            is_extra: false,
            dropped: 0,
        }
    }

    /// Adds whole printed lines.
    pub fn add(&mut self, lines: &[u8], time: SystemTime) {
        if lines.is_empty() {
            return;
        }
        let preface = self.preface(time);
        let bytes = [&preface, lines].concat();
        let taken = self.write(&bytes);
        if taken >= preface.len() {
            self.dropped = 0;
        }
        let missing = lines.len().min(bytes.len() - taken);
        self.dropped += u64::try_from(missing).unwrap_or(u64::MAX);
    }

    /// What has to stand before the next line.
    fn preface(&self, time: SystemTime) -> Vec<u8> {
        // A line that was cut must not join another.
        let mut preface = if self.is_torn {
            vec![b'\n']
        } else {
            Vec::new()
        };
        if self.dropped > 0 {
            let text = format!(
                "muster: {} bytes of output could not be written",
                self.dropped
            );
            print(&mut preface, time, Stream::Err, text.as_bytes());
        }
        preface
    }

    /// Writes as much as the disk takes; how much that is.
    fn write(&mut self, bytes: &[u8]) -> usize {
        if (self.open.is_none() || self.written >= self.limits.segment_bytes)
            && self.turn().is_err()
        {
            return 0;
        }
        let Some(file) = &mut self.open else {
            return 0;
        };
        let taken = write_some(file, bytes);
        if let Some(last) = bytes[..taken].last() {
            self.is_torn = *last != b'\n';
        }
        if taken == bytes.len() && std::mem::take(&mut self.is_extra) {
            self.remove_oldest();
        }
        self.written += u64::try_from(taken).unwrap_or(u64::MAX);
        taken
    }

    /// Opens the next file. On a full disk that says nothing of whether it takes anything: no other goes for it yet.
    fn turn(&mut self) -> io::Result<()> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(segment_path(&self.folder, self.number + 1))?;
        self.number += 1;
        self.written = 0;
        (self.is_torn, self.is_extra) = (false, true);
        self.open = Some(file);
        Ok(())
    }

    /// Removes the files that are too many.
    fn remove_oldest(&self) {
        let keep = usize::try_from(self.limits.segments.max(1)).unwrap_or(usize::MAX);
        let all = segments(&self.folder);
        for number in all.iter().take(all.len().saturating_sub(keep)) {
            // What is left goes with the next file.
            let _ = std::fs::remove_file(segment_path(&self.folder, *number));
        }
    }
}

/// Writes from the start of `bytes` until they are written or no more is taken; how many were.
fn write_some(file: &mut File, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while taken < bytes.len() {
        match file.write(&bytes[taken..]) {
            Ok(0) => break,
            Ok(more) => taken += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    taken
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

    #[test]
    fn a_full_disk_costs_no_older_output() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(folder.path(), LIMITS);
        for _ in 0..6 {
            writer.add(&[b'x'; 60], T);
        }
        // A file can still be made, and takes nothing.
        writer.turn().unwrap();
        writer.open = Some(File::options().write(true).open("/dev/full").unwrap());
        for _ in 0..60 {
            writer.add(b"0 o lost\n", T);
        }
        assert_eq!(segments(folder.path()), [1, 2, 3, 4]);
        let path = segment_path(folder.path(), 4);
        writer.open = Some(File::options().append(true).open(&path).unwrap());
        writer.add(b"0 o kept\n", T);
        assert_eq!(segments(folder.path()), [2, 3, 4]);
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            "0 e muster: 540 bytes of output could not be written\n0 o kept\n"
        );
    }

    #[test]
    fn what_a_full_disk_has_cut_joins_no_other_line() {
        use std::io::Read as _;
        use std::os::fd::OwnedFd;
        let folder = tempfile::tempdir().unwrap();
        let limits = LogLimits {
            segment_bytes: 1 << 20,
            segments: 2,
        };
        let mut writer = Writer::new(folder.path(), limits);
        writer.turn().unwrap();
        // A pipe takes so much, and more once that was read.
        let (mut pipe, end) = io::pipe().unwrap();
        rustix::fs::fcntl_setfl(&end, rustix::fs::OFlags::NONBLOCK).unwrap();
        writer.open = Some(File::from(OwnedFd::from(end)));
        let lines = b"0 o 456789\n".repeat(10_000);
        writer.add(&lines, T);
        let mut taken = vec![0; 1 << 16];
        pipe.read_exact(&mut taken).unwrap();
        assert_eq!(taken, lines[..1 << 16]);
        writer.add(b"0 o next\n", T);
        writer.open = None;
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        let lost = lines.len() - taken.len();
        let told = format!("0 e muster: {lost} bytes of output could not be written");
        assert_eq!(text, format!("\n{told}\n0 o next\n"));
    }
}
