//! Where the components are and how to prove oneself to them: from flags and
//! their variables, else from a context of the configuration file, else the
//! defaults.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use muster_model::suggest;
use muster_runtime::{
    connect::{Connector, Endpoints, Options},
    tls,
};
use serde::Deserialize;

use crate::{
    args::Global,
    failure::Failure,
    session::{Addresses, Session},
};

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The context that is used when none is named.
    current: Option<String>,
    /// Contexts by name.
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

/// One place where a stack runs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    offers_addr: Option<String>,
    workers_addr: Option<String>,
    replicas_addr: Option<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

/// The session that the flags ask for.
pub(crate) fn session(global: &Global) -> Result<Session, Failure> {
    let context = choose(global.context.as_deref())?;
    let given = &global.addresses;
    let addresses = Addresses {
        gateway: endpoints(
            "offers-addr",
            &given.offers_addr,
            &context.offers_addr,
            7400,
        )?,
        registry: endpoints(
            "workers-addr",
            &given.workers_addr,
            &context.workers_addr,
            7401,
        )?,
        manager: endpoints(
            "replicas-addr",
            &given.replicas_addr,
            &context.replicas_addr,
            7402,
        )?,
    };
    let identity = global.cert.clone().zip(global.key.clone());
    let identity = identity.or_else(|| context.cert.clone().zip(context.key.clone()));
    let client = tls::Client::load(
        global.ca.clone().or(context.ca),
        identity,
        global.token_file.clone().or(context.token_file),
    );
    let client = client.map_err(|error| Failure::Usage(error.to_string()))?;
    let connector = client.equip(Connector::new(Options::default()));
    Ok(Session::new(addresses, connector, global.output))
}

fn endpoints(
    flag: &str,
    given: &Option<String>,
    context: &Option<String>,
    port: u16,
) -> Result<Endpoints, Failure> {
    let default = format!("http://127.0.0.1:{port}");
    let text = given.as_deref().or(context.as_deref()).unwrap_or(&default);
    text.parse()
        .map_err(|error| Failure::Usage(format!("--{flag}: {error}")))
}

/// The context of this name, or the file's current one; an empty one if none is named.
fn choose(name: Option<&str>) -> Result<Context, Failure> {
    let Some(path) = path() else {
        return Ok(Context::default());
    };
    let name = name.filter(|name| !name.is_empty()).map(str::to_owned);
    match (read(&path)?, name) {
        (Some(file), name) => file.context(name, &path),
        (None, None) => Ok(Context::default()),
        (None, Some(name)) => {
            let message = format!(
                "there is no context `{name}`, since there is no {}",
                path.display()
            );
            Err(Failure::Usage(message))
        }
    }
}

impl File {
    fn context(self, name: Option<String>, path: &Path) -> Result<Context, Failure> {
        let Some(name) = name.or(self.current) else {
            return Ok(Context::default());
        };
        let wrong = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
        let Some(context) = self.contexts.get(&name) else {
            let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let hint = suggest::hint(&name, names.iter().copied());
            let names = names.join(", ");
            return Err(wrong(format!(
                "there is no context `{name}`{hint}; it has: {names}"
            )));
        };
        if context.cert.is_some() != context.key.is_some() {
            let what = "has only one of cert and key, which go together";
            return Err(wrong(format!("the context `{name}` {what}")));
        }
        Ok(context.clone())
    }
}

fn path() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
    Some(
        folder
            .map(PathBuf::from)
            .or_else(home)?
            .join("muster/config.toml"),
    )
}

/// The file; none if it is not there.
fn read(path: &Path) -> Result<Option<File>, Failure> {
    let wrong = |error: String| Failure::Usage(format!("{}: {error}", path.display()));
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text)
            .map(Some)
            .map_err(|error| wrong(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_contexts() {
        let text = "current = \"prod\"\n[contexts.prod]\nworkers_addr = \"https://w:7401\"\nca = \"/ca\"\n";
        let file: File = toml::from_str(text).unwrap();
        assert_eq!(file.current.as_deref(), Some("prod"));
        assert_eq!(
            file.contexts["prod"].workers_addr.as_deref(),
            Some("https://w:7401")
        );
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = toml::from_str::<File>("[contexts.prod]\nworker_addr = \"x\"\n").unwrap_err();
        assert!(error.to_string().contains("worker_addr"), "{error}");
    }

    #[test]
    fn a_context_that_cannot_be_used_is_told_with_what_there_is() {
        let text = "[contexts.prod]\ncert = \"/c\"\n[contexts.test]\n";
        let chosen = |name: Option<&str>| {
            let file: File = toml::from_str(text).unwrap();
            let chosen = file.context(name.map(str::to_owned), Path::new("/config"));
            chosen.map(drop).map_err(|failure| failure.to_string())
        };
        assert_eq!(chosen(None), Ok(()));
        assert_eq!(chosen(Some("test")), Ok(()));
        let unknown = chosen(Some("tset")).unwrap_err();
        assert!(
            unknown.starts_with("/config: there is no context `tset`"),
            "{unknown}"
        );
        assert!(unknown.ends_with("it has: prod, test"), "{unknown}");
        let half = "/config: the context `prod` has only one of cert and key, which go together";
        assert_eq!(chosen(Some("prod")), Err(half.to_owned()));
    }

    #[test]
    fn a_flag_wins_over_a_context_and_that_over_the_default() {
        let of = |given: Option<&str>, context: Option<&str>| {
            let (given, context) = (given.map(str::to_owned), context.map(str::to_owned));
            let found = endpoints("x", &given, &context, 7400).unwrap();
            found
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",")
        };
        assert!(of(Some("http://a:1"), Some("http://b:2")).contains("a:1"));
        assert!(of(None, Some("http://b:2")).contains("b:2"));
        assert!(of(None, None).contains("127.0.0.1:7400"));
    }
}
