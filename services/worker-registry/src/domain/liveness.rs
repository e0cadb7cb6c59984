//! Whether workers are there: what is handed out to them, and what their silence means.
//!
//! It decides by observed time, which [`Observer`] takes off whenever the registry itself stood still. It
//! writes nothing: that a worker is LOST becomes true by a change of its record.

use std::time::Duration;

mod brake;
mod observer;
mod wheel;
mod witnesses;

pub use brake::{Brake, Census, Judged, ZoneNews};
pub use observer::Observer;
pub use wheel::Wheel;
pub use witnesses::{Heard, Patience, Witnesses};

/// A point in observed time, counted from the registry's start.
pub type Moment = Duration;

/// What is known of a worker's being there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    /// Not heard since this registry started; trusted until `lost_after`.
    Unknown,
    /// Heard in time.
    Alive,
    /// Silent for half of `lost_after`: no new allocations.
    Suspect,
    /// Silent for `lost_after`. Durable.
    Lost,
    /// Said that it leaves, and ran nothing. Durable.
    Left,
}

/// What an agent is told about heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Time from one to the next.
    pub interval: Duration,
    /// Silent for this long, the worker is LOST.
    pub lost_after: Duration,
    /// Silent for this long, the agent has stopped what is to stop without us.
    pub fence_after: Duration,
}

/// The longest times that agents were ever handed out, by which some of them may still go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Longest {
    /// The longest `lost_after`.
    pub lost_after: Duration,
    /// The longest `fence_after`.
    pub fence_after: Duration,
}

impl Longest {
    /// Those of the terms.
    pub fn of(terms: Terms) -> Self {
        Self {
            lost_after: terms.lost_after,
            fence_after: terms.fence_after,
        }
    }

    /// The longer of both, each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            lost_after: self.lost_after.max(other.lost_after),
            fence_after: self.fence_after.max(other.fence_after),
        }
    }

    /// Whether nothing in the terms is longer.
    pub fn covers(self, terms: Terms) -> bool {
        self.max(Self::of(terms)) == self
    }

    /// Those of longer terms with room to grow, so that a growing fleet does not change this each second.
    #[must_use]
    pub fn with_room_for(self, terms: Terms) -> Self {
        let roomy = |known: Duration, asked: Duration| match (asked <= known, known.is_zero()) {
            (true, _) => known,
            (false, true) => asked,
            (false, false) => asked + asked / 4,
        };
        Self {
            lost_after: roomy(self.lost_after, terms.lost_after),
            fence_after: roomy(self.fence_after, terms.fence_after),
        }
    }
}

/// How heartbeats are asked for, from configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The least interval.
    pub interval: Duration,
    /// The least `lost_after`.
    pub lost_after: Duration,
    /// The least `fence_after`.
    pub fence_after: Duration,
    /// The most heartbeats a second that all workers together are asked for.
    pub max_rate: u32,
    /// Added to a fence before it counts as passed, beside its hundredth.
    pub fence_margin: Duration,
}

impl Default for Rules {
    /// 2 s, 10 s and 60 s, 10,000 heartbeats a second, and 1 s of margin.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            lost_after: Duration::from_secs(10),
            fence_after: Duration::from_secs(60),
            max_rate: 10_000,
            fence_margin: Duration::from_secs(1),
        }
    }
}

impl Rules {
    /// What agents are told while there are so many workers. No fence goes below the longest that was ever handed
    /// out.
    pub fn terms(&self, workers: usize, longest: Longest) -> Terms {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        let by_rate = Duration::from_secs(1) * workers / self.max_rate.max(1);
        let interval = self.interval.max(by_rate);
        Terms {
            interval,
            lost_after: self.lost_after.max(interval * 4),
            fence_after: self.fence_after.max(interval * 6).max(longest.fence_after),
        }
    }

    /// How long after a worker was heard last its fence has passed for certain.
    pub fn fenced_after(&self, fence_after: Duration) -> Duration {
        fence_after + fence_after / 100 + self.fence_margin
    }
}

impl Terms {
    /// The same for those who may go by others, of before a start or of another instance: until they are heard,
    /// their silence means something only when it would by the longest.
    #[must_use]
    pub fn patient(self, longest: Longest) -> Self {
        Self {
            lost_after: self.lost_after.max(longest.lost_after),
            ..self
        }
    }

    /// The same terms with the interval shortened by up to a tenth, by a hash of who is told: so that
    /// those who came together do not beat together for ever.
    #[must_use]
    pub fn jittered(self, hash: u64) -> Self {
        let part = u32::try_from(hash % 1024).unwrap_or(0);
        Self {
            interval: self.interval - self.interval / 10 * part / 1024,
            ..self
        }
    }
}

/// When a worker was heard, and what its silence means by when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    liveness: Liveness,
    heard: Nanos,
    suspect_at: Nanos,
    lost_at: Nanos,
}

/// A moment in half the room: there is a pulse of every worker. It ends after 584 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Nanos(u64);

impl From<Moment> for Nanos {
    fn from(moment: Moment) -> Self {
        Self(u64::try_from(moment.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Nanos> for Moment {
    fn from(Nanos(nanos): Nanos) -> Self {
        Self::from_nanos(nanos)
    }
}

/// What a look at a pulse finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing new; look again then.
    Fine(Moment),
    /// It is SUSPECT from now on; look again then.
    Suspect(Moment),
    /// Its time has passed.
    Expired,
}

impl Pulse {
    /// Of a worker that counts as heard now, because the registry has just started.
    pub fn unknown(now: Moment, terms: Terms) -> Self {
        Self {
            liveness: Liveness::Unknown,
            heard: now.into(),
            suspect_at: (now + terms.lost_after / 2).into(),
            lost_at: (now + terms.lost_after).into(),
        }
    }

    /// Of a worker that is heard now.
    pub fn alive(now: Moment, terms: Terms) -> Self {
        Self {
            liveness: Liveness::Alive,
            ..Self::unknown(now, terms)
        }
    }

    /// Hears the worker. True if that changes its liveness. No expiry moves backwards, whatever the
    /// terms.
    pub fn beat(&mut self, now: Moment, terms: Terms) -> bool {
        self.extend(now, terms);
        let changes = self.liveness != Liveness::Alive;
        if changes {
            self.liveness = Liveness::Alive;
        }
        changes
    }

    /// Hears from another who heard the worker `at` some moment before. True if that changes its liveness.
    pub fn heard_at(&mut self, at: Moment, now: Moment, terms: Terms) -> bool {
        if at <= self.heard() || at + terms.lost_after / 2 <= now {
            // Nothing new, or too long ago to be more than that.
            self.extend(at, terms);
            return false;
        }
        self.beat(at, terms)
    }

    /// Counts the worker as heard now, though nobody says so: somebody may have heard it who cannot be
    /// asked. True if it was SUSPECT.
    pub fn trust(&mut self, now: Moment, terms: Terms) -> bool {
        let was_suspect = self.liveness == Liveness::Suspect;
        if was_suspect {
            self.liveness = Liveness::Unknown;
        }
        self.extend(now, terms);
        was_suspect
    }

    /// Counts it as heard at this moment. Nothing moves backwards.
    fn extend(&mut self, at: Moment, terms: Terms) {
        let Self {
            heard,
            suspect_at,
            lost_at,
            ..
        } = Self::unknown(at, terms);
        self.heard = self.heard.max(heard);
        self.suspect_at = self.suspect_at.max(suspect_at);
        self.lost_at = self.lost_at.max(lost_at);
    }

    /// Looks whether its silence has come to mean something.
    pub fn judge(&mut self, now: Moment) -> Verdict {
        if now >= self.lost_at.into() {
            self.suspect();
            return Verdict::Expired;
        }
        if now < self.suspect_at.into() {
            return Verdict::Fine(self.suspect_at.into());
        }
        if self.suspect() {
            Verdict::Suspect(self.lost_at.into())
        } else {
            Verdict::Fine(self.lost_at.into())
        }
    }

    fn suspect(&mut self) -> bool {
        let changes = self.liveness != Liveness::Suspect;
        if changes {
            self.liveness = Liveness::Suspect;
        }
        changes
    }

    /// What is known of the worker.
    pub fn liveness(&self) -> Liveness {
        self.liveness
    }

    /// When it was heard last.
    pub fn heard(&self) -> Moment {
        self.heard.into()
    }

    /// When it has to be looked at next.
    pub fn look_at(&self) -> Moment {
        if self.liveness == Liveness::Suspect {
            self.lost_at.into()
        } else {
            self.suspect_at.into()
        }
    }
}

#[cfg(test)]
mod tests;
