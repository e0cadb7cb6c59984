//! Columns that line up.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr as _;

use super::style::{Colours, Style, of_word};

/// A text in a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A text in a style.
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self {
            text: text.into(),
            style,
        }
    }

    /// A state's word, in its colour.
    pub(crate) fn state(word: &str) -> Self {
        Self::styled(word, of_word(word))
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::Plain)
    }
}

/// Which side a column's texts stand at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows. A name that starts with `>` heads a column of
    /// numbers.
    pub(crate) fn new(header: &[&'static str]) -> Self {
        let column = |name: &&'static str| match name.strip_prefix('>') {
            Some(name) => (name, Align::Right),
            None => (*name, Align::Left),
        };
        Self {
            header: header.iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Writes the header and the rows.
    pub(crate) fn write(&self, out: &mut impl Write, colours: Colours) -> io::Result<()> {
        self.write_header(out, &self.widths(), colours)?;
        self.write_rows(out, &self.widths(), colours)
    }

    /// Writes the rows under what was written before, and first of all, once there is a row, the header.
    pub(crate) fn write_under(
        &self,
        out: &mut impl Write,
        colours: Colours,
        columns: &mut Columns,
    ) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let is_first = columns.widths.is_empty();
        columns.widen(self.widths());
        if is_first {
            self.write_header(out, &columns.widths, colours)?;
        }
        self.write_rows(out, &columns.widths, colours)
    }

    fn write_header(
        &self,
        out: &mut impl Write,
        widths: &[usize],
        colours: Colours,
    ) -> io::Result<()> {
        let names = self.header.iter();
        let header: Vec<Cell> = names
            .map(|(name, _)| Cell::styled(*name, Style::Strong))
            .collect();
        writeln!(out, "{}", self.line(&header, widths, colours))
    }

    fn write_rows(
        &self,
        out: &mut impl Write,
        widths: &[usize],
        colours: Colours,
    ) -> io::Result<()> {
        for cells in &self.rows {
            writeln!(out, "{}", self.line(cells, widths, colours))?;
        }
        Ok(())
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.header.iter().map(|(name, _)| width(name)).collect();
        for row in &self.rows {
            for (cell, widest) in row.iter().zip(&mut widths) {
                *widest = width(&cell.text).max(*widest);
            }
        }
        widths
    }

    fn line(&self, cells: &[Cell], widths: &[usize], colours: Colours) -> String {
        let mut line = String::new();
        let mut gap = 0;
        for ((cell, widest), (_, align)) in cells.iter().zip(widths).zip(&self.header) {
            let padding = widest.saturating_sub(width(&cell.text));
            let (before, after) = match align {
                Align::Left => (0, padding),
                Align::Right => (padding, 0),
            };
            line.push_str(&" ".repeat(gap + before));
            line.push_str(&colours.paint(cell.style, &cell.text));
            gap = after + 2;
        }
        line
    }
}

/// How wide the columns are of a table that is written piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    fn widen(&mut self, widths: Vec<usize>) {
        self.widths.resize(widths.len(), 0);
        for (before, now) in self.widths.iter_mut().zip(widths) {
            *before = now.max(*before);
        }
    }
}

/// How many columns of a terminal a text takes: a Chinese character takes two.
fn width(text: &str) -> usize {
    text.width()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(table: &Table, colours: Colours) -> String {
        let mut out = Vec::new();
        table.write(&mut out, colours).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_line_up_and_lines_end_without_spaces() {
        let mut table = Table::new(&["NAME", ">PRICE", "STATE"]);
        table.row(vec!["a".into(), "$1.50".into(), Cell::state("HEALTHY")]);
        table.row(vec!["longer".into(), "$12.50".into(), "".into()]);
        let expected = "NAME     PRICE  STATE\na        $1.50  HEALTHY\nlonger  $12.50  \n";
        assert_eq!(printed(&table, Colours::Off), expected);
    }

    #[test]
    fn wide_characters_take_two_columns_and_what_joins_them_none() {
        let mut table = Table::new(&["NAME", "STATE"]);
        for name in ["worker", "机器一", "\u{1f680} up", "e\u{301}te\u{301}"] {
            table.row(vec![name.into(), "UP".into()]);
        }
        let expected = [
            "NAME    STATE",
            "worker  UP",
            "机器一  UP",
            "\u{1f680} up   UP",
            "e\u{301}te\u{301}     UP\n",
        ];
        assert_eq!(printed(&table, Colours::Off), expected.join("\n"));
    }

    #[test]
    fn what_comes_later_stands_under_the_same_header() {
        let mut out = Vec::new();
        let mut columns = Columns::default();
        for names in [&[][..], &["a", "longer"], &["b"], &[], &["longest of all"]] {
            let mut table = Table::new(&["NAME", "STATE"]);
            for name in names {
                table.row(vec![(*name).into(), Cell::state("UP")]);
            }
            let written = table.write_under(&mut out, Colours::Off, &mut columns);
            written.unwrap();
        }
        let expected = [
            "NAME    STATE",
            "a       UP",
            "longer  UP",
            "b       UP",
            "longest of all  UP\n",
        ];
        assert_eq!(String::from_utf8(out).unwrap(), expected.join("\n"));
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(&["STATE", "WHY"]);
        table.row(vec![Cell::state("DOWN"), "x".into()]);
        table.row(vec![Cell::state("HEALTHY"), "y".into()]);
        let plain = printed(&table, Colours::Off);
        let mut coloured = printed(&table, Colours::On);
        for code in ["\u{1b}[1m", "\u{1b}[31m", "\u{1b}[32m", "\u{1b}[0m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(coloured, plain);
    }
}
