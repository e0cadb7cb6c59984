//! Answers a question from a market: which offers meet a filter, in which order. It looks only at
//! the machines that can match, and decides for each of them once whether it has what is needed,
//! with the one function that the registry uses too.

use std::cmp::Ordering;

use muster_model::requirements::{Requirements, fits};

use super::market::{Market, Shelf};
use super::offer::Machine;
use super::query::{Direction, Filter, Key, Order};
use super::snapshot::{MachineId, Row, RowNumber, Snapshot, TextId, price_key};

/// An offer that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The place of its backend in the market.
    pub shelf: u32,
    /// The offer there.
    pub row: RowNumber,
}

/// The offers that meet a filter, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The offers.
    pub hits: Vec<Hit>,
    /// How many there are of each backend, by its place in the market.
    pub matched: Vec<u32>,
}

/// The offers of a market that meet a filter, in order.
pub fn select(market: &Market, filter: &Filter, order: Order) -> Selection {
    let mut matched = Vec::with_capacity(market.shelves().len());
    let mut sorted: Vec<(Place, u32)> = Vec::new();
    for (at, shelf) in (0u32..).zip(market.shelves()) {
        let rows = if filter.asks(shelf.backend()) {
            matching_rows(shelf, filter)
        } else {
            Vec::new()
        };
        matched.push(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        sorted.extend(
            rows.into_iter()
                .map(|row| (Place::of(shelf, row, order), at)),
        );
    }
    sorted.sort_unstable_by_key(|(place, _)| *place);
    let repriced = market.shelves().iter().any(|shelf| shelf.is_repriced());
    if repriced {
        let shelf = |at: u32| &market.shelves()[at as usize];
        sorted.sort_by(|(a, shelf_a), (b, _)| a.compare_with_ids(b, shelf(*shelf_a)));
    }
    let hits = sorted
        .into_iter()
        .map(|(place, shelf)| Hit {
            shelf,
            row: place.row,
        })
        .collect();
    Selection { hits, matched }
}

/// The rows of one backend that meet a filter, in order of their numbers.
pub fn matching_rows(shelf: &Shelf, filter: &Filter) -> Vec<RowNumber> {
    let snapshot = &shelf.snapshot;
    let Some(places) = Places::find(snapshot, filter) else {
        return Vec::new();
    };
    let meets = |number: &RowNumber| {
        let row = snapshot.row(*number);
        let shown = shelf.shown(*number, row);
        filter
            .capacity_type
            .is_none_or(|capacity_type| capacity_type == row.capacity_type)
            && filter.affords(shown.price)
            && places.admit(row)
            && (filter.availabilities.is_empty()
                || filter.availabilities.contains(&shown.availability))
    };
    let mut rows = rows_with(snapshot, &filter.requirements);
    rows.retain(meets);
    rows
}

/// Whether one row of a backend meets a filter: as [`matching_rows`] would say.
pub fn meets(shelf: &Shelf, number: RowNumber, filter: &Filter) -> bool {
    let row = shelf.snapshot.row(number);
    let shown = shelf.shown(number, row);
    let texts = |asked: &[String], text: TextId| {
        asked.is_empty() || asked.iter().any(|asked| asked == shelf.snapshot.text(text))
    };
    filter.asks(shelf.backend())
        && filter
            .capacity_type
            .is_none_or(|capacity_type| capacity_type == row.capacity_type)
        && filter.affords(shown.price)
        && texts(&filter.regions, row.region)
        && texts(&filter.zones, row.zone)
        && texts(&filter.instance_types, row.instance_type)
        && (filter.availabilities.is_empty() || filter.availabilities.contains(&shown.availability))
        && fits(
            &filter.requirements,
            &shelf.snapshot.capacities()[row.machine.0 as usize],
        )
}

/// The rows whose machine has what is needed, in order of their numbers.
fn rows_with(snapshot: &Snapshot, needs: &Requirements) -> Vec<RowNumber> {
    let all = 0..u32::try_from(snapshot.len()).unwrap_or(u32::MAX);
    if *needs == Requirements::default() {
        return all.collect();
    }
    let machines = machines_with(snapshot, needs);
    let count: usize = machines
        .iter()
        .map(|machine| snapshot.rows_of(*machine).len())
        .sum();
    // Sorting a few beats looking at all; for many it is the other way round.
    if count < snapshot.len() / 8 {
        let mut rows: Vec<RowNumber> = Vec::with_capacity(count);
        rows.extend(
            machines
                .iter()
                .flat_map(|machine| snapshot.rows_of(*machine)),
        );
        rows.sort_unstable();
        return rows;
    }
    let mut wanted = vec![false; snapshot.capacities().len()];
    for machine in machines {
        wanted[machine.0 as usize] = true;
    }
    all.filter(|row| wanted[snapshot.row(*row).machine.0 as usize])
        .collect()
}

/// The machines that have what is needed.
fn machines_with(snapshot: &Snapshot, needs: &Requirements) -> Vec<MachineId> {
    let capacities = snapshot.capacities();
    let named = !needs.gpu_any_of.is_empty()
        && needs
            .gpu_any_of
            .iter()
            .all(|request| !request.names.is_empty());
    let candidates = if named {
        let names = || needs.gpu_any_of.iter().flat_map(|request| &request.names);
        snapshot.machines_with_gpu(|has| names().any(|name| name.covers(has)))
    } else {
        (0u32..).take(capacities.len()).map(MachineId).collect()
    };
    let has_it = |machine: &MachineId| fits(needs, &capacities[machine.0 as usize]);
    candidates.into_iter().filter(has_it).collect()
}

/// The texts of a filter as one snapshot knows them; empty is any.
struct Places {
    regions: Vec<TextId>,
    zones: Vec<TextId>,
    instance_types: Vec<TextId>,
}

impl Places {
    /// None if the snapshot has nothing of what is asked for.
    fn find(snapshot: &Snapshot, filter: &Filter) -> Option<Self> {
        let find = |asked: &[String]| {
            let known: Vec<TextId> = asked
                .iter()
                .filter_map(|text| snapshot.find_text(text))
                .collect();
            (asked.is_empty() || !known.is_empty()).then_some(known)
        };
        Some(Self {
            regions: find(&filter.regions)?,
            zones: find(&filter.zones)?,
            instance_types: find(&filter.instance_types)?,
        })
    }

    fn admit(&self, row: &Row) -> bool {
        let one_of = |any: &[TextId], text: TextId| any.is_empty() || any.contains(&text);
        one_of(&self.regions, row.region)
            && one_of(&self.zones, row.zone)
            && one_of(&self.instance_types, row.instance_type)
    }
}

/// Where an offer stands in an order. Rows of one backend are numbered in order of price and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    key: u64,
    price: i64,
    rank: u32,
    row: RowNumber,
}

/// After everything that is known.
const UNKNOWN: u64 = u64::MAX;

impl Place {
    fn of(shelf: &Shelf, number: RowNumber, order: Order) -> Self {
        let row = shelf.snapshot.row(number);
        let price = price_key(shelf.shown(number, row).price);
        let key =
            ascending(order.key, shelf, row, price).map_or(UNKNOWN, |key| match order.direction {
                Direction::Ascending => key.min(UNKNOWN - 1),
                Direction::Descending => UNKNOWN - 1 - key.min(UNKNOWN - 1),
            });
        Self {
            key,
            price,
            rank: shelf.rank(),
            row: number,
        }
    }

    /// The order where row numbers do not tell that of ids, because a price was changed.
    fn compare_with_ids(&self, other: &Self, shelf: &Shelf) -> Ordering {
        let known = |place: &Self| (place.key, place.price, place.rank);
        known(self).cmp(&known(other)).then_with(|| {
            let snapshot = &shelf.snapshot;
            snapshot.compare_ids(snapshot.row(self.row), snapshot.row(other.row))
        })
    }
}

/// A number that grows with what the key stands for; none if that is unknown.
fn ascending(key: Key, shelf: &Shelf, row: &Row, price: i64) -> Option<u64> {
    let machine = || shelf.snapshot.machine(row);
    let known_price = u64::try_from(price).ok().filter(|_| price != i64::MAX);
    match key {
        Key::Price => known_price,
        Key::PricePerGpu => Some(ratio(known_price?, machine().gpu_milli())),
        Key::PricePerGpuGib => Some(ratio(known_price?, machine().gpu_memory_mib()?)),
        Key::Memory => machine().memory_mib.map(u64::from),
        Key::Age => Some(age_key(shelf)),
    }
    .filter(|_| has_what_it_is_divided_by(key, machine))
}

fn has_what_it_is_divided_by<'a>(key: Key, machine: impl Fn() -> &'a Machine) -> bool {
    match key {
        Key::PricePerGpu | Key::PricePerGpuGib => machine().gpu_milli() > 0,
        Key::Price | Key::Memory | Key::Age => true,
    }
}

/// A quotient in the order of the exact one: correctly rounded floats of 0 and more are equal where
/// the quotients are, and their bits are in the order of their values.
#[expect(
    clippy::cast_precision_loss,
    reason = "prices and sizes are far below 2^53"
)]
fn ratio(price: u64, parts: u64) -> u64 {
    (price as f64 / parts as f64).to_bits()
}

/// Grows with age without a clock: the later a backend was read, the smaller.
fn age_key(shelf: &Shelf) -> u64 {
    let since = shelf
        .observed
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    UNKNOWN - 1 - u64::try_from(since.as_nanos()).unwrap_or(UNKNOWN - 1)
}

#[cfg(test)]
mod tests;
