//! Reads an attempt's output while it is written or after. It decides nothing of what is kept; a
//! file that is removed under it costs only the lines in it.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use super::{LONGEST_LINE, Line, parse, segment_path, segments};

/// At most this much of a line is read: the text, and the time and stream before it.
const LONGEST_PRINTED: u64 = LONGEST_LINE as u64 + 64;

/// Which of the lines are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// How many of the last; absent is all that is kept.
    pub tail: Option<usize>,
    /// Not before this time.
    pub since: Option<SystemTime>,
    /// What follows this place; then `tail` does not count.
    pub after: Option<Place>,
}

/// Between two lines of an attempt's output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// The number of the file; 0 is before all.
    number: u64,
    /// How much of it lies before.
    offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.number, self.offset)
    }
}

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let (number, offset) = text.split_once(':').ok_or(NoPlace)?;
        Ok(Self {
            number: number.parse().map_err(|_| NoPlace)?,
            offset: offset.parse().map_err(|_| NoPlace)?,
        })
    }
}

/// A text names no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPlace;

/// What is read at a time while looking for the last lines.
const BLOCK: usize = 64 * 1024;

/// Reads on in an attempt's output.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    /// Up to where lines were read.
    place: Place,
    open: Option<BufReader<File>>,
    since: Option<SystemTime>,
}

impl Reader {
    /// At the first wanted line.
    pub fn open(folder: &Path, wanted: Wanted) -> io::Result<Self> {
        let mut reader = Self {
            folder: folder.to_owned(),
            place: Place::default(),
            open: None,
            since: wanted.since,
        };
        match (wanted.after, wanted.tail) {
            (Some(place), _) => reader.seek(place)?,
            (None, Some(tail)) => reader.seek_tail(tail)?,
            (None, None) => {}
        }
        Ok(reader)
    }

    /// Up to where lines were read.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Whether anything of the attempt's output is kept.
    pub fn is_kept(folder: &Path) -> bool {
        !segments(folder).is_empty()
    }

    /// Up to `most` whole lines that have not been read; fewer, or none, when there are no more
    /// yet.
    pub fn read(&mut self, most: usize) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        while lines.len() < most {
            match self.next_line()? {
                Some(line) if self.since.is_some_and(|since| line.time < since) => {}
                Some(line) => lines.push(line),
                None if self.turn()? => {}
                None => break,
            }
        }
        Ok(lines)
    }

    /// The next whole line of the open file. A line that is only half there stays for later.
    fn next_line(&mut self) -> io::Result<Option<Line>> {
        let Some(file) = &mut self.open else {
            return Ok(None);
        };
        loop {
            let mut bytes = Vec::new();
            let read = file
                .by_ref()
                .take(LONGEST_PRINTED)
                .read_until(b'\n', &mut bytes)?;
            if bytes.pop_if(|last| *last == b'\n').is_none() {
                file.seek_relative(-i64::try_from(read).unwrap_or(0))?;
                return Ok(None);
            }
            self.place.offset += u64::try_from(read).unwrap_or(0);
            if let Some(line) = parse(&bytes) {
                return Ok(Some(line));
            }
        }
    }

    /// Goes on to the next file; false if there is none.
    fn turn(&mut self) -> io::Result<bool> {
        for number in segments(&self.folder) {
            if number <= self.place.number {
                continue;
            }
            // Writing goes on in one file only: with a later one there, nothing is added to ours.
            // But it may have been added between our last look and the later file.
            if let Some(file) = &mut self.open
                && has_line(file)?
            {
                return Ok(true);
            }
            if let Some(file) = self.segment(number)? {
                self.read_from(file, Place { number, offset: 0 });
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One of the files, unless it has gone.
    fn segment(&self, number: u64) -> io::Result<Option<File>> {
        match File::open(segment_path(&self.folder, number)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads on in a file that stands at this place.
    fn read_from(&mut self, file: File, place: Place) {
        self.open = Some(BufReader::with_capacity(BLOCK, file));
        self.place = place;
    }

    /// Moves to a place that an earlier reader had; if its file has gone, to what followed it.
    fn seek(&mut self, place: Place) -> io::Result<()> {
        match self.segment(place.number)? {
            Some(mut file) => {
                let offset = place.offset.min(file.metadata()?.len());
                file.seek(SeekFrom::Start(offset))?;
                self.read_from(file, Place { offset, ..place });
            }
            None => self.place = place,
        }
        Ok(())
    }

    /// Moves to the last `tail` lines: counts line ends in files, newest first.
    fn seek_tail(&mut self, tail: usize) -> io::Result<()> {
        let mut wanted = tail;
        for number in segments(&self.folder).into_iter().rev() {
            let Some(mut file) = self.segment(number)? else {
                continue;
            };
            let (starts, end) = last_lines(&file, wanted)?;
            let start = if wanted == 0 {
                end
            } else {
                starts.front().copied().unwrap_or(end)
            };
            file.seek(SeekFrom::Start(start))?;
            self.read_from(
                file,
                Place {
                    number,
                    offset: start,
                },
            );
            wanted -= starts.len().min(wanted);
            if wanted == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Whether a whole line can be read; the place stays as it was.
fn has_line(file: &mut BufReader<File>) -> io::Result<bool> {
    let mut bytes = Vec::new();
    let read = file
        .by_ref()
        .take(LONGEST_PRINTED)
        .read_until(b'\n', &mut bytes)?;
    file.seek_relative(-i64::try_from(read).unwrap_or(0))?;
    Ok(bytes.last() == Some(&b'\n'))
}

/// Where the last `most` whole lines of a file start, oldest first, and where the last one ends. It
/// reads from the end, and no more than it needs.
fn last_lines(file: &File, most: usize) -> io::Result<(VecDeque<u64>, u64)> {
    let mut starts = VecDeque::new();
    let mut end = None;
    let mut place = file.metadata()?.len();
    let mut block = vec![0; BLOCK];
    while place > 0 && starts.len() < most.max(1) {
        let size = BLOCK.min(usize::try_from(place).unwrap_or(BLOCK));
        let from = place - u64::try_from(size).unwrap_or(0);
        file.read_exact_at(&mut block[..size], from)?;
        let ends = block[..size]
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n');
        for after in ends.map(|(at, _)| from + u64::try_from(at).unwrap_or(0) + 1) {
            if end.is_none() {
                end = Some(after);
            } else if starts.len() < most {
                starts.push_front(after);
            }
        }
        place = from;
    }
    // The first line starts where no line ends.
    if end.is_some() && starts.len() < most {
        starts.push_front(0);
    }
    Ok((starts, end.unwrap_or(0)))
}

/// The last `most` lines of an attempt's output.
pub fn last(folder: &Path, most: usize) -> io::Result<Vec<Line>> {
    let wanted = Wanted {
        tail: Some(most),
        ..Wanted::default()
    };
    Reader::open(folder, wanted)?.read(most)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;
    use crate::attempt_dir::LogLimits;
    use crate::log::writer::Writer;
    use crate::log::{Stream, print};

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    /// A log of lines "0".."count", one a second, a few in each file.
    fn written(folder: &Path, count: u64, segments: u32) -> Writer {
        let mut writer = Writer::new(
            folder,
            LogLimits {
                segment_bytes: 60,
                segments,
            },
        );
        for n in 0..count {
            add(&mut writer, n);
        }
        writer
    }

    fn add(writer: &mut Writer, n: u64) {
        let mut line = Vec::new();
        print(&mut line, at(n), Stream::Out, n.to_string().as_bytes());
        writer.add(&line, at(n));
    }

    fn texts(lines: &[Line]) -> Vec<u64> {
        lines
            .iter()
            .map(|line| line.text.parse().unwrap())
            .collect()
    }

    #[test]
    fn tail_and_since_over_several_files() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 20, 100);
        for (tail, since, expected) in [
            (None, None, 0..20),
            (Some(0), None, 20..20),
            (Some(1), None, 19..20),
            (Some(13), None, 7..20),
            (Some(99), None, 0..20),
            (None, Some(15), 15..20),
            (Some(3), Some(5), 17..20),
            (Some(10), Some(18), 18..20),
        ] {
            let wanted = Wanted {
                tail,
                since: since.map(at),
                after: None,
            };
            let lines = Reader::open(folder.path(), wanted)
                .unwrap()
                .read(1000)
                .unwrap();
            assert_eq!(texts(&lines), expected.collect::<Vec<_>>(), "{wanted:?}");
        }
    }

    #[test]
    fn one_reads_on_as_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = written(folder.path(), 3, 100);
        let mut reader = Reader::open(
            folder.path(),
            Wanted {
                tail: Some(0),
                ..Wanted::default()
            },
        )
        .unwrap();
        assert!(reader.read(9).unwrap().is_empty());
        for n in 3..30 {
            add(&mut writer, n);
            assert_eq!(texts(&reader.read(9).unwrap()), [n]);
        }
    }

    #[test]
    fn files_that_go_cost_only_their_lines() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = written(folder.path(), 2, 2);
        let mut reader = Reader::open(folder.path(), Wanted::default()).unwrap();
        assert_eq!(texts(&reader.read(1).unwrap()), [0]);
        for n in 2..40 {
            add(&mut writer, n);
        }
        let read = texts(&reader.read(1000).unwrap());
        assert_eq!(read.first(), Some(&1), "the open file is read to its end");
        assert_eq!(read.last(), Some(&39));
        assert!(read.is_sorted(), "{read:?}");
    }

    fn after(place: &str) -> Wanted {
        Wanted {
            tail: Some(0),
            after: Some(place.parse().unwrap()),
            ..Wanted::default()
        }
    }

    #[test]
    fn another_reader_goes_on_at_any_place() {
        let folder = tempfile::tempdir().unwrap();
        let mut reader = Reader::open(folder.path(), Wanted::default()).unwrap();
        let before_all = reader.place().to_string();
        let mut writer = written(folder.path(), 20, 100);
        let all = Reader::open(folder.path(), after(&before_all))
            .unwrap()
            .read(1000)
            .unwrap();
        assert_eq!(all.len(), 20);
        for next in 1..20 {
            assert_eq!(reader.read(1).unwrap().len(), 1);
            let place = reader.place().to_string();
            let lines = Reader::open(folder.path(), after(&place))
                .unwrap()
                .read(1000)
                .unwrap();
            assert_eq!(
                texts(&lines),
                (next..20).collect::<Vec<_>>(),
                "after {place}"
            );
        }
        let tail = Wanted {
            tail: Some(2),
            ..Wanted::default()
        };
        let mut tail = Reader::open(folder.path(), tail).unwrap();
        assert_eq!(texts(&tail.read(1).unwrap()), [18]);
        let place = tail.place().to_string();
        add(&mut writer, 20);
        let mut other = Reader::open(folder.path(), after(&place)).unwrap();
        assert_eq!(texts(&other.read(9).unwrap()), [19, 20]);
    }

    #[test]
    fn a_place_whose_file_has_gone_or_shrunk_is_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = written(folder.path(), 2, 2);
        for n in 2..40 {
            add(&mut writer, n);
        }
        let kept = texts(
            &Reader::open(folder.path(), Wanted::default())
                .unwrap()
                .read(99)
                .unwrap(),
        );
        for place in ["0:0", "1:0", "1:7", "1:18446744073709551615"] {
            let lines = Reader::open(folder.path(), after(place))
                .unwrap()
                .read(99)
                .unwrap();
            assert_eq!(texts(&lines), kept, "{place}");
        }
        let newest = segments(folder.path()).pop().unwrap();
        let mut beyond = Reader::open(folder.path(), after(&format!("{newest}:9999"))).unwrap();
        assert!(beyond.read(9).unwrap().is_empty());
        add(&mut writer, 40);
        assert_eq!(texts(&beyond.read(9).unwrap()), [40]);
        for text in [
            "",
            "1",
            ":",
            "1:",
            "-1:2",
            "1:2:3",
            "1:99999999999999999999",
        ] {
            assert_eq!(text.parse::<Place>(), Err(NoPlace), "{text:?}");
        }
    }

    #[test]
    fn half_a_line_waits_for_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::create(segment_path(folder.path(), 1)).unwrap();
        file.write_all(b"1 o a\n2 o b").unwrap();
        let mut reader = Reader::open(folder.path(), Wanted::default()).unwrap();
        assert_eq!(reader.read(9).unwrap().len(), 1);
        assert_eq!(reader.read(9).unwrap().len(), 0);
        file.write_all(b"c\nrubbish\n3 e d\n").unwrap();
        let lines = reader.read(9).unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (lines[0].text.as_str(), lines[0].stream),
            ("bc", Stream::Out)
        );
        assert_eq!(
            (lines[1].text.as_str(), lines[1].stream),
            ("d", Stream::Err)
        );
    }

    #[test]
    fn the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        assert!(last(folder.path(), 5).unwrap().is_empty());
        assert!(!Reader::is_kept(folder.path()));
        written(folder.path(), 20, 3);
        assert_eq!(texts(&last(folder.path(), 2).unwrap()), [18, 19]);
    }
}
