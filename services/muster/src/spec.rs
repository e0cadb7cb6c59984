//! A service's YAML, or what was printed of it, read into the contract's
//! `ServiceSpec`. Decides what may be written and how; never whether it makes
//! sense, which the replica-manager says.

mod document;
mod policies;
mod printed;
mod reader;
mod service;
#[cfg(test)]
mod tests;

use std::fmt;

use muster_proto::replicas::v1::ServiceSpec;

use self::{
    document::Node,
    printed::Once,
    reader::{Entry, Problems},
};

/// Something wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The line, from 1.
    pub(crate) line: usize,
    /// The column, from 1.
    pub(crate) column: usize,
    /// The field, such as `probes.ready`; empty for the document.
    pub(crate) path: String,
    /// What is wrong, and what is allowed.
    pub(crate) message: String,
}

impl Problem {
    fn at(line: usize, column: usize, path: &str, message: &str) -> Self {
        Self {
            line,
            column,
            path: path.to_owned(),
            message: message.to_owned(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}, column {}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(out, "{}: ", self.path)?;
        }
        out.write_str(&self.message)
    }
}

/// The services in a file: in YAML, one a document, or as `muster services` printed them.
///
/// # Errors
/// Every problem of the file, in order of line.
pub(crate) fn parse(text: &str) -> Result<Vec<ServiceSpec>, Vec<Problem>> {
    let wrong = |message: &str| vec![Problem::at(1, 1, "", message)];
    // Not all of JSON is YAML. What is given twice is told where it is read as that.
    let json = serde_json::from_str(text);
    let printed = json.map_or(Ok(None), |Once(value)| printed::read(value));
    let specs = match printed.map_err(|error| wrong(&error.to_string()))? {
        Some(specs) => specs,
        None => parse_yaml(text)?,
    };
    match specs.is_empty() {
        true => Err(wrong("there is no service in this file")),
        false => Ok(specs),
    }
}

fn parse_yaml(text: &str) -> Result<Vec<ServiceSpec>, Vec<Problem>> {
    let documents = document::parse(text).map_err(|problem| vec![problem])?;
    let mut problems = Problems::default();
    let specs: Vec<ServiceSpec> = documents
        .iter()
        .filter(|document| !document.is_null())
        .flat_map(|document| read(document, &mut problems))
        .collect();
    let problems = problems.into_sorted();
    match problems.is_empty() {
        true => Ok(specs),
        false => Err(problems),
    }
}

fn read(document: &Node, problems: &mut Problems) -> Vec<ServiceSpec> {
    let root = Entry::root(document);
    match printed::read(printed::value(document)) {
        Ok(Some(specs)) => specs,
        Ok(None) => service::read(&root, problems).into_iter().collect(),
        Err(error) => {
            problems.add(&root, error.to_string());
            Vec::new()
        }
    }
}
