//! What launches have taught: which offers could not be had, for how long that is believed, and how
//! far it reaches. Every failure counts one, and what it counts halves with time; as failures of one
//! kind of machine add up, whatever their reasons, they reach from the offer to its zone and its
//! region. A launch that worked voids what was told before it of its offer, its zone and its region.
//!
//! The same machine on demand and as spot are told apart, and so are other accelerators: that no
//! H100 could be had says nothing of processors.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use muster_model::constraints::CapacityType;
use muster_model::quantity::MicroUsd;
use rustc_hash::FxHashMap;

use super::group::gpu_names;
use super::id::OfferId;
use super::market::Mark;
use super::offer::Availability;
use super::snapshot::{MachineId, RowNumber, Snapshot};

/// What came of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider had no capacity.
    NoCapacity,
    /// The account's quota did not allow it.
    NoQuota,
    /// The provider asked another price, if it is known.
    PriceChanged(Option<MicroUsd>),
    /// The machine was launched.
    Launched,
}

/// For how long outcomes are believed, and how far they reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// The time in which what a failure counts halves: a single one is believed for so long.
    pub half_life: Duration,
    /// A zone is marked while its failures count more than this.
    pub zone_above: f64,
    /// A region is marked while its failures count more than this.
    pub region_above: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            half_life: Duration::from_secs(900),
            zone_above: 2.0,
            region_above: 4.0,
        }
    }
}

/// An offer is marked while what was told of it counts at least this.
const OFFER_FROM: f64 = 0.5;

/// Below this, nothing that was told matters any more.
const FORGOTTEN_BELOW: f64 = 0.1;

/// What was told of one offer. A launch voids what was told of it before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// That it could not be had.
    pub failed: Option<Failed>,
    /// That it has another price.
    pub priced: Option<Priced>,
    /// When it was launched last.
    pub launched_at: Option<SystemTime>,
    /// The accelerators of the machine, by name.
    pub gpus: String,
}

impl Record {
    /// The same as if all of it had been told so much earlier.
    pub fn earlier_by(mut self, by: Duration) -> Self {
        let times = [
            self.failed.as_mut().map(|failed| &mut failed.at),
            self.priced.as_mut().map(|priced| &mut priced.at),
            self.launched_at.as_mut(),
        ];
        for at in times.into_iter().flatten() {
            *at = at.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH);
        }
        self
    }

    /// The same as told by `now` at the latest: whose clock was ahead has no mark last longer for it.
    pub fn told_by(self, now: SystemTime) -> Self {
        let failed = self.failed.map(|failed| failed.at);
        let priced = self.priced.map(|priced| priced.at);
        let last = [failed, priced, self.launched_at]
            .into_iter()
            .flatten()
            .max();
        match last.and_then(|last| last.duration_since(now).ok()) {
            Some(ahead) => self.earlier_by(ahead),
            None => self,
        }
    }
}

/// An offer could not be had.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failed {
    /// Why not, when it was told last.
    pub why: Why,
    /// How much that counted then: 1, and more as failures are told again.
    pub weight: f64,
    /// How much of that is since the last launch in its zone.
    pub in_zone: f64,
    /// How much of that is since the last launch in its region.
    pub in_region: f64,
    /// When it was told last.
    pub at: SystemTime,
}

/// Why an offer could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The provider had no capacity.
    NoCapacity,
    /// The account's quota did not allow it.
    NoQuota,
}

/// The provider asked another price for an offer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Priced {
    /// The price, if it is known.
    pub price: Option<MicroUsd>,
    /// How much that counted then: 1, and more as it is told again.
    pub weight: f64,
    /// When it was told last.
    pub at: SystemTime,
}

/// How far a mark reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The offer alone.
    Offer,
    /// All of its kind in the zone.
    Zone,
    /// All of its kind in the region.
    Region,
}

impl Scope {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Zone => "zone",
            Self::Region => "region",
        }
    }
}

/// Everything that launches have taught. Never changes; a newer one takes its place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Book {
    policy: Policy,
    /// By the id of the offer.
    records: BTreeMap<String, Record>,
}

/// Machines of one kind in one place, of which failures are added up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    region: String,
    /// None is the whole region.
    zone: Option<String>,
    gpus: String,
    capacity_type: CapacityType,
}

impl Book {
    /// With this policy and these records, by id.
    pub fn new(policy: Policy, records: BTreeMap<String, Record>) -> Self {
        Self { policy, records }
    }

    /// What was told of an offer.
    pub fn record(&self, id: &str) -> Option<&Record> {
        self.records.get(id)
    }

    /// The record of an offer after `outcome` was told of it as well.
    pub fn told(&self, id: &str, gpus: &str, outcome: Outcome, now: SystemTime) -> Record {
        let mut record = self.records.get(id).cloned().unwrap_or_default();
        gpus.clone_into(&mut record.gpus);
        match outcome {
            Outcome::NoCapacity => {
                record.failed = Some(self.failed(id, &record, Why::NoCapacity, now));
            }
            Outcome::NoQuota => {
                record.failed = Some(self.failed(id, &record, Why::NoQuota, now));
            }
            Outcome::PriceChanged(price) => {
                let before = record.priced.map_or(0.0, |priced| {
                    self.policy.faded(priced.weight, priced.at, now)
                });
                record.priced = Some(Priced {
                    price,
                    weight: before + 1.0,
                    at: now,
                });
            }
            Outcome::Launched => {
                (record.failed, record.priced) = (None, None);
                record.launched_at = Some(now);
            }
        }
        record
    }

    /// One failure more, on top of those that no launch has voided.
    fn failed(&self, id: &str, record: &Record, why: Why, now: SystemTime) -> Failed {
        let Some((before, id)) = record.failed.zip(super::id::parse(id)) else {
            return Failed {
                why,
                weight: 1.0,
                in_zone: 1.0,
                in_region: 1.0,
                at: now,
            };
        };
        let launched = self.launched(&id.backend);
        let counts = |zone: Option<&str>, weight: f64| {
            let last = launched.get(&Place::of(&id, zone, &record.gpus));
            if last.is_some_and(|last| *last >= before.at) {
                0.0
            } else {
                self.policy.faded(weight, before.at, now)
            }
        };
        Failed {
            why,
            weight: self.policy.faded(before.weight, before.at, now) + 1.0,
            in_zone: counts(Some(&id.zone), before.in_zone) + 1.0,
            in_region: counts(None, before.in_region) + 1.0,
            at: now,
        }
    }

    /// The same book with another record of one offer; none forgets it.
    pub fn with(&self, id: &str, record: Option<Record>) -> Self {
        let mut book = self.clone();
        match record {
            Some(record) => book.records.insert(id.to_owned(), record),
            None => book.records.remove(id),
        };
        book
    }

    /// Until when an offer is marked for what was told of it; none if it is not.
    pub fn expiry(&self, id: &str) -> Option<SystemTime> {
        let record = self.records.get(id)?;
        self.policy.falls(record, OFFER_FROM).max()
    }

    /// How far what was told of an offer reaches.
    pub fn scope(&self, id: &OfferId<'_>, now: SystemTime) -> Scope {
        let Some(record) = self.records.get(&id.render()) else {
            return Scope::Offer;
        };
        let places = self.marked_places(&id.backend, now);
        let is_marked =
            |zone: Option<&str>| places.contains_key(&Place::of(id, zone, &record.gpus));
        if is_marked(None) {
            Scope::Region
        } else if !id.zone.is_empty() && is_marked(Some(&id.zone)) {
            Scope::Zone
        } else {
            Scope::Offer
        }
    }

    /// The ids of records that matter no more. A launch matters for as long as there is a failure in
    /// its region that it voids.
    pub fn forgotten(&self, now: SystemTime) -> Vec<String> {
        let mut voidable: BTreeMap<(String, Place), SystemTime> = BTreeMap::new();
        for (id, record) in self.parsed() {
            if let Some(failed) = record
                .failed
                .filter(|failed| self.policy.matters(failed.weight, failed.at, now))
            {
                let region = Place::of(&id, None, &record.gpus);
                let first = voidable
                    .entry((id.backend.into_owned(), region))
                    .or_insert(failed.at);
                *first = failed.at.min(*first);
            }
        }
        let voids = |id: &OfferId<'_>, record: &Record| {
            let region = Place::of(id, None, &record.gpus);
            let first = voidable.get(&(id.backend.as_ref().to_owned(), region));
            first.is_some_and(|first| record.launched_at.is_some_and(|at| at >= *first))
        };
        let old = self.records.iter().filter(|(text, record)| {
            let id = super::id::parse(text);
            !self.policy.is_of_use(record, now) && !id.is_some_and(|id| voids(&id, record))
        });
        old.map(|(id, _)| id.clone()).collect()
    }

    /// When any mark ends or record is forgotten next; none if there is none.
    pub fn next_change(&self, now: SystemTime) -> Option<SystemTime> {
        let of_offers = self.records.values().flat_map(|record| {
            let launch = record.launched_at.map(|at| (1.0, at));
            let falls = |bar| {
                let launch = launch.map(|(weight, at)| self.policy.falls_to(weight, bar, at));
                self.policy.falls(record, bar).chain(launch)
            };
            falls(OFFER_FROM).chain(falls(FORGOTTEN_BELOW))
        });
        let backends: BTreeSet<_> = self
            .records
            .keys()
            .filter_map(|id| Some(super::id::parse(id)?.backend))
            .collect();
        let of_places = backends
            .iter()
            .flat_map(|backend| self.marked_places(backend, now))
            .map(|(place, (_, score))| self.policy.falls_to(score, self.policy.bar(&place), now));
        of_offers.chain(of_places).filter(|at| *at > now).min()
    }

    /// The marks that all this puts on the rows of a snapshot.
    pub fn marks(&self, snapshot: &Snapshot, now: SystemTime) -> FxHashMap<RowNumber, Mark> {
        let mut marks = marks_of(&self.marked_places(snapshot.backend(), now), snapshot);
        for (id, record) in self.of_backend(snapshot.backend()) {
            let Some(number) = snapshot.find(&id) else {
                continue;
            };
            let stands = |weight, at| self.policy.faded(weight, at, now) >= OFFER_FROM;
            if record.launched_at.is_some_and(|at| stands(1.0, at)) {
                // It was had a moment ago, whatever became of others there.
                marks.remove(&number);
            }
            let failed = record.failed.filter(|told| stands(told.weight, told.at));
            let priced = record.priced.filter(|told| stands(told.weight, told.at));
            let by_place = marks.get(&number).and_then(|mark| mark.availability);
            let mark = Mark {
                availability: failed.map(|failed| failed.why.availability()).or(by_place),
                price: priced.and_then(|priced| priced.price),
            };
            if failed.is_some() || priced.is_some() {
                marks.insert(number, mark);
            }
        }
        marks
    }

    fn of_backend<'a>(
        &'a self,
        backend: &'a str,
    ) -> impl Iterator<Item = (OfferId<'a>, &'a Record)> {
        let first = format!("{}/", super::id::encode(backend));
        let all = self
            .records
            .range(first.clone()..)
            .take_while(move |(id, _)| id.starts_with(&first));
        all.filter_map(|(id, record)| Some((super::id::parse(id)?, record)))
    }

    /// Every record whose id is one.
    fn parsed(&self) -> impl Iterator<Item = (OfferId<'_>, &Record)> {
        let all = self.records.iter();
        all.filter_map(|(id, record)| Some((super::id::parse(id)?, record)))
    }

    /// When a machine was launched last in each place.
    fn launched(&self, backend: &str) -> BTreeMap<Place, SystemTime> {
        let mut launched = BTreeMap::new();
        for (id, record) in self.of_backend(backend) {
            let Some(at) = record.launched_at else {
                continue;
            };
            for place in Place::all_of(&id, &record.gpus) {
                let last = launched.entry(place).or_insert(at);
                *last = at.max(*last);
            }
        }
        launched
    }

    /// The places where failures have added up to more than the bar, with what is known of them and
    /// their score.
    fn marked_places(
        &self,
        backend: &str,
        now: SystemTime,
    ) -> BTreeMap<Place, (Availability, f64)> {
        let launched = self.launched(backend);
        let mut scores: BTreeMap<Place, (SystemTime, Availability, f64)> = BTreeMap::new();
        for (id, record) in self.of_backend(backend) {
            let Some(failed) = record.failed else {
                continue;
            };
            for place in Place::all_of(&id, &record.gpus) {
                if launched.get(&place).is_some_and(|last| *last >= failed.at) {
                    continue;
                }
                let (at, availability) = (failed.at, failed.why.availability());
                let weight = if place.zone.is_some() {
                    failed.in_zone
                } else {
                    failed.in_region
                };
                let score = scores.entry(place).or_insert((at, availability, 0.0));
                score.2 += self.policy.faded(weight, at, now);
                if at >= score.0 {
                    (score.0, score.1) = (at, availability);
                }
            }
        }
        let above = scores
            .into_iter()
            .filter(|(place, (.., score))| *score > self.policy.bar(place));
        above
            .map(|(place, (_, availability, score))| (place, (availability, score)))
            .collect()
    }
}

impl Policy {
    /// How much of what counted `weight` at `at` counts now.
    fn faded(&self, weight: f64, at: SystemTime, now: SystemTime) -> f64 {
        let age = now.duration_since(at).unwrap_or_default();
        weight * (-age.as_secs_f64() / self.half_life.as_secs_f64()).exp2()
    }

    fn matters(&self, weight: f64, at: SystemTime, now: SystemTime) -> bool {
        self.faded(weight, at, now) >= FORGOTTEN_BELOW
    }

    /// Whether anything that was told of an offer still matters.
    fn is_of_use(&self, record: &Record, now: SystemTime) -> bool {
        let failed = record.failed.map(|failed| (failed.weight, failed.at));
        let priced = record.priced.map(|priced| (priced.weight, priced.at));
        let launched = record.launched_at.map(|at| (1.0, at));
        let mut all = [failed, priced, launched].into_iter().flatten();
        all.any(|(weight, at)| self.matters(weight, at, now))
    }

    /// When what marks an offer counts no more than `bar`.
    fn falls(&self, record: &Record, bar: f64) -> impl Iterator<Item = SystemTime> {
        let failed = record.failed.map(|failed| (failed.weight, failed.at));
        let priced = record.priced.map(|priced| (priced.weight, priced.at));
        let policy = *self;
        let told = [failed, priced].into_iter().flatten();
        told.map(move |(weight, at)| policy.falls_to(weight, bar, at))
    }

    /// When what counts `weight` at `at` counts no more than `bar`.
    fn falls_to(&self, weight: f64, bar: f64, at: SystemTime) -> SystemTime {
        let halvings = (weight / bar).log2().max(0.0);
        // A millisecond more, so that it has certainly fallen by then.
        at + self.half_life.mul_f64(halvings) + Duration::from_millis(1)
    }

    fn bar(&self, place: &Place) -> f64 {
        if place.zone.is_some() {
            self.zone_above
        } else {
            self.region_above
        }
    }
}

impl Place {
    fn of(id: &OfferId<'_>, zone: Option<&str>, gpus: &str) -> Self {
        Self {
            region: id.region.as_ref().to_owned(),
            zone: zone.map(str::to_owned),
            gpus: gpus.to_owned(),
            capacity_type: id.capacity_type,
        }
    }

    /// The region, and the zone if there is one.
    fn all_of(id: &OfferId<'_>, gpus: &str) -> impl Iterator<Item = Self> {
        let zone = (!id.zone.is_empty()).then(|| Self::of(id, Some(&id.zone), gpus));
        std::iter::once(Self::of(id, None, gpus)).chain(zone)
    }
}

/// What is known of rows by their places: the zone speaks before the region. All that a machine's rows
/// share is looked up once: there may be a hundred thousand.
fn marks_of(
    places: &BTreeMap<Place, (Availability, f64)>,
    snapshot: &Snapshot,
) -> FxHashMap<RowNumber, Mark> {
    let mut by_gpus: BTreeMap<&str, FxHashMap<_, Availability>> = BTreeMap::new();
    for (place, (availability, _)) in places {
        let zone = place.zone.as_deref().map(|zone| snapshot.find_text(zone));
        // What the snapshot does not know by name is in no row of it.
        let (Some(region), None | Some(Some(_))) = (snapshot.find_text(&place.region), zone) else {
            continue;
        };
        let at = (region, zone.flatten(), place.capacity_type);
        let of_kind = by_gpus.entry(place.gpus.as_str()).or_default();
        of_kind.insert(at, *availability);
    }
    let mut marks = FxHashMap::default();
    for (number, machine) in (0u32..).zip(&snapshot.parts().machines) {
        let Some(of_kind) = by_gpus.get(gpu_names(machine).as_str()) else {
            continue;
        };
        for number in snapshot.rows_of(MachineId(number)) {
            let row = snapshot.row(*number);
            let of = |zone| of_kind.get(&(row.region, zone, row.capacity_type));
            if let Some(availability) = of(Some(row.zone)).or_else(|| of(None)) {
                let mark = Mark {
                    availability: Some(*availability),
                    price: None,
                };
                marks.insert(*number, mark);
            }
        }
    }
    marks
}

impl Why {
    fn availability(self) -> Availability {
        match self {
            Self::NoCapacity => Availability::NoCapacity,
            Self::NoQuota => Availability::NoQuota,
        }
    }
}

#[cfg(test)]
mod tests;
