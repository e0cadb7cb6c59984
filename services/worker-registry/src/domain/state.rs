//! What may happen on a worker: the states, and the table of every change between them.
//!
//! It decides which change is allowed and what has to be done first where it is not. It never looks at
//! liveness beyond the one fact that a worker's agent is gone, and changes nothing itself.

use std::fmt;

#[cfg(test)]
mod tests;

/// What an operator wants of a worker. Durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Known, and not yet proved fit: nothing new is placed on it.
    Provisioning,
    /// Takes work.
    Active,
    /// Takes no new work; what it has is being moved off.
    Draining,
    /// Holds nothing and takes nothing.
    Disabled,
}

/// What is asked of a worker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// Its agent registers (again).
    Register,
    /// Its agent reports that every start-up check has passed.
    Activate,
    /// Empty it, by moving.
    Drain,
    /// Call the drain off.
    Resume,
    /// The last allocation is gone.
    Emptied,
    /// Take it out of use if it is empty.
    Disable,
    /// Take it out of use in any case.
    Force,
    /// Put it back.
    Enable,
    /// Forget it.
    Delete,
}

/// What the table looks at besides the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// No allocation is on it.
    pub empty: bool,
    /// Its agent is gone: it is LOST, or has LEFT.
    pub gone: bool,
    /// This generation has passed its start-up checks.
    pub proved: bool,
    /// The drain that brought it here, or the one under way, is the agent's own shutdown.
    pub shutdown: bool,
    /// Nothing says yet that what it ran has ended, neither its fence nor its agent.
    pub unended: bool,
}

/// A condition of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// In any case that no earlier rule of the pair took.
    Always,
    /// Nothing is allocated on it.
    Empty,
    /// It is LOST, or has LEFT.
    Gone,
    /// Its checks have passed.
    Proved,
    /// A SHUTDOWN drain led here.
    Shutdown,
    /// What it ran may run still.
    Unended,
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is in this state after it, which may be the same.
    Go(State),
    /// It is deleted.
    Forget,
    /// It is not allowed; what to do first.
    Refuse(&'static str),
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The state before.
    pub from: State,
    /// What is asked.
    pub on: Event,
    /// When the line applies.
    pub when: When,
    /// What comes of it.
    pub then: Then,
}

/// What an allowed change leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This state.
    State(State),
    /// No worker.
    Deleted,
}

/// A change that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker is {from}: {first}")]
pub struct Rejected {
    /// The state that stands in the way.
    pub from: State,
    /// What was asked.
    pub on: Event,
    /// What to do first.
    pub first: &'static str,
}

const EMPTY_IT: &str = "it still holds allocations; drain it first, or disable it by force";
const NOT_DRAINING: &str = "only a draining worker can be resumed; there is nothing to call off";
const IN_USE: &str = "only a disabled worker can be enabled; this one is in use already";
const NOT_OUT_OF_USE: &str = "only a disabled worker can be deleted; disable it first";
const NOT_DELETABLE: &str = "only a disabled worker can be deleted; drain or disable it first";
const UNENDED: &str = "what it ran with `on_disconnect: stop` may still run, and its owners wait for its record to \
     say that it does not; wait until it is marked fenced, or its agent is back and has ended all, then delete it";

/// Every pair of state and event, each with a last line that always applies.
pub static TABLE: &[Rule] = {
    use Event::{Activate, Delete, Disable, Drain, Emptied, Enable, Force, Register, Resume};
    use State::{Active, Disabled, Draining, Provisioning};
    use Then::{Forget, Go, Refuse};
    use When::{Always, Empty, Gone, Proved, Shutdown, Unended};
    &[
        rule(Provisioning, Register, Always, Go(Provisioning)),
        rule(Provisioning, Activate, Always, Go(Active)),
        rule(
            Provisioning,
            Drain,
            Empty,
            Refuse("it holds nothing that could be moved; disable it instead"),
        ),
        rule(Provisioning, Drain, Always, Go(Draining)),
        rule(Provisioning, Resume, Always, Refuse(NOT_DRAINING)),
        rule(Provisioning, Emptied, Always, Go(Provisioning)),
        rule(Provisioning, Disable, Empty, Go(Disabled)),
        rule(Provisioning, Disable, Always, Refuse(EMPTY_IT)),
        rule(Provisioning, Force, Empty, Go(Disabled)),
        rule(Provisioning, Force, Gone, Go(Disabled)),
        rule(Provisioning, Force, Always, Go(Draining)),
        rule(Provisioning, Enable, Always, Refuse(IN_USE)),
        rule(Provisioning, Delete, Always, Refuse(NOT_OUT_OF_USE)),
        rule(Active, Register, Always, Go(Provisioning)),
        rule(Active, Activate, Always, Go(Active)),
        rule(Active, Drain, Always, Go(Draining)),
        rule(Active, Resume, Always, Refuse(NOT_DRAINING)),
        rule(Active, Emptied, Always, Go(Active)),
        rule(Active, Disable, Empty, Go(Disabled)),
        rule(Active, Disable, Always, Refuse(EMPTY_IT)),
        rule(Active, Force, Empty, Go(Disabled)),
        rule(Active, Force, Gone, Go(Disabled)),
        rule(Active, Force, Always, Go(Draining)),
        rule(Active, Enable, Always, Refuse(IN_USE)),
        rule(Active, Delete, Always, Refuse(NOT_DELETABLE)),
        rule(Draining, Register, Shutdown, Go(Provisioning)),
        rule(Draining, Register, Always, Go(Draining)),
        rule(Draining, Activate, Always, Go(Draining)),
        rule(Draining, Drain, Always, Go(Draining)),
        rule(Draining, Resume, Proved, Go(Active)),
        rule(Draining, Resume, Always, Go(Provisioning)),
        rule(Draining, Emptied, Always, Go(Disabled)),
        rule(Draining, Disable, Empty, Go(Disabled)),
        rule(Draining, Disable, Always, Refuse(EMPTY_IT)),
        rule(Draining, Force, Empty, Go(Disabled)),
        rule(Draining, Force, Gone, Go(Disabled)),
        rule(Draining, Force, Always, Go(Draining)),
        rule(
            Draining,
            Enable,
            Always,
            Refuse("only a disabled worker can be enabled; resume this one to call its drain off"),
        ),
        rule(Draining, Delete, Always, Refuse(NOT_DELETABLE)),
        rule(Disabled, Register, Shutdown, Go(Provisioning)),
        rule(Disabled, Register, Always, Go(Disabled)),
        rule(
            Disabled,
            Activate,
            Always,
            Refuse("it takes no work; enable it first, then report its checks"),
        ),
        rule(
            Disabled,
            Drain,
            Always,
            Refuse("it holds nothing that could be moved; enable it first to use it again"),
        ),
        rule(
            Disabled,
            Resume,
            Always,
            Refuse("its drain has ended; enable it instead"),
        ),
        rule(Disabled, Emptied, Always, Go(Disabled)),
        rule(
            Disabled,
            Disable,
            Always,
            Refuse("it is out of use already; enable it or delete it"),
        ),
        rule(
            Disabled,
            Force,
            Always,
            Refuse("it is out of use already; enable it or delete it"),
        ),
        rule(Disabled, Enable, Always, Go(Provisioning)),
        rule(Disabled, Delete, Unended, Refuse(UNENDED)),
        rule(Disabled, Delete, Always, Forget),
    ]
};

const fn rule(from: State, on: Event, when: When, then: Then) -> Rule {
    Rule {
        from,
        on,
        when,
        then,
    }
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Provisioning,
        Self::Active,
        Self::Draining,
        Self::Disabled,
    ];

    /// What the table says of `event` in this state.
    ///
    /// # Errors
    /// The pair is not allowed.
    pub fn on(self, event: Event, facts: Facts) -> Result<Next, Rejected> {
        let mut rules = TABLE.iter();
        let found =
            rules.find(|rule| rule.from == self && rule.on == event && rule.when.holds(facts));
        match found.map(|rule| rule.then) {
            Some(Then::Go(state)) => Ok(Next::State(state)),
            Some(Then::Forget) => Ok(Next::Deleted),
            Some(Then::Refuse(first)) => Err(self.refused(event, first)),
            // The table is complete, which a test walks; a gap would refuse, never allow.
            None => Err(self.refused(event, "this cannot be done now")),
        }
    }

    fn refused(self, on: Event, first: &'static str) -> Rejected {
        Rejected {
            from: self,
            on,
            first,
        }
    }

    /// Its name in the contract, without the prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "PROVISIONING",
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Disabled => "DISABLED",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Register,
        Self::Activate,
        Self::Drain,
        Self::Resume,
        Self::Emptied,
        Self::Disable,
        Self::Force,
        Self::Enable,
        Self::Delete,
    ];
}

impl When {
    /// Whether the condition holds.
    pub fn holds(self, facts: Facts) -> bool {
        match self {
            Self::Always => true,
            Self::Empty => facts.empty,
            Self::Gone => facts.gone,
            Self::Proved => facts.proved,
            Self::Shutdown => facts.shutdown,
            Self::Unended => facts.unended,
        }
    }
}
