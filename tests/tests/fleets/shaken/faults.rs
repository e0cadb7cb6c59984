//! What goes wrong meanwhile: processes are killed and started again, stand still and go on, machines are cut
//! off and come back, replicas and their supervisors are killed. Each fault has an end.

use std::{collections::BTreeSet, time::Duration};

use muster_tests::fleet::{self, Fleet, Process};
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use super::{Story, draw::Draw, processes::running};

/// A part of the fleet that can fail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Gateway,
    Registry,
    Manager,
    Agent(String),
}

/// What ends a fault.
#[derive(Debug, Clone)]
enum Mend {
    Start(Part),
    GoOn(Part),
    Reconnect(String),
}

/// What may go wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    StandStill,
    CutOff,
    KillAll,
    KillReplica,
    KillSupervisor,
}

/// What is wrong now.
#[derive(Debug)]
pub(super) struct Faults {
    draw: Draw,
    story: Story,
    parts: Vec<Part>,
    /// Those that run.
    well: BTreeSet<Part>,
    whole: BTreeSet<String>,
    ahead: Vec<(Instant, Mend)>,
}

/// What an agent says that ends since it is not the worker any more.
const FENCED: &str = "this worker has a later generation";

impl Part {
    fn of<'a>(&self, fleet: &'a mut Fleet) -> &'a mut Process {
        match self {
            Self::Gateway => &mut fleet.gateway,
            Self::Registry => &mut fleet.registry,
            Self::Manager => &mut fleet.manager,
            Self::Agent(name) => fleet.agent(name),
        }
    }
}

impl Faults {
    pub(super) fn none(fleet: &Fleet, seed: u64, story: &Story) -> Self {
        let mut parts = vec![Part::Gateway, Part::Registry, Part::Manager];
        parts.extend(fleet.agents.keys().cloned().map(Part::Agent));
        Self {
            draw: Draw::new(seed, "faults"),
            story: story.clone(),
            well: parts.iter().cloned().collect(),
            parts,
            whole: fleet.agents.keys().cloned().collect(),
            ahead: Vec::new(),
        }
    }

    /// Lets this and that go wrong until a time, and brings all back then.
    pub(super) async fn happen_until(&mut self, end: Instant, fleet: &mut Fleet) {
        while Instant::now() < end {
            let next = Instant::now() + self.draw.span(50..1500);
            loop {
                self.watch_over(fleet);
                let due = self.ahead.iter().map(|(due, _)| *due).min();
                let due = due.filter(|due| *due < next.min(end));
                sleep_until(due.unwrap_or(next.min(end))).await;
                if due.is_none() {
                    break;
                }
                self.mend(Instant::now(), fleet);
            }
            self.happen(fleet);
        }
        self.end(fleet);
    }

    fn end(&mut self, fleet: &mut Fleet) {
        self.story.tell("all is brought back");
        for (_, mend) in std::mem::take(&mut self.ahead) {
            self.undo(mend, fleet);
        }
    }

    /// Nobody ends unless it is killed, but for agents whose machine was given up by force while it was lost: what
    /// starts machines' programs starts them again.
    pub(super) fn watch_over(&self, fleet: &mut Fleet) {
        for part in &self.well {
            let process = part.of(fleet);
            let Some(status) = process.ended() else {
                continue;
            };
            let log = process.log();
            let fenced = matches!(part, Part::Agent(_)) && log.contains(FENCED);
            assert!(fenced, "{part:?} has ended by itself, {status}\n{log}");
            self.story
                .tell(&format!("{part:?} was fenced, and starts again"));
            process.begin();
        }
    }

    fn mend(&mut self, now: Instant, fleet: &mut Fleet) {
        let (due, ahead) = std::mem::take(&mut self.ahead)
            .into_iter()
            .partition(|(due, _)| *due <= now);
        self.ahead = ahead;
        for (_, mend) in due {
            self.undo(mend, fleet);
        }
    }

    fn undo(&mut self, mend: Mend, fleet: &mut Fleet) {
        self.story.tell(&format!("{mend:?}"));
        match mend {
            Mend::Start(part) => {
                part.of(fleet).begin();
                self.well.insert(part);
            }
            Mend::GoOn(part) => {
                part.of(fleet).signal(Signal::CONT);
                self.well.insert(part);
            }
            Mend::Reconnect(agent) => {
                fleet.reconnect(&agent);
                self.whole.insert(agent);
            }
        }
    }

    fn happen(&mut self, fleet: &mut Fleet) {
        let fault = self.draw.weighed(&[
            (8, Fault::Kill),
            (6, Fault::StandStill),
            (4, Fault::CutOff),
            (1, Fault::KillAll),
            (5, Fault::KillReplica),
            (1, Fault::KillSupervisor),
        ]);
        let part = self.draw.one(&self.parts).clone();
        let length = self.length();
        match fault {
            Fault::Kill if self.well.contains(&part) => self.kill(part, length, fleet),
            Fault::StandStill if self.well.remove(&part) => {
                self.story
                    .tell(&format!("{part:?} stands still for {length:?}"));
                part.of(fleet).signal(Signal::STOP);
                self.later(length, Mend::GoOn(part));
            }
            Fault::CutOff => {
                if let Part::Agent(agent) = part
                    && self.whole.remove(&agent)
                {
                    self.story
                        .tell(&format!("{agent} is cut off for {length:?}"));
                    fleet.cut_off(&agent);
                    self.later(length, Mend::Reconnect(agent));
                }
            }
            Fault::KillAll => {
                for part in self.well.clone() {
                    self.kill(part, length, fleet);
                }
            }
            Fault::KillReplica | Fault::KillSupervisor => self.kill_replica(fault, fleet),
            Fault::Kill | Fault::StandStill => {}
        }
    }

    /// For less than a machine may be silent, longer, or as long as its fence.
    fn length(&mut self) -> Duration {
        let range = self
            .draw
            .weighed(&[(6, (0, 1500)), (3, (1500, 4500)), (1, (4500, 8000))]);
        self.draw.span(range.0..range.1)
    }

    fn later(&mut self, length: Duration, mend: Mend) {
        self.ahead.push((Instant::now() + length, mend));
    }

    fn kill(&mut self, part: Part, length: Duration, fleet: &mut Fleet) {
        self.story
            .tell(&format!("{part:?} is killed for {length:?}"));
        self.well.remove(&part);
        part.of(fleet).kill();
        self.later(length, Mend::Start(part));
    }

    fn kill_replica(&mut self, fault: Fault, fleet: &Fleet) {
        let running = running(fleet.path());
        if running.is_empty() {
            return;
        }
        let one = self.draw.one(&running);
        self.story.tell(&format!("{fault:?} {}", one.attempt));
        match (fault, one.supervisor) {
            (Fault::KillSupervisor, Some(supervisor)) => fleet::kill(supervisor),
            _ => fleet::kill(one.pid),
        }
    }
}
