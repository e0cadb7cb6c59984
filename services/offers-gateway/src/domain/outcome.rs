//! What launches have taught: which offers could not be had, for how long that is believed, and how
//! far it reaches. Every failure counts one, and what it counts halves with time; as failures of one
//! kind of machine add up, they reach from the offer to its zone and its region. A launch that
//! worked speaks against what was told before it.
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
use super::snapshot::{Row, RowNumber, Snapshot};

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

/// What was told of one offer.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What came of it last.
    pub outcome: Outcome,
    /// How much that counted then: 1, and more as the same is told again.
    pub weight: f64,
    /// When it was told.
    pub at: SystemTime,
    /// The accelerators of the machine, by name.
    pub gpus: String,
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
        let same = self
            .records
            .get(id)
            .filter(|record| same_kind(record.outcome, outcome));
        let before = same.map_or(0.0, |record| self.policy.weight(record, now));
        // A launch that worked twice does not count twice.
        let weight = if outcome == Outcome::Launched {
            1.0
        } else {
            before + 1.0
        };
        Record {
            outcome,
            weight,
            at: now,
            gpus: gpus.to_owned(),
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
        let failed = record.outcome != Outcome::Launched;
        failed.then(|| self.policy.falls_to(record.weight, OFFER_FROM, record.at))
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

    /// The ids of records that matter no more.
    pub fn forgotten(&self, now: SystemTime) -> Vec<String> {
        let weight = |record: &Record| self.policy.weight(record, now);
        let old = self
            .records
            .iter()
            .filter(|(_, record)| weight(record) < FORGOTTEN_BELOW);
        old.map(|(id, _)| id.clone()).collect()
    }

    /// When any mark ends or record is forgotten next; none if there is none.
    pub fn next_change(&self, now: SystemTime) -> Option<SystemTime> {
        let falls = |record: &Record, bar| self.policy.falls_to(record.weight, bar, record.at);
        let of_offers = self
            .records
            .values()
            .flat_map(|record| [OFFER_FROM, FORGOTTEN_BELOW].map(|bar| falls(record, bar)));
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
        let mut marks = FxHashMap::default();
        let places = self.marked_places(snapshot.backend(), now);
        if !places.is_empty() {
            for (number, row) in (0u32..).zip(snapshot.rows()) {
                if let Some(availability) = marked(snapshot, row, &places) {
                    marks.insert(
                        number,
                        Mark {
                            availability: Some(availability),
                            price: None,
                        },
                    );
                }
            }
        }
        for (id, record) in self.of_backend(snapshot.backend()) {
            let Some(number) = snapshot.find(&id) else {
                continue;
            };
            if self.policy.weight(record, now) < OFFER_FROM {
                continue;
            }
            match mark_of(record.outcome) {
                Some(mark) => marks.insert(number, mark),
                None => marks.remove(&number),
            };
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

    /// The places where failures have added up to more than the bar, with what is known of them and
    /// their score.
    fn marked_places(
        &self,
        backend: &str,
        now: SystemTime,
    ) -> BTreeMap<Place, (Availability, f64)> {
        let mut launched: BTreeMap<Place, SystemTime> = BTreeMap::new();
        for (id, record) in self
            .of_backend(backend)
            .filter(|(_, record)| record.outcome == Outcome::Launched)
        {
            for place in Place::all_of(&id, &record.gpus) {
                let last = launched.entry(place).or_insert(record.at);
                *last = record.at.max(*last);
            }
        }
        let mut scores: BTreeMap<Place, (SystemTime, Availability, f64)> = BTreeMap::new();
        for (id, record) in self.of_backend(backend) {
            let Some(availability) = mark_of(record.outcome).and_then(|mark| mark.availability)
            else {
                continue;
            };
            for place in Place::all_of(&id, &record.gpus) {
                if launched.get(&place).is_some_and(|last| *last >= record.at) {
                    continue;
                }
                let score = scores
                    .entry(place)
                    .or_insert((record.at, availability, 0.0));
                score.2 += self.policy.weight(record, now);
                if record.at >= score.0 {
                    (score.0, score.1) = (record.at, availability);
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
    /// How much a record counts now.
    fn weight(&self, record: &Record, now: SystemTime) -> f64 {
        let age = now.duration_since(record.at).unwrap_or_default();
        record.weight * (-age.as_secs_f64() / self.half_life.as_secs_f64()).exp2()
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

/// What is known of a row by its place: the zone speaks before the region.
fn marked(
    snapshot: &Snapshot,
    row: &Row,
    places: &BTreeMap<Place, (Availability, f64)>,
) -> Option<Availability> {
    let (id, gpus) = (snapshot.id_of(row), gpu_names(snapshot.machine(row)));
    let of = |zone: Option<&str>| {
        places
            .get(&Place::of(&id, zone, &gpus))
            .map(|(availability, _)| *availability)
    };
    of(Some(&id.zone)).or_else(|| of(None))
}

fn same_kind(one: Outcome, other: Outcome) -> bool {
    std::mem::discriminant(&one) == std::mem::discriminant(&other)
}

/// What an outcome shows; none for a launch, after which the source's own word stands.
fn mark_of(outcome: Outcome) -> Option<Mark> {
    match outcome {
        Outcome::NoCapacity => Some(Mark {
            availability: Some(Availability::NoCapacity),
            price: None,
        }),
        Outcome::NoQuota => Some(Mark {
            availability: Some(Availability::NoQuota),
            price: None,
        }),
        Outcome::PriceChanged(price) => Some(Mark {
            availability: None,
            price,
        }),
        Outcome::Launched => None,
    }
}

#[cfg(test)]
mod tests;
