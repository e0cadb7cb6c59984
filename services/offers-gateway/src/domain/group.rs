//! Sums up a selection by accelerator, backend or region.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::quantity::MicroUsd;

use super::market::{Market, Shelf};
use super::offer::Machine;
use super::selection::Selection;
use super::snapshot::Row;

/// What offers are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// The accelerator's name.
    Gpu,
    /// The backend.
    Backend,
    /// Backend and region.
    Region,
}

/// Offers that have something in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// How many.
    pub offers: u32,
    /// The lowest price of a machine; none if none is known.
    pub min_price: Option<MicroUsd>,
    /// The highest.
    pub max_price: Option<MicroUsd>,
    /// The lowest price of one accelerator.
    pub min_price_per_gpu: Option<MicroUsd>,
    /// Who has them.
    pub backends: BTreeSet<String>,
    /// In how many regions they are, of all backends.
    pub regions: u32,
}

/// What machines without an accelerator are grouped as.
pub const NO_GPU: &str = "none";

/// The groups of a selection, in order of key.
pub fn group(market: &Market, selection: &Selection, by: By) -> BTreeMap<String, Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let mut regions = BTreeSet::new();
    for hit in &selection.hits {
        let shelf = &market.shelves()[hit.shelf as usize];
        let row = shelf.snapshot.row(hit.row);
        let key = key_of(shelf, row, by);
        let group = groups.entry(key.clone()).or_default();
        group.add(shelf.snapshot.machine(row), shelf.shown(hit.row, row).price);
        if !group.backends.contains(shelf.backend()) {
            group.backends.insert(shelf.backend().to_owned());
        }
        if regions.insert((key, hit.shelf, row.region.0)) {
            group.regions += 1;
        }
    }
    groups
}

fn key_of(shelf: &Shelf, row: &Row, by: By) -> String {
    match by {
        By::Gpu => gpu_names(shelf.snapshot.machine(row)),
        By::Backend => shelf.backend().to_owned(),
        By::Region => format!("{}/{}", shelf.backend(), shelf.snapshot.text(row.region)),
    }
}

/// The names of a machine's accelerators, or [`NO_GPU`].
pub fn gpu_names(machine: &Machine) -> String {
    if machine.gpus.is_empty() {
        return NO_GPU.to_owned();
    }
    let names: Vec<&str> = machine
        .gpus
        .iter()
        .map(|group| group.name.as_str())
        .collect();
    names.join("+")
}

impl Group {
    fn add(&mut self, machine: &Machine, price: Option<MicroUsd>) {
        self.offers += 1;
        let Some(price) = price else { return };
        self.min_price = Some(self.min_price.map_or(price, |min| min.min(price)));
        self.max_price = Some(self.max_price.map_or(price, |max| max.max(price)));
        if let Some(each) = price_per_gpu(machine, price) {
            self.min_price_per_gpu = Some(self.min_price_per_gpu.map_or(each, |min| min.min(each)));
        }
    }
}

/// The price of one whole accelerator, to the nearest millionth; none for a machine without.
pub fn price_per_gpu(machine: &Machine, price: MicroUsd) -> Option<MicroUsd> {
    let milli = i128::from(machine.gpu_milli());
    if milli == 0 {
        return None;
    }
    let each = (i128::from(price.0) * 1000 + milli / 2) / milli;
    i64::try_from(each).ok().map(MicroUsd)
}
