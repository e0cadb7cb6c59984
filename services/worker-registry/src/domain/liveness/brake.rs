//! The mass-loss brake: when over half of a zone falls silent at once, it is more likely that we are the
//! ones cut off. Then nobody there is declared lost for a while.
//!
//! It decides which of those whose time has passed are lost now. It never calls anybody alive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Moment;
use crate::domain::text::Text;

/// The least workers of a zone that has a brake.
const MIN_ZONE: u32 = 10;

/// The workers of one zone, counted now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Workers that should be heard.
    pub members: u32,
    /// Those of them that are SUSPECT.
    pub silent: u32,
}

/// What becomes of those whose time has passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// These are lost.
    pub lost: Vec<Text>,
    /// What happened to the zone's brake, if anything.
    pub news: Option<ZoneNews>,
}

/// A change of a zone's brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneNews {
    /// It holds from now on: so many of so many are silent.
    Holds(Census),
    /// Half are back: it is off.
    Recovered(Census),
    /// It held for as long as it may: those still silent are lost.
    HeldOut(Census),
}

#[derive(Clone, Debug, Default)]
struct Zone {
    /// When workers were declared lost, as far as it still counts, with how many.
    lost: Vec<(Moment, u32)>,
    /// Those whose time has passed while the brake holds, and since when it does.
    held: Option<(Moment, BTreeSet<Text>)>,
    /// The brake stays off until then.
    released_until: Moment,
}

/// The brakes of all zones.
#[derive(Clone, Debug)]
pub struct Brake {
    hold: Duration,
    zones: BTreeMap<Text, Zone>,
}

impl Brake {
    /// Brakes that hold for at most `hold`.
    pub fn new(hold: Duration) -> Self {
        Self {
            hold,
            zones: BTreeMap::new(),
        }
    }

    /// Zones whose brake holds, each with how many workers it holds.
    pub fn holding(&self) -> impl Iterator<Item = (&Text, usize)> {
        self.zones
            .iter()
            .filter_map(|(zone, state)| Some((zone, state.held.as_ref()?.1.len())))
    }

    /// Judges a zone: `expired` are those whose time has passed since the last call, `window` is the
    /// `lost_after` within which losses count together.
    pub fn judge(
        &mut self,
        zone: &Text,
        census: Census,
        expired: Vec<Text>,
        window: Duration,
        now: Moment,
    ) -> Judged {
        let state = self.zones.entry(zone.clone()).or_default();
        state
            .lost
            .retain(|(at, _)| now.saturating_sub(*at) < window);
        let judged = state.judge(census, expired, self.hold, window, now);
        if state.is_idle(now) {
            self.zones.remove(zone);
        }
        judged
    }

    /// Takes a zone's brake off, and leaves it off for one `window`. Those that it held.
    pub fn release(&mut self, zone: &Text, window: Duration, now: Moment) -> Vec<Text> {
        let state = self.zones.entry(zone.clone()).or_default();
        state.released_until = now + window;
        let held = state.held.take().map(|(_, held)| held).unwrap_or_default();
        state.lose(held.into_iter().collect(), now)
    }
}

impl Zone {
    fn judge(
        &mut self,
        census: Census,
        expired: Vec<Text>,
        hold: Duration,
        window: Duration,
        now: Moment,
    ) -> Judged {
        let most_silent = self.is_most_silent(census);
        let Some((since, mut held)) = self.held.take() else {
            if most_silent && now >= self.released_until && !expired.is_empty() {
                self.held = Some((now, expired.into_iter().collect()));
                return news(Vec::new(), ZoneNews::Holds(census));
            }
            let lost = self.lose(expired, now);
            return Judged { lost, news: None };
        };
        held.extend(expired);
        if !most_silent {
            let lost = self.lose(held.into_iter().collect(), now);
            return news(lost, ZoneNews::Recovered(census));
        }
        if now >= since + hold {
            self.released_until = now + window;
            let lost = self.lose(held.into_iter().collect(), now);
            return news(lost, ZoneNews::HeldOut(census));
        }
        self.held = Some((since, held));
        Judged::default()
    }

    /// Whether over half of the zone fell silent within the window: those declared lost in it count as
    /// silent members, though they are members no more.
    fn is_most_silent(&self, census: Census) -> bool {
        let lost: u32 = self.lost.iter().map(|(_, count)| count).sum();
        let members = census.members.saturating_add(lost);
        let silent = census.silent.saturating_add(lost);
        members >= MIN_ZONE && silent > members / 2
    }

    /// Counts them as lost, and gives them back.
    fn lose(&mut self, lost: Vec<Text>, now: Moment) -> Vec<Text> {
        if !lost.is_empty() {
            let count = u32::try_from(lost.len()).unwrap_or(u32::MAX);
            self.lost.push((now, count));
        }
        lost
    }

    fn is_idle(&self, now: Moment) -> bool {
        self.held.is_none() && self.lost.is_empty() && now >= self.released_until
    }
}

fn news(lost: Vec<Text>, news: ZoneNews) -> Judged {
    Judged {
        lost,
        news: Some(news),
    }
}
