//! What the gateway is told at its start: flags, and backends from the config file. Everything is
//! checked before anything is opened, and every fault is told with its place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_runtime::args::parse_duration;
use muster_store::Spec as StoreSpec;

use crate::builtin::PRICE_LISTS;
use crate::domain::outcome::Policy;
use crate::spec::{Kind, Place, Spec};

/// The flags of offers-gateway beside the common ones.
#[derive(Clone, Debug, clap::Args)]
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
    /// How long a caller waits for one backend at most
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    pub backend_timeout: Duration,
}

/// The gateway's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where offers are kept; none keeps them in memory only.
    pub data: Option<PathBuf>,
    /// Where what launches have taught is kept.
    pub store: StoreSpec,
    /// How long a caller waits for one backend at most.
    pub backend_timeout: Duration,
    /// For how long outcomes of launches are believed, and how far they reach.
    pub outcomes: Policy,
    /// The backends, in order of name.
    pub backends: Vec<Spec>,
}

impl Config {
    /// The settings that flags make.
    pub fn new(args: Args) -> Result<Self, String> {
        let backends = match &args.catalog {
            Some(folder) => catalogs(folder)?,
            None => built_in(),
        };
        let store = match (args.store, &args.data) {
            (Some(store), _) => store,
            (None, None) => StoreSpec::Memory,
            (None, Some(folder)) => StoreSpec::Embedded(folder.join("outcomes.db")),
        };
        Ok(Self {
            store,
            data: args.data,
            backend_timeout: args.backend_timeout,
            outcomes: Policy::default(),
            backends,
        })
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
    let shown = folder.display();
    let entries =
        std::fs::read_dir(folder).map_err(|error| format!("catalog folder {shown}: {error}"))?;
    let mut backends = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("catalog folder {shown}: {error}"))?;
        let file = entry.path().join("vms.csv");
        let name = entry.file_name();
        if let Some(name) = name.to_str().filter(|_| file.is_file()) {
            backends.push(Spec::new(name, Kind::Catalog(Place::File(file))));
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
