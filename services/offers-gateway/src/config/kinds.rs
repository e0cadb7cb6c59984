//! The kinds of backends as the config file names them, and the keys that each has of its own.

use std::path::PathBuf;

use muster_model::suggest;
use muster_runtime::connect::Endpoints;

use super::file::Surroundings;
use super::table::{Problems, Reader};
use crate::spec::{Api, Cloud, Key, Kind, Place, Provider, Secret, Service, Url};

/// Kinds that are no provider's.
const OURS: [&str; 4] = ["catalog", "gpuhunt", "grpc", "fleet"];

fn all() -> Vec<&'static str> {
    OURS.into_iter()
        .chain(Provider::ALL.map(Provider::name))
        .collect()
}

/// Whether the table's kind is one that there is.
pub(super) fn is_known(reader: &mut Reader<'_, '_>) -> bool {
    let kind = reader
        .value("kind")
        .and_then(|value| value.get_ref().as_str());
    kind.is_some_and(|kind| all().contains(&kind))
}

/// The kind with all that it is configured with; none if it cannot be told.
pub(super) fn read(
    reader: &mut Reader<'_, '_>,
    around: &Surroundings<'_>,
    problems: &mut Problems<'_>,
) -> Option<Kind> {
    let kinds = all();
    if !reader.has("kind") {
        let kinds = kinds.join(", ");
        reader.missing(format!("has no kind; one of {kinds}"), problems);
        return None;
    }
    let check = |text: &str| {
        kinds
            .iter()
            .find(|kind| **kind == text)
            .copied()
            .ok_or_else(|| match suggest::nearest(text, kinds.iter().copied()) {
                Some(near) => format!("there is no kind {text:?}; did you mean {near:?}?"),
                None => format!("there is no kind {text:?}; one of {}", kinds.join(", ")),
            })
    };
    let kind = reader.text(
        "kind",
        "a kind in quotes, such as \"catalog\"",
        check,
        problems,
    )?;
    match kind {
        "catalog" => place(reader, problems).map(Kind::Catalog),
        "gpuhunt" => place(reader, problems).map(Kind::Gpuhunt),
        "grpc" => service(reader, around, problems).map(Kind::Service),
        "fleet" => {
            let given = reader.has("address");
            let address = address(reader, problems);
            let default = (!given).then(|| around.workers.clone());
            address.or(default).map(Kind::Fleet)
        }
        _ => {
            let provider = Provider::ALL.into_iter().find(|p| p.name() == kind)?;
            api(provider, reader, around, problems).map(Kind::Api)
        }
    }
}

/// A file or a URL: one of the two.
fn place(reader: &mut Reader<'_, '_>, problems: &mut Problems<'_>) -> Option<Place> {
    let (has_path, has_url) = (reader.has("path"), reader.has("url"));
    let parse = |text: &str| {
        if text.is_empty() {
            Err("is empty; write the path of a file")
        } else {
            Ok(PathBuf::from(text))
        }
    };
    let path = reader.text("path", "the path of a file in quotes", parse, problems);
    let url = reader.text("url", "a URL in quotes", str::parse::<Url>, problems);
    match (has_path, has_url) {
        (true, true) => reader.complain("url", "there is a path already; leave out one", problems),
        (false, false) => reader.missing("has neither path nor url", problems),
        (true, false) | (false, true) => {}
    }
    path.map(Place::File).or(url.map(Place::Url))
}

fn address(reader: &mut Reader<'_, '_>, problems: &mut Problems<'_>) -> Option<Endpoints> {
    let allowed = "a URL in quotes, such as \"http://127.0.0.1:9000\"";
    reader.text("address", allowed, str::parse::<Endpoints>, problems)
}

fn service(
    reader: &mut Reader<'_, '_>,
    around: &Surroundings<'_>,
    problems: &mut Problems<'_>,
) -> Option<Service> {
    if !reader.has("address") {
        let example = "address = \"http://127.0.0.1:9000\"";
        reader.missing(format!("has no address, such as {example}"), problems);
    }
    let endpoints = address(reader, problems);
    let key = key(reader, around, problems);
    Some(Service {
        endpoints: endpoints?,
        key,
    })
}

fn api(
    provider: Provider,
    reader: &mut Reader<'_, '_>,
    around: &Surroundings<'_>,
    problems: &mut Problems<'_>,
) -> Option<Api> {
    let provider = match provider {
        Provider::Runpod(default) => Provider::Runpod(cloud(reader, problems).unwrap_or(default)),
        Provider::Vastai | Provider::Lambda | Provider::Digitalocean | Provider::Vultr => provider,
    };
    let given = reader.has("url");
    let base = reader.text("url", "a URL in quotes", str::parse::<Url>, problems);
    let default = || provider.default_base().parse().ok();
    let base = if given { base } else { default() };
    let key = key(reader, around, problems);
    let key = key.unwrap_or_else(|| of_environment(provider.key_variable(), around));
    Some(Api::new(provider, base?, key))
}

fn cloud(reader: &mut Reader<'_, '_>, problems: &mut Problems<'_>) -> Option<Cloud> {
    let parse = |text: &str| {
        let known = Cloud::ALL.into_iter().find(|cloud| cloud.name() == text);
        known.ok_or(
            "is neither \"secure\" nor \"community\"; a backend reads one of them, so configure \
             two for both",
        )
    };
    let allowed = "\"secure\" or \"community\"";
    reader.text("cloud", allowed, parse, problems)
}

/// The key that `key_env` or `key_file` leads to; none if there is neither.
fn key(
    reader: &mut Reader<'_, '_>,
    around: &Surroundings<'_>,
    problems: &mut Problems<'_>,
) -> Option<Key> {
    for inline in ["key", "token", "api_key"] {
        if reader.has(inline) {
            reader.tolerate(inline);
            let what = "keys do not stand in this file: name a variable with key_env, or a file \
                        with key_file";
            reader.complain(inline, what, problems);
        }
    }
    let both = reader.has("key_env") && reader.has("key_file");
    if both {
        reader.complain(
            "key_file",
            "there is a key_env already; leave out one",
            problems,
        );
    }
    let from_variable = |name: &str| {
        let sane = !name.is_empty() && !name.contains(['=', '\0']);
        sane.then(|| of_environment(name, around))
            .ok_or("is not the name of an environment variable")
    };
    let allowed = "the name of an environment variable in quotes";
    let variable = reader.text("key_env", allowed, from_variable, problems);
    let file = reader.text(
        "key_file",
        "the path of a file in quotes",
        of_file,
        problems,
    );
    variable.or(file)
}

fn of_environment(name: &str, around: &Surroundings<'_>) -> Key {
    let place = format!("the environment variable {name}");
    known((around.environment)(name), place)
}

fn of_file(path: &str) -> Result<Key, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(known(Some(text), format!("the file {path}"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Key::Missing(format!("the file {path}")))
        }
        Err(error) => Err(format!("cannot read {path}: {error}")),
    }
}

/// A key that is no key is as good as none: the backend is disabled, and says where it looked.
fn known(text: Option<String>, place: String) -> Key {
    let secret = text.map(|text| Secret::new(&text));
    match secret {
        Some(Ok(secret)) => Key::Known(secret),
        Some(Err(_)) | None => Key::Missing(place),
    }
}
