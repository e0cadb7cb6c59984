//! YAML as a tree of nodes that know their place. Decides what text is
//! well-formed; never what it means.
//!
//! Anchors, aliases and tags are refused: a spec needs none, and without them a
//! small file cannot become a large one.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::Problem;

/// How deep a document may nest.
const MAX_DEPTH: usize = 64;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The line, from 1.
    pub(crate) line: usize,
    /// The column, from 1.
    pub(crate) column: usize,
    /// The value.
    pub(crate) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// A scalar that was written without quotes.
    Plain(String),
    /// A scalar in quotes, or a block.
    Quoted(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order it was written.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// What kind of value it is, for a person to read.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Plain(text) if is_null(text) => "nothing",
            Value::Plain(_) | Value::Quoted(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Whether nothing was written.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Plain(text) if is_null(text))
    }

    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Plain(text) if is_null(text) => None,
            Value::Plain(text) | Value::Quoted(text) => Some(text),
            Value::List(_) | Value::Map(_) => None,
        }
    }
}

/// What stands for nothing without quotes, as YAML 1.2 has it.
pub(crate) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Whether a text may stand as it is. In quotes YAML takes more, but for what controls a terminal.
fn is_printable(letter: char) -> bool {
    matches!(letter,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

/// The first character that controls something, which has no place in YAML, wherever it stands.
fn control(text: &str) -> Option<Problem> {
    let is_control = |letter: char| letter < ' ' && !is_printable(letter);
    let (at, letter) = text
        .char_indices()
        .find(|(_, letter)| is_control(*letter))?;
    let (before, _) = text.split_at(at);
    let line = before.matches('\n').count() + 1;
    let column = before
        .chars()
        .rev()
        .take_while(|letter| *letter != '\n')
        .count()
        + 1;
    Some(Problem::at(line, column, "", &unprintable(letter)))
}

fn unprintable(letter: char) -> String {
    let code = u32::from(letter);
    format!("the character U+{code:04X} cannot stand in YAML; in double quotes it is \\u{code:04x}")
}

/// The documents of a file, in order.
///
/// # Errors
/// The first place at which the text is not well-formed, or uses what is refused.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, Problem> {
    if let Some(problem) = control(text) {
        return Err(problem);
    }
    let mut builder = Builder::default();
    for step in Parser::new_from_str(text) {
        let (event, span) = step.map_err(|error| {
            Problem::at(
                error.marker().line(),
                error.marker().col() + 1,
                "",
                error.info(),
            )
        })?;
        builder.take(event, span)?;
    }
    Ok(builder.documents)
}

/// Puts nodes together as the parser names their parts.
#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
}

/// A collection that has not ended yet.
struct Open {
    line: usize,
    column: usize,
    items: Vec<Node>,
    is_map: bool,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let (line, column) = (span.start.line(), span.start.col() + 1);
        let refuse = |what: &str| {
            Err(Problem::at(
                line,
                column,
                "",
                &format!("{what} is not supported"),
            ))
        };
        match event {
            Event::Alias(_) => refuse("an alias (*name)"),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                refuse("an anchor (&name)")
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => refuse("a tag (!name)"),
            // The parser takes what begins a block for a text where no block can stand.
            Event::Scalar(text, ScalarStyle::Plain, _, _) if text.starts_with(['|', '>']) => {
                let message = "a text that begins with `|` or `>` has to stand in quotes here";
                Err(Problem::at(line, column, "", message))
            }
            Event::Scalar(text, style, _, _) => {
                let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
                if let Some(letter) = text
                    .chars()
                    .find(|letter| !quoted && !is_printable(*letter))
                {
                    return Err(Problem::at(line, column, "", &unprintable(letter)));
                }
                let value = match style {
                    ScalarStyle::Plain => Value::Plain(text.into_owned()),
                    ScalarStyle::SingleQuoted
                    | ScalarStyle::DoubleQuoted
                    | ScalarStyle::Literal
                    | ScalarStyle::Folded => Value::Quoted(text.into_owned()),
                };
                self.add(Node {
                    line,
                    column,
                    value,
                });
                Ok(())
            }
            Event::SequenceStart(..) => self.begin(line, column, false),
            Event::MappingStart(..) => self.begin(line, column, true),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, line: usize, column: usize, is_map: bool) -> Result<(), Problem> {
        if self.open.len() == MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH}");
            return Err(Problem::at(line, column, "", &message));
        }
        self.open.push(Open {
            line,
            column,
            items: Vec::new(),
            is_map,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = if open.is_map {
            Value::Map(pairs(open.items)?)
        } else {
            Value::List(open.items)
        };
        self.add(Node {
            line: open.line,
            column: open.column,
            value,
        });
        Ok(())
    }

    fn add(&mut self, node: Node) {
        match self.open.last_mut() {
            Some(open) => open.items.push(node),
            None => self.documents.push(node),
        }
    }
}

/// Keys and values in turn, as pairs; a key twice is an error.
fn pairs(items: Vec<Node>) -> Result<Vec<(Node, Node)>, Problem> {
    let mut pairs: Vec<(Node, Node)> = Vec::new();
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        let Some(name) = key.text() else {
            return Err(Problem::at(
                key.line,
                key.column,
                "",
                "a key has to be a single value",
            ));
        };
        if let Some((first, _)) = pairs.iter().find(|(other, _)| other.text() == Some(name)) {
            let message = format!("`{name}` is given twice; first on line {}", first.line);
            return Err(Problem::at(key.line, key.column, "", &message));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}
