//! What the gateway is told at its start, and again when it is asked to read it again: flags, and
//! backends from the config file. Everything is checked before anything is opened, and every fault
//! is told with its place.

mod file;
mod kinds;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_runtime::args::{CommonArgs, parse_duration};
use muster_runtime::connect::Endpoints;
use muster_runtime::process::Component;
use muster_store::Spec as StoreSpec;

use crate::builtin::PRICE_LISTS;
use crate::domain::outcome::Policy;
use crate::keeper::{self, Keeper};
use crate::spec::{Kind, Place, Spec};

pub use file::{Contents, Surroundings, describe, read};
pub use table::Problem;

/// Where the worker-registry is unless it is said.
const WORKERS: &str = "http://127.0.0.1:7401";

/// The backend that offers our own workers.
pub const FLEET: &str = "fleet";

/// The file of a folder that makes it a backend.
const PRICE_LIST: &str = "vms.csv";

/// The flags of offers-gateway beside the common ones.
#[derive(Clone, Debug, clap::Args)]
// The help would begin with the line above.
#[command(about = <crate::Gateway as Component>::ABOUT)]
pub struct Args {
    /// Keep state in this folder, which is made if it is not there: offers last read, for a quick
    /// start, and what launches have taught
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Keep what launches have taught elsewhere: "memory:" or "embedded:PATH"
    #[arg(long, value_name = "STORE")]
    pub store: Option<StoreSpec>,
    /// Make each DIR/*/vms.csv (SkyPilot's layout) a backend named after its folder
    #[arg(long, value_name = "DIR")]
    pub catalog: Option<PathBuf>,
    /// The worker-registry: URLs, comma separated. Where it is given, what is idle on our own
    /// workers is offered too, as the backend "fleet"
    #[arg(long, value_name = "URL")]
    pub workers_addr: Option<Endpoints>,
    /// How long a caller waits for one backend, unless it says so itself
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    pub backend_timeout: Duration,
    /// The longest that a caller may ask to wait for one backend; longer is cut to it
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub max_backend_timeout: Duration,
}

/// The gateway's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where offers are kept; none keeps them in memory only.
    pub data: Option<PathBuf>,
    /// Where what launches have taught is kept.
    pub store: StoreSpec,
    /// How long callers wait for one backend.
    pub timeouts: Timeouts,
    /// For how long outcomes of launches are believed, and how far they reach.
    pub outcomes: Policy,
    /// The backends, in order of name.
    pub backends: Vec<Spec>,
    /// The folder whose folders are backends.
    pub catalog: Option<PathBuf>,
}

/// How long callers wait for one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Unless they say so themselves.
    pub default: Duration,
    /// However long they say.
    pub max: Duration,
}

impl Timeouts {
    /// So long unless callers ask for less.
    pub fn always(time: Duration) -> Self {
        Self {
            default: time,
            max: time,
        }
    }

    /// How long a caller waits that asked for so long, or for nothing.
    pub fn of(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or(self.default).min(self.max)
    }
}

impl Config {
    /// The settings that flags make.
    pub fn new(args: Args) -> Result<Self, String> {
        Self::with_file(args, None)
    }

    /// The settings that flags and the config file make. `rest` are the keys of the file that no
    /// flag has taken.
    pub fn read(common: &CommonArgs, args: Args, rest: &toml::Table) -> Result<Self, String> {
        let Some(path) = &common.config else {
            return Self::new(args);
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("config file {}: {error}", path.display()))?;
        let default = WORKERS.parse();
        let default: Endpoints = default.map_err(|error| format!("{error}"))?;
        // What a flag or the runtime has read is none of ours.
        let ours = |key: &&String| !rest.contains_key(key.as_str());
        let all: toml::Table = text.parse().unwrap_or_default();
        let elsewhere: Vec<String> = all.keys().filter(ours).cloned().collect();
        let around = Surroundings {
            workers: args.workers_addr.as_ref().unwrap_or(&default),
            environment: &|name| std::env::var(name).ok(),
            elsewhere: &elsewhere,
        };
        let contents = read(&text, &around).map_err(|problems| describe(path, &problems))?;
        Self::with_file(args, Some(contents))
    }

    fn with_file(args: Args, contents: Option<Contents>) -> Result<Self, String> {
        if args.backend_timeout > args.max_backend_timeout {
            return Err("--backend-timeout is above --max-backend-timeout".to_owned());
        }
        let (configured, outcomes) = contents.map_or_else(
            || (Vec::new(), Policy::default()),
            |contents| (contents.backends, contents.outcomes),
        );
        let store = match (args.store, &args.data) {
            (Some(store), _) => store,
            (None, None) => StoreSpec::Memory,
            (None, Some(folder)) => StoreSpec::Embedded(folder.join("outcomes.db")),
        };
        let kept = args.data.as_ref().map(|data| data.join(keeper::FOLDER));
        let had = |spec: &Spec| {
            kept.as_ref()
                .is_some_and(|kept| Keeper::has(kept, &spec.name, &spec.kind.origin()))
        };
        let catalogs = args.catalog.as_deref();
        let catalogs = catalogs.map(|folder| catalogs_or_kept(folder, had));
        Ok(Self {
            backends: backends(configured, catalogs.transpose()?, args.workers_addr)?,
            store,
            data: args.data,
            catalog: args.catalog,
            timeouts: Timeouts {
                default: args.backend_timeout,
                max: args.max_backend_timeout,
            },
            outcomes,
        })
    }

    /// Keeps the backends in force whose price list is away while its folder is there: it is being
    /// replaced.
    pub fn keep_away(&mut self, in_force: &[Spec]) {
        let Some(folder) = &self.catalog else {
            return;
        };
        for spec in in_force {
            let place = folder.join(&spec.name);
            let is_ours = spec.kind == Kind::Catalog(Place::File(place.join(PRICE_LIST)));
            let is_gone = self.backends.iter().all(|other| other.name != spec.name);
            if is_ours && is_gone && place.is_dir() {
                self.backends.push(spec.clone());
            }
        }
        self.backends.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

/// All backends: those of the file and of the folder, or the built-in ones if there is neither, and
/// our own workers, if it is said where they are and nothing else offers them.
fn backends(
    mut backends: Vec<Spec>,
    catalogs: Option<Vec<Spec>>,
    workers: Option<Endpoints>,
) -> Result<Vec<Spec>, String> {
    let is_displaced = catalogs.iter().flatten().any(|spec| spec.name == FLEET);
    if workers.is_some() && is_displaced {
        // Whoever names one of many folders so hardly means to have no offers of their own machines.
        return Err(format!(
            "a folder of --catalog is called {FLEET:?}, which is the backend of our own workers: \
             call it something else"
        ));
    }
    match catalogs {
        Some(catalogs) => backends.extend(catalogs),
        None if backends.is_empty() => backends = built_in(),
        None => {}
    }
    let offers_workers = |spec: &Spec| spec.name == FLEET || matches!(spec.kind, Kind::Fleet(_));
    if let Some(workers) = workers.filter(|_| !backends.iter().any(offers_workers)) {
        backends.push(Spec::new(FLEET, Kind::Fleet(workers)));
    }
    backends.sort_by(|a, b| a.name.cmp(&b.name));
    let twice = backends
        .windows(2)
        .find(|pair| pair[0].name == pair[1].name);
    match twice {
        Some(pair) => Err(format!(
            "backend {:?} is both in the config file and a folder of --catalog",
            pair[0].name
        )),
        None => Ok(backends),
    }
}

/// The price lists that come with the gateway, for when nothing is configured.
pub fn built_in() -> Vec<Spec> {
    let specs = PRICE_LISTS
        .iter()
        .map(|list| Spec::new(list.name, Kind::BuiltIn(list)));
    specs.collect()
}

/// One backend for each folder in `folder` that holds a catalogue.
pub fn catalogs(folder: &Path) -> Result<Vec<Spec>, String> {
    catalogs_or_kept(folder, |_| false)
}

/// The same, and one for each folder whose catalogue is away but `had` offers: it is being replaced,
/// or was lost, and its backend says so rather than be gone.
fn catalogs_or_kept(folder: &Path, had: impl Fn(&Spec) -> bool) -> Result<Vec<Spec>, String> {
    let shown = folder.display();
    let entries =
        std::fs::read_dir(folder).map_err(|error| format!("catalog folder {shown}: {error}"))?;
    let mut backends = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("catalog folder {shown}: {error}"))?;
        let file = entry.path().join(PRICE_LIST);
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            continue;
        };
        let is_there = file.is_file();
        let spec = Spec::new(name, Kind::Catalog(Place::File(file)));
        if is_there || entry.path().is_dir() && had(&spec) {
            backends.push(spec);
        }
    }
    if backends.is_empty() {
        return Err(format!(
            "catalog folder {shown}: no folder in it holds a vms.csv"
        ));
    }
    backends.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(backends)
}

#[cfg(test)]
mod tests;
