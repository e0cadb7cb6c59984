//! Figures as a table for people.

use std::io::{self, Write};

use super::figure::{Figure, Report, round};

const HEADS: [&str; 7] = ["figure", "value", "unit", "floor", "ratio", "target", "met"];
/// Columns of numbers, which are aligned by their ends.
const NUMBERS: [bool; 7] = [false, true, false, true, true, false, false];

pub(super) fn table(to: &mut impl Write, report: &Report) -> io::Result<()> {
    let rows: Vec<_> = report.figures().iter().map(cells).collect();
    let heads = HEADS.map(str::to_owned);
    let mut widths = [0; 7];
    for row in rows.iter().chain([&heads]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    writeln!(to, "\n{}", report.bench())?;
    for row in [&heads].into_iter().chain(&rows) {
        writeln!(to, "{}", line(row, &widths).trim_end())?;
    }
    Ok(())
}

fn line(row: &[String; 7], widths: &[usize; 7]) -> String {
    let mut text = String::new();
    for ((cell, width), number) in row.iter().zip(widths).zip(NUMBERS) {
        if number {
            text += &format!("{cell:>width$}  ");
        } else {
            text += &format!("{cell:<width$}  ");
        }
    }
    text
}

fn cells(figure: &Figure) -> [String; 7] {
    let number =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| round(v).to_string());
    let met = match figure.met {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "-",
    };
    [
        figure.name.clone(),
        number(Some(figure.value)),
        figure.unit.to_owned(),
        number(figure.floor),
        number(figure.ratio),
        figure
            .target
            .map_or_else(|| "-".to_owned(), |target| target.to_string()),
        met.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figure::Target;

    #[test]
    fn columns_are_aligned() {
        let mut report = Report::new("store", false);
        report.add(Figure::new("commits", 12_345.0, "1/s"));
        report.add(
            Figure::new("p50", 0.5, "ms")
                .over(0.25)
                .target(Target::RatioAtMost(1.0)),
        );
        let mut text = Vec::new();
        table(&mut text, &report).unwrap();
        let expected = "\nstore\n\
            figure   value  unit  floor  ratio  target      met\n\
            commits  12345  1/s       -      -  -           -\n\
            p50        0.5  ms     0.25      2  ratio <= 1  NO\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
