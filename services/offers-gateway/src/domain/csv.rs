//! Splits CSV text into records, one a line, and mends records that have too many fields because
//! someone wrote a comma without quotes. A line that cannot be read spoils nothing but itself: a
//! stray quote never swallows the lines after it. It knows no column's meaning beyond whether it
//! holds numbers.

use std::borrow::Cow;

/// The names of a file's columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    names: Vec<String>,
}

/// One line's fields.
pub type Fields<'a> = Vec<Cow<'a, str>>;

/// Fields of one line at most; lists have below 20. Each takes more memory than a comma, of which a packed
/// list of a few KiB may hold tens of millions.
const MAX_FIELDS: usize = 1000;

/// Why a line is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// A quote opens and never closes.
    #[error("a quote is not closed")]
    OpenQuote,
    /// A closing quote is followed by something else than a comma.
    #[error("text after a closing quote")]
    AfterQuote,
    /// It is not text.
    #[error("not UTF-8")]
    NotUtf8,
    /// It has more fields than are read.
    #[error("more than 1000 fields")]
    Endless,
    /// It has fewer fields than the header has columns.
    #[error("fewer fields than columns")]
    TooFew,
    /// It has more, and there is no one way to mend it.
    #[error("more fields than columns")]
    TooMany,
}

impl Header {
    /// Reads the first line. Names are trimmed; a byte order mark is ignored.
    pub fn parse(line: &str) -> Result<Self, LineError> {
        let line = line.trim_start_matches('\u{feff}');
        let names = split(line)?;
        let names = names.iter().map(|name| name.trim().to_owned()).collect();
        Ok(Self { names })
    }

    /// Where a column is.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// The columns' names, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// The lines of a file, numbered from 1, without their ends. Empty ones are passed over.
pub fn lines(text: &[u8]) -> impl Iterator<Item = (u32, Result<&str, LineError>)> {
    let numbered = (1u32..).zip(text.split(|byte| *byte == b'\n'));
    numbered.filter_map(|(number, line)| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return None;
        }
        let line = std::str::from_utf8(line).map_err(|_| LineError::NotUtf8);
        Some((number, line))
    })
}

/// The fields of one line. A field that begins with a quote ends at the next single one, and holds
/// `""` as one quote; in any other field quotes are plain characters.
pub fn split(line: &str) -> Result<Fields<'_>, LineError> {
    let mut fields = Vec::with_capacity(12);
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                (Cow::Borrowed(field), after)
            }
        };
        if fields.len() == MAX_FIELDS {
            return Err(LineError::Endless);
        }
        fields.push(field);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None if after.is_empty() => return Ok(fields),
            None => return Err(LineError::AfterQuote),
        }
    }
}

/// A field whose opening quote is gone, and what follows its closing one.
fn quoted_field(text: &str) -> Result<(Cow<'_, str>, &str), LineError> {
    let mut whole = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or(LineError::OpenQuote)?;
        let (part, after) = (&rest[..end], &rest[end + 1..]);
        let Some(more) = after.strip_prefix('"') else {
            let field = if whole.is_empty() {
                Cow::Borrowed(part)
            } else {
                Cow::Owned(whole + part)
            };
            return Ok((field, after));
        };
        whole.push_str(part);
        whole.push('"');
        rest = more;
    }
}

/// What is known of a column, to find the place of a comma that should have been quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Holds a number or nothing.
    Number,
    /// Holds text that says what or where the machine is.
    Text,
    /// Is not read: a wrong cut in it does no harm.
    Ignored,
}

/// Joins the surplus fields of a record to the column that they were torn from. Ok(true) if it had
/// to be mended, Ok(false) if it was whole.
///
/// A column qualifies if, with the surplus joined to it, every number column holds a number. One
/// that is alone in this wins; else one whose torn pieces all begin with a space, as people write
/// lists; else the last, if nothing of it is read.
pub fn mend(fields: &mut Fields<'_>, columns: &[Column]) -> Result<bool, LineError> {
    let Some(surplus) = fields.len().checked_sub(columns.len()) else {
        return Err(LineError::TooFew);
    };
    if surplus == 0 {
        return Ok(false);
    }
    let fits = |at: &usize| fits_joined_at(fields, columns, *at, surplus);
    let candidates: Vec<usize> = (0..columns.len()).filter(fits).collect();
    let spaced = |at: &usize| {
        let torn = fields.iter().skip(at + 1).take(surplus);
        torn.clone().count() == surplus && torn.into_iter().all(|piece| piece.starts_with(' '))
    };
    let mut by_space = candidates.iter().copied().filter(spaced);
    let at = match (candidates.as_slice(), by_space.next(), by_space.next()) {
        ([only], ..) => Some(*only),
        (_, Some(only), None) => Some(only),
        ([.., last], None, None) => {
            let unread = *last + 1 == columns.len() && columns.last() == Some(&Column::Ignored);
            unread.then_some(*last)
        }
        _ => None,
    };
    let at = at.ok_or(LineError::TooMany)?;
    let joined = fields[at..=at + surplus].join(",");
    fields.splice(at..=at + surplus, [Cow::Owned(joined)]);
    Ok(true)
}

/// Whether number columns hold numbers once `surplus` fields are joined to column `at`.
fn fits_joined_at(fields: &Fields<'_>, columns: &[Column], at: usize, surplus: usize) -> bool {
    columns
        .iter()
        .enumerate()
        .all(|(place, column)| match column {
            Column::Number if place == at => false,
            Column::Number => {
                let field = if place < at { place } else { place + surplus };
                fields
                    .get(field)
                    .is_some_and(|field| is_number_or_empty(field))
            }
            Column::Text | Column::Ignored => true,
        })
}

fn is_number_or_empty(field: &str) -> bool {
    let field = field.trim();
    field.is_empty() || field.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests;
