//! Puts a component's settings together from the command line, the environment and the file, and
//! shows the result. Whatever is wrong is a usage error with words, before anything is opened.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args as _, Command, FromArgMatches as _};
use serde::Deserialize as _;
use toml::{Table, Value};

use super::CommonArgs;
use super::file::ConfigFile;
use crate::auth::{self, Entry};
use crate::process::Component;

/// Flags that say what to do once, and so have no place in the environment or a file.
const NOT_SETTINGS: [&str; 3] = ["print_config", "help", "version"];

/// The key of those who may call.
const AUTH: &str = "auth";

/// A component's settings from all sources.
#[derive(Debug)]
pub(crate) struct Parsed<C: Component> {
    pub(crate) common: CommonArgs,
    pub(crate) own: C::Args,
    pub(crate) file: C::File,
    /// `[[auth]]` of the file.
    pub(crate) auth: Vec<Entry>,
    /// What `--print-config` shows.
    pub(crate) shown: String,
    /// What each flag and each other key of the file says, secrets and all.
    pub(crate) said: Table,
    /// The text of the file, if there is one.
    pub(crate) text: Option<String>,
}

/// Reads `words` (the program's name first) and all that they lead to.
pub(crate) fn parse<C: Component>(words: &[OsString]) -> Result<Parsed<C>, clap::Error> {
    let mut command = command::<C>();
    let file = match config_path(&command, words) {
        Some(path) => ConfigFile::read(Path::new(&path)).map(Some),
        None => Ok(None),
    };
    let file = file.map_err(|words| usage(&mut command, words))?;
    let table = file
        .as_ref()
        .map_or_else(|| Ok(Table::new()), ConfigFile::table);
    let mut table = table.map_err(|words| usage(&mut command, words))?;
    let flags = flags_in(&command, &mut table);
    if let (Some(file), Some(flag)) = (&file, flags.iter().find(|flag| flag.is_excess(&command))) {
        let words = file.wrong_at(
            &flag.id,
            None,
            format!("{}: takes one value, not a list", flag.id),
        );
        return Err(usage(&mut command, words));
    }
    command = defaults_from(command, &flags);
    let matches = command.try_get_matches_from_mut(words);
    let matches = matches.map_err(|error| of_file(&mut command, file.as_ref(), &flags, error))?;
    let common = CommonArgs::from_arg_matches(&matches)?;
    let own = C::Args::from_arg_matches(&matches)?;
    let shown = show(&command, &matches, &flags, &table);
    let said = said(&command, &matches, &table);
    let (auth, rest) =
        sections::<C>(file.as_ref(), table).map_err(|words| usage(&mut command, words))?;
    Ok(Parsed {
        common,
        own,
        file: rest,
        auth,
        shown,
        said,
        text: file.map(ConfigFile::into_text),
    })
}

/// Who may call, and what else the file says beside flags.
fn sections<C: Component>(
    file: Option<&ConfigFile>,
    mut table: Table,
) -> Result<(Vec<Entry>, C::File), String> {
    let auth = table
        .remove(AUTH)
        .unwrap_or_else(|| Value::Array(Vec::new()));
    let auth = auth::read_entries(auth).map_err(|error| match file {
        Some(file) => file.wrong_at(AUTH, error.entry(), error),
        None => error.to_string(),
    })?;
    let rest = match file {
        Some(file) => file.rest(&table)?,
        None => C::File::deserialize(table).map_err(|error| error.message().to_owned())?,
    };
    Ok((auth, rest))
}

/// A usage error of `C` in words, which clap's exit turns into exit code 2.
pub(crate) fn usage_error<C: Component>(words: String) -> clap::Error {
    usage(&mut command::<C>(), words)
}

fn usage(command: &mut Command, words: String) -> clap::Error {
    command.error(ErrorKind::ValueValidation, words)
}

fn command<C: Component>() -> Command {
    let mut command = Command::new(C::NAME).version(C::VERSION).about(C::ABOUT);
    command = C::Args::augment_args(CommonArgs::augment_args(command));
    for (flag, default) in C::DEFAULTS {
        command = command.mut_arg(id_of(flag), |arg| {
            arg.default_value(*default).required(false)
        });
    }
    let command = command.mut_args(|arg| {
        let id = arg.get_id().to_string();
        if arg.is_positional() || NOT_SETTINGS.contains(&id.as_str()) || arg.get_env().is_some() {
            return arg;
        }
        arg.env(format!("MUSTER_{}", id.to_uppercase()))
    });
    without_empty_variables(command)
}

/// The command, to whose flags a variable that is empty is as one that is not set.
#[must_use]
pub fn without_empty_variables(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        if value.is_some_and(|value| value.is_empty()) {
            arg.env(Resettable::Reset)
        } else {
            arg
        }
    });
    command.mut_subcommands(without_empty_variables)
}

fn id_of(flag: &str) -> String {
    flag.replace('-', "_")
}

/// Where the file is, which has to be known before the rest can be judged.
fn config_path(command: &Command, words: &[OsString]) -> Option<OsString> {
    let command = command.clone().ignore_errors(true);
    let matches = command.try_get_matches_from(words).ok()?;
    let mut found = matches.get_raw("config")?;
    found.next().map(OsString::from)
}

/// A flag that the file has a value for.
struct InFile {
    id: String,
    values: Vec<String>,
}

impl InFile {
    /// Whether it has more values than the flag takes.
    fn is_excess(&self, command: &Command) -> bool {
        let mut args = command.get_arguments();
        let arg = args.find(|arg| arg.get_id() == self.id.as_str());
        self.values.len() > 1 && arg.is_some_and(|arg| !takes_many(arg))
    }
}

fn takes_many(arg: &Arg) -> bool {
    matches!(arg.get_action(), clap::ArgAction::Append)
}

/// Takes what the file says of flags out of `table`.
fn flags_in(command: &Command, table: &mut Table) -> Vec<InFile> {
    let ids = command.get_arguments().map(|arg| arg.get_id().to_string());
    let has_flag = |id: &String| !NOT_SETTINGS.contains(&id.as_str()) && id != "config";
    let found = ids.filter(has_flag).filter_map(|id| {
        let values = as_words(table.get(&id)?)?;
        table.remove(&id);
        Some(InFile { id, values })
    });
    found.collect()
}

/// Makes what the file says of flags their default.
fn defaults_from(mut command: Command, flags: &[InFile]) -> Command {
    for InFile { id, values } in flags {
        let values = values.clone();
        command = command.mut_arg(id, |arg| arg.default_values(values).required(false));
    }
    command
}

/// The error in words that name the place in the file, if it is a value there that is wrong.
fn of_file(
    command: &mut Command,
    file: Option<&ConfigFile>,
    flags: &[InFile],
    error: clap::Error,
) -> clap::Error {
    let Some(ContextValue::String(wrong)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let args = command.get_arguments().cloned();
    let arg = args.filter(|arg| arg.to_string() == *wrong).find(|arg| {
        let id = arg.get_id().as_str();
        flags.iter().any(|flag| flag.id == id)
    });
    let (Some(file), Some(arg)) = (file, arg) else {
        return error;
    };
    let id = arg.get_id().to_string();
    // The command line may say otherwise, and wrong.
    let alone = Command::new("file").arg(arg.env(Resettable::Reset));
    match alone.try_get_matches_from(["file"]) {
        Ok(_) => error,
        Err(fault) => {
            let words = file.wrong_at(&id, None, format!("{id}: {}", without_value(&fault)));
            usage(command, words)
        }
    }
}

/// What is wrong with a value, which is not shown: it may be a secret.
fn without_value(error: &clap::Error) -> String {
    if let Some(cause) = std::error::Error::source(error) {
        return cause.to_string();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(there_are)) => format!("there are {}", there_are.join(", ")),
        Some(_) | None => "is not a value for it".to_owned(),
    }
}

/// A flag's values as they would stand on the command line; `None` for what no flag can hold.
fn as_words(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(vec![value.to_string()]),
        Value::Array(items) => {
            let nested = items.iter().map(as_words).collect::<Option<Vec<_>>>()?;
            Some(nested.into_iter().flatten().collect())
        }
        Value::Table(_) | Value::Datetime(_) => None,
    }
}

/// Every flag with its value and where that came from, and what else the file says: a file that
/// leads to the same settings.
fn show(command: &Command, matches: &ArgMatches, flags: &[InFile], rest: &Table) -> String {
    let mut text = String::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        if NOT_SETTINGS.contains(&id) || id == "config" || arg.is_positional() {
            continue;
        }
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "flag",
            Some(ValueSource::EnvVariable) => "environment",
            Some(_) if flags.iter().any(|flag| flag.id == id) => "file",
            Some(_) => "default",
            None => {
                let _ = writeln!(text, "# {id} is not set");
                continue;
            }
        };
        let _ = writeln!(text, "{id} = {}  # {source}", shown_value(arg, matches));
    }
    if !rest.is_empty() {
        let mut rest = rest.clone();
        rest.iter_mut().for_each(|(key, value)| redact(key, value));
        let _ = write!(text, "\n{rest}");
    }
    text
}

/// What each flag comes to, and what else the file says: to compare with another reading.
fn said(command: &Command, matches: &ArgMatches, rest: &Table) -> Table {
    let mut said = rest.clone();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        if NOT_SETTINGS.contains(&id) || arg.is_positional() {
            continue;
        }
        let words = matches.get_raw(id).into_iter().flatten();
        let words = words.map(|word| Value::String(word.to_string_lossy().into_owned()));
        said.insert(id.to_owned(), Value::Array(words.collect()));
    }
    said
}

/// Keys whose values are secrets, wherever they stand and whether they should or not.
const SECRETS: [&str; 7] = [
    "key",
    "api_key",
    "token",
    "password",
    "secret",
    "bearer",
    "authorization",
];

/// Blots out what must not be shown: secrets, and what of a URL may be one.
fn redact(key: &str, value: &mut Value) {
    match value {
        Value::String(text) if SECRETS.contains(&key) => "***".clone_into(text),
        Value::String(text) => {
            if let Some(shown) = without_secrets(text) {
                *text = shown;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redact(key, item)),
        Value::Table(table) => table.iter_mut().for_each(|(key, value)| redact(key, value)),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}

/// A URL without its user, who may stand with a password. None for what has none.
fn without_user(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (place, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    // A password may have slashes of its own.
    let (_, host) = place.rsplit_once('@')?;
    Some(format!("{scheme}://***@{host}{query}"))
}

/// A URL without its user and with nothing of its query: either may be a secret. None for what has
/// neither.
fn without_secrets(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("://")?;
    let Some((_, query)) = rest.split_once('?') else {
        return without_user(text);
    };
    let before = &text[..text.len() - query.len() - 1];
    let before = without_user(before).unwrap_or_else(|| before.to_owned());
    Some(format!("{before}?***"))
}

fn shown_value(arg: &Arg, matches: &ArgMatches) -> Value {
    let raw = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
    let mut values: Vec<Value> = raw
        .map(|word| word.to_string_lossy().into_owned())
        .map(|word| Value::String(without_user(&word).unwrap_or(word)))
        .collect();
    let one = values.len() == 1 && !takes_many(arg);
    if one {
        values.swap_remove(0)
    } else {
        Value::Array(values)
    }
}
