//! The config file: what it says of backends and of what launches teach. All of it is checked, and
//! every fault is told at once with its line, its backend and its key. Nothing is opened but the
//! files that hold keys.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use muster_runtime::connect::Endpoints;
use toml::de::DeTable;

use super::kinds;
use super::table::{Problem, Problems, Reader};
use crate::domain::outcome::Policy;
use crate::spec::{Kind, Spec, Times};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the file says beside flags.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// The backends that it names, in its order.
    pub backends: Vec<Spec>,
    /// For how long outcomes of launches are believed.
    pub outcomes: Policy,
}

/// What the file is read with.
pub struct Surroundings<'a> {
    /// Where the worker-registry is, for backends of the kind fleet that do not say.
    pub workers: &'a Endpoints,
    /// The process's environment, which may hold keys.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Keys at the top that are read elsewhere: flags, and who may call.
    pub elsewhere: &'a [String],
}

/// Reads the whole file.
pub fn read(text: &str, around: &Surroundings<'_>) -> Result<Contents, Vec<Problem>> {
    let mut problems = Problems::of(text);
    let (document, faults) = DeTable::parse_recoverable(text);
    for fault in faults {
        let at = fault.span().unwrap_or_default();
        problems.add(&at, format!("not TOML: {}", fault.message()));
    }
    let mut top = Reader::new(document.get_ref(), document.span(), String::new());
    let outcomes = outcomes(&mut top, &mut problems);
    let backends = backends(&mut top, around, &mut problems);
    let elsewhere: Vec<&str> = around.elsewhere.iter().map(String::as_str).collect();
    top.finish(&elsewhere, &mut problems);
    let problems = problems.into_sorted();
    if problems.is_empty() {
        Ok(Contents { backends, outcomes })
    } else {
        Err(problems)
    }
}

/// What is wrong with a file, in words.
pub fn describe(path: &Path, problems: &[Problem]) -> String {
    let count = match problems.len() {
        1 => "1 error".to_owned(),
        count => format!("{count} errors"),
    };
    let mut words = format!("config file {}: {count}", path.display());
    for problem in problems {
        words.push_str(&format!("\n  {problem}"));
    }
    words
}

fn outcomes(top: &mut Reader<'_, '_>, problems: &mut Problems<'_>) -> Policy {
    let mut policy = Policy::default();
    let Some(mut table) = top.table("outcomes", problems) else {
        return policy;
    };
    if let Some(half_life) = table.time("half_life", (SECOND, 30 * DAY), problems) {
        policy.half_life = half_life;
    }
    if let Some(weight) = table.weight("zone_above", problems) {
        policy.zone_above = weight;
    }
    if let Some(weight) = table.weight("region_above", problems) {
        policy.region_above = weight;
    }
    table.finish(&[], problems);
    policy
}

fn backends(
    top: &mut Reader<'_, '_>,
    around: &Surroundings<'_>,
    problems: &mut Problems<'_>,
) -> Vec<Spec> {
    let Some(value) = top.value("backend") else {
        return Vec::new();
    };
    let tables = value.get_ref().as_array();
    let Some(tables) = tables else {
        top.complain("backend", "write each backend as [[backend]]", problems);
        return Vec::new();
    };
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut specs = Vec::new();
    for (number, table) in (1usize..).zip(tables.iter()) {
        let Some(inner) = table.get_ref().as_table() else {
            problems.add(
                &table.span(),
                "write each backend as [[backend]]".to_owned(),
            );
            continue;
        };
        let mut reader = Reader::new(inner, table.span(), format!("backend {number}"));
        let name = name(&mut reader, &mut names, number, problems);
        let spec = backend(reader, name.unwrap_or_default(), around, problems);
        specs.extend(spec);
    }
    specs
}

fn name(
    reader: &mut Reader<'_, '_>,
    names: &mut BTreeMap<String, usize>,
    number: usize,
    problems: &mut Problems<'_>,
) -> Option<String> {
    if !reader.has("name") {
        reader.value("name");
        reader.missing("has no name", problems);
        return None;
    }
    let check = |text: &str| muster_model::name::check(text).map(|()| text.to_owned());
    let name = reader.text("name", "a name in quotes", check, problems)?;
    reader.rename(format!("backend {name:?}"));
    if let Some(first) = names.insert(name.clone(), number) {
        let what = format!("is the name of backend {first} already");
        reader.complain("name", what, problems);
    }
    Some(name)
}

fn backend(
    mut reader: Reader<'_, '_>,
    name: String,
    around: &Surroundings<'_>,
    problems: &mut Problems<'_>,
) -> Option<Spec> {
    let kind = kinds::read(&mut reader, around, problems);
    let defaults = kind.as_ref().map_or_else(Times::default, Kind::times);
    let times = times(&mut reader, defaults, problems);
    // Of a kind that is not known nobody knows which keys it has.
    if kind.is_some() || reader.has("kind") && kinds::is_known(&mut reader) {
        reader.finish(&[], problems);
    }
    Some(Spec {
        name,
        kind: kind?,
        times,
    })
}

fn times(reader: &mut Reader<'_, '_>, defaults: Times, problems: &mut Problems<'_>) -> Times {
    let mut times = defaults;
    let attempt = (SECOND / 10, DAY);
    if let Some(time) = reader.time("refresh_interval", (SECOND, 30 * DAY), problems) {
        times.refresh_interval = time;
    }
    if let Some(time) = reader.time("attempt_timeout", attempt, problems) {
        times.attempt_timeout = time;
        times.refresh_timeout = times.refresh_timeout.max(time);
    }
    if let Some(time) = reader.time("refresh_timeout", attempt, problems) {
        times.refresh_timeout = time;
        if time < times.attempt_timeout {
            let attempt = muster_model::quantity::duration::print(times.attempt_timeout);
            let what = format!("is less than attempt_timeout, which is {attempt}");
            reader.complain("refresh_timeout", what, problems);
        }
    }
    drop_after(reader, &mut times, problems);
    breaker(reader, &mut times, problems);
    times
}

fn drop_after(reader: &mut Reader<'_, '_>, times: &mut Times, problems: &mut Problems<'_>) {
    let parse = |text: &str| match text {
        "never" => Ok(None),
        _ => muster_runtime::args::parse_duration(text)
            .map(Some)
            .map_err(|error| format!("{error}, or \"never\"")),
    };
    let allowed = "a time in quotes, such as \"24h\", or \"never\"";
    let Some(drop_after) = reader.text("drop_after", allowed, parse, problems) else {
        return;
    };
    if drop_after.is_some_and(|time| time < times.refresh_interval) {
        let interval = muster_model::quantity::duration::print(times.refresh_interval);
        let what = format!("is less than refresh_interval, which is {interval}");
        reader.complain("drop_after", what, problems);
    }
    times.drop_after = drop_after;
}

fn breaker(reader: &mut Reader<'_, '_>, times: &mut Times, problems: &mut Problems<'_>) {
    let Some(mut table) = reader.table("breaker", problems) else {
        return;
    };
    let breaker = &mut times.breaker;
    if let Some(threshold) = table.number("threshold", (1, 1000), problems) {
        breaker.threshold = threshold;
    }
    let within = (SECOND / 10, DAY);
    if let Some(time) = table.time("initial", within, problems) {
        breaker.initial = time;
        breaker.max = breaker.max.max(time);
    }
    if let Some(time) = table.time("max", within, problems) {
        breaker.max = time;
        if time < breaker.initial {
            let initial = muster_model::quantity::duration::print(breaker.initial);
            table.complain(
                "max",
                format!("is less than initial, which is {initial}"),
                problems,
            );
        }
    }
    table.finish(&[], problems);
}

#[cfg(test)]
mod tests;
