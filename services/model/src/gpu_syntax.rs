//! The way people write what accelerators they need: `NAME[,NAME][:MEM[..MEM]][:COUNT[..COUNT]]`.
//!
//! Decides only what was written. `H100` is one or more, `H100:2` exactly two, `H100:2..` two or
//! more; `any` is every name, `amd` and its like every name of a vendor; `A10:0.5` half of one.

use crate::gpu::{self, GpuName, Vendor};
use crate::quantity::{cpu, memory};
use crate::requirements::{Bounds, GpuRequest};

/// Why a text is no request for accelerators.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no name, or an empty one.
    #[error(
        "`{0}` names no GPU: write NAME[,NAME][:MEM[..MEM]][:COUNT[..COUNT]], such as H100:2, or any:24GB"
    )]
    NoName(String),
    /// `any` or a vendor stands beside other names.
    #[error("`{0}` cannot stand beside other names: write it alone")]
    NotAlone(String),
    /// A part is neither memory nor a count.
    #[error(
        "`{0}` is neither memory nor a count: write memory such as 80GB, 40GB..80GB or 80GB.., and a count such as 2, 1..4 or ..8"
    )]
    Part(String),
    /// Memory or the count is there twice, or memory comes after the count.
    #[error("`{0}` is out of place: write memory once, then the count once, such as H100:80GB:2")]
    OutOfPlace(String),
    /// The memory cannot be read.
    #[error("the memory of a GPU: {0}")]
    Memory(#[from] memory::Error),
    /// A range ends below its start.
    #[error("`{0}` ends below its start: write the smaller end first")]
    Backwards(String),
    /// A count or an amount of nothing.
    #[error("`{0}` asks for nothing: a count is at least 1, a share 0.001, memory 1MB")]
    None(String),
    /// A share that is a range, or finer than a thousandth.
    #[error(
        "`{0}` is no share of a GPU: write one number below 1 with at most 3 decimals, such as 0.5; a larger share will do too"
    )]
    Share(String),
}

/// Reads a request.
pub fn parse(text: &str) -> Result<GpuRequest, Error> {
    let mut parts = text.split(':').map(str::trim);
    let mut request = parse_names(parts.next().unwrap_or_default(), text)?;
    let (mut seen_memory, mut seen_count) = (false, false);
    for part in parts {
        let out_of_place = || Error::OutOfPlace(part.to_owned());
        if is_memory(part) {
            if seen_memory || seen_count {
                return Err(out_of_place());
            }
            request.memory_mib = range(part, |end| Ok(memory::parse(end)?))?;
            some(request.memory_mib, part)?;
            seen_memory = true;
        } else {
            if seen_count {
                return Err(out_of_place());
            }
            parse_count(part, &mut request)?;
            seen_count = true;
        }
    }
    Ok(request.with_sized_names())
}

/// Prints a request so that it parses to the same. What the syntax has no words for is left out:
/// memory in total, compute capability, and a vendor beside names.
pub fn print(request: &GpuRequest) -> String {
    let mut text = match (request.names.as_slice(), request.vendor) {
        ([], None) => "any".to_owned(),
        ([], Some(vendor)) => vendor.to_string(),
        (names, _) => names
            .iter()
            .map(GpuName::as_str)
            .collect::<Vec<_>>()
            .join(","),
    };
    if !request.memory_mib.is_any() {
        text.push(':');
        text.push_str(&print_range(request.memory_mib, memory::print));
    }
    match request.share_milli {
        Some(share) => text.push_str(&format!(":{}", cpu::print(share))),
        None if !request.count.is_any() => text.push_str(&format!(
            ":{}",
            print_range(request.count, |n| n.to_string())
        )),
        None => {}
    }
    text
}

/// Prints bounds: `80GB`, `40GB..80GB`, `80GB..`, `..8`; `..` for none.
pub fn print_range(bounds: Bounds, print: impl Fn(u32) -> String) -> String {
    match (bounds.min, bounds.max) {
        (Some(min), Some(max)) if min == max => print(min),
        (min, max) => format!(
            "{}..{}",
            min.map(&print).unwrap_or_default(),
            max.map(&print).unwrap_or_default()
        ),
    }
}

fn parse_names(text: &str, whole: &str) -> Result<GpuRequest, Error> {
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    // A number or an amount is a forgotten name: `:2`, `80GB:2`.
    let is_name = |word: &&str| !word.is_empty() && !is_count(word) && memory::parse(word).is_err();
    if !words.iter().all(is_name) {
        return Err(Error::NoName(whole.to_owned()));
    }
    let mut request = GpuRequest::default();
    for word in &words {
        let vendor: Option<Vendor> = word.parse().ok();
        let any = word.eq_ignore_ascii_case("any");
        if (any || vendor.is_some()) && words.len() > 1 {
            return Err(Error::NotAlone((*word).to_owned()));
        }
        if vendor.is_some() {
            request.vendor = vendor;
        } else if !any {
            let name = gpu::canonical(word);
            if !request.names.contains(&name) {
                request.names.push(name);
            }
        }
    }
    Ok(request)
}

fn parse_count(part: &str, request: &mut GpuRequest) -> Result<(), Error> {
    if !is_count(part) {
        return Err(Error::Part(part.to_owned()));
    }
    let number = |end: &str| {
        end.parse::<u32>()
            .ok()
            .filter(|count| i32::try_from(*count).is_ok())
    };
    let ends: Vec<&str> = part.splitn(2, "..").collect();
    if ends.iter().any(|end| end.contains('.')) {
        let share = if ends.len() == 1 {
            cpu::parse(part).ok()
        } else {
            None
        };
        return match share {
            Some(0) => Err(Error::None(part.to_owned())),
            Some(milli @ 1..gpu::WHOLE) => {
                request.share_milli = Some(milli);
                Ok(())
            }
            Some(_) | None => Err(Error::Share(part.to_owned())),
        };
    }
    request.count = range(part, |end| {
        number(end).ok_or_else(|| Error::Part(part.to_owned()))
    })?;
    some(request.count, part)
}

/// Neither end may be nothing.
fn some(bounds: Bounds, part: &str) -> Result<(), Error> {
    match (bounds.min, bounds.max) {
        (Some(0), _) | (_, Some(0)) => Err(Error::None(part.to_owned())),
        _ => Ok(()),
    }
}

fn range(part: &str, end: impl Fn(&str) -> Result<u32, Error>) -> Result<Bounds, Error> {
    let optional = |text: &str| {
        if text.is_empty() {
            Ok(None)
        } else {
            end(text.trim()).map(Some)
        }
    };
    let bounds = match part.split_once("..") {
        None => Bounds::exactly(end(part)?),
        Some(("", "")) => return Err(Error::Part(part.to_owned())),
        Some((min, max)) => Bounds {
            min: optional(min)?,
            max: optional(max)?,
        },
    };
    match (bounds.min, bounds.max) {
        (Some(min), Some(max)) if min > max => Err(Error::Backwards(part.to_owned())),
        _ => Ok(bounds),
    }
}

/// A unit makes it memory.
fn is_memory(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && part.contains(|c: char| c.is_ascii_alphabetic())
}

fn is_count(part: &str) -> bool {
    !part.is_empty()
        && part
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
}

#[cfg(test)]
mod tests;
