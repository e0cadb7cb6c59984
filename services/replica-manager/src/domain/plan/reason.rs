//! Why a plan does something, or leaves it: data, which tests assert on and `explain` shows.

use std::fmt;

use crate::domain::failure::Class;
use crate::domain::failure::episode::Exceeded;
use crate::domain::failure::policy::StagePlace;
use crate::domain::replica::StopWhy;
use crate::domain::time::Time;

/// One reason. Ordinals name replicas of the service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// An attempt counts as ended, since its worker is gone.
    GivenUp {
        /// The replica.
        ordinal: u32,
        /// The worker.
        worker: String,
    },
    /// An attempt on a lost worker may still run: the next waits for the fence.
    WaitsForFence {
        /// The replica.
        ordinal: u32,
        /// The worker.
        worker: String,
    },
    /// A failure ends the service.
    Fails {
        /// The replica.
        ordinal: u32,
        /// Of what class.
        class: Class,
        /// There is no retry at all, rather than none for the class.
        no_retry: bool,
    },
    /// A failure does not count, since the replica is an extra one.
    ExtraCopy {
        /// The replica.
        ordinal: u32,
        /// Of what class.
        class: Class,
    },
    /// An attempt was gone before the store was restored, which is no failure.
    EndedBeforeRestore {
        /// The replica.
        ordinal: u32,
    },
    /// A failed replica is tried again.
    Retries {
        /// The replica.
        ordinal: u32,
        /// Of what class the failure was.
        class: Class,
        /// When.
        due: Time,
    },
    /// No worker has room.
    NoPlace {
        /// The replica.
        ordinal: u32,
        /// When it is asked again at the latest.
        due: Time,
    },
    /// A stage of the retry policy cannot be met.
    StageSkipped {
        /// The replica.
        ordinal: u32,
        /// The stage, from 1; 0 for the default order.
        stage: usize,
        /// What it asks for.
        place: StagePlace,
    },
    /// Retries are used up.
    Exhausted {
        /// The replica.
        ordinal: u32,
        /// The class of the last failure.
        class: Class,
        /// The limit.
        exceeded: Exceeded,
    },
    /// The update is taken back.
    RolledBack {
        /// Why, in words.
        why: String,
    },
    /// The update waits for a place or a lost machine.
    UpdatePaused {
        /// The replica.
        ordinal: u32,
        /// What it waits for.
        class: Class,
    },
    /// More would be more copies than allowed.
    TooManyCopies {
        /// How many there are.
        copies: u32,
        /// How many there may be.
        most: u32,
    },
    /// A stop waits, since too few are ready.
    KeepsReady {
        /// The replica that would be stopped.
        ordinal: u32,
        /// How many are ready.
        ready: u32,
        /// How many have to stay.
        floor: u32,
    },
    /// A replica has to be ready for longer before another is stopped.
    WaitsMinReady {
        /// The replica that is to be ready.
        ordinal: u32,
        /// Until when.
        until: Time,
    },
    /// A move waits for others off the same worker.
    MoveWaits {
        /// The replica.
        ordinal: u32,
        /// The worker.
        worker: String,
    },
    /// A replica on a draining worker is replaced by the update.
    UpdateMoves {
        /// The replica.
        ordinal: u32,
    },
    /// A replica that waits for its retry keeps no room, which the update needs.
    FreesRoom {
        /// The replica.
        ordinal: u32,
    },
    /// A spare stands in.
    Spare {
        /// For this replica.
        ordinal: u32,
    },
    /// A replica is stopped.
    Stops {
        /// The replica.
        ordinal: u32,
        /// Why.
        why: StopWhy,
    },
}

impl Reason {
    /// The replica that it is about, if it is about one.
    #[must_use]
    pub fn ordinal(&self) -> Option<u32> {
        match self {
            Self::GivenUp { ordinal, .. }
            | Self::WaitsForFence { ordinal, .. }
            | Self::Fails { ordinal, .. }
            | Self::ExtraCopy { ordinal, .. }
            | Self::EndedBeforeRestore { ordinal }
            | Self::Retries { ordinal, .. }
            | Self::NoPlace { ordinal, .. }
            | Self::StageSkipped { ordinal, .. }
            | Self::Exhausted { ordinal, .. }
            | Self::UpdatePaused { ordinal, .. }
            | Self::KeepsReady { ordinal, .. }
            | Self::WaitsMinReady { ordinal, .. }
            | Self::MoveWaits { ordinal, .. }
            | Self::UpdateMoves { ordinal }
            | Self::FreesRoom { ordinal }
            | Self::Spare { ordinal }
            | Self::Stops { ordinal, .. } => Some(*ordinal),
            Self::RolledBack { .. } | Self::TooManyCopies { .. } => None,
        }
    }
}

/// For a person, without the replica's name.
impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GivenUp { worker, .. } => write!(out, "given up: worker {worker} is gone"),
            Self::WaitsForFence { worker, .. } => {
                write!(
                    out,
                    "waits until it has certainly stopped on the lost worker {worker}"
                )
            }
            Self::Fails {
                class,
                no_retry: true,
                ..
            } => {
                write!(
                    out,
                    "failed ({class}), and there is no retry: the service fails"
                )
            }
            Self::Fails { class, .. } => write!(out, "failed, and {class} is fail"),
            Self::ExtraCopy { class, .. } => {
                write!(
                    out,
                    "failed ({class}), which does not count for an extra copy"
                )
            }
            Self::EndedBeforeRestore { .. } => out.write_str("was gone before the restore"),
            Self::Retries { class, .. } => write!(out, "failed ({class}), and is tried again"),
            Self::NoPlace { .. } => out.write_str("no worker has room for it"),
            Self::StageSkipped { stage, place, .. } => {
                let place = place_words(*place);
                match stage {
                    0 => write!(out, "{place} takes nothing now"),
                    stage => write!(out, "stage {stage} is skipped: {place} takes nothing now"),
                }
            }
            Self::Exhausted {
                class, exceeded, ..
            } => {
                let limit = limit_words(*exceeded);
                write!(out, "gave up on {class}: {limit} is reached")
            }
            Self::RolledBack { why } => write!(out, "the update is rolled back: {why}"),
            Self::UpdatePaused { class, .. } => write!(out, "the update waits ({class})"),
            Self::TooManyCopies { copies, most } => {
                write!(out, "there are {copies} copies, and may be {most}")
            }
            Self::KeepsReady { ready, floor, .. } => {
                write!(out, "is kept: {ready} are ready, and {floor} have to stay")
            }
            Self::WaitsMinReady { .. } => out.write_str("has to be ready for longer"),
            Self::MoveWaits { worker, .. } => {
                write!(out, "waits for other moves off {worker}")
            }
            Self::UpdateMoves { .. } => {
                out.write_str("is on a draining worker, and replaced by the update")
            }
            Self::FreesRoom { .. } => out.write_str("gives up its room, which the update needs"),
            Self::Spare { .. } => out.write_str("has a spare that stands in for it"),
            Self::Stops { why, .. } => write!(out, "is stopped: {why}"),
        }
    }
}

fn place_words(place: StagePlace) -> &'static str {
    match place {
        StagePlace::SameWorker => "the same worker",
        StagePlace::OtherWorker => "another worker",
        StagePlace::OtherRegion => "another region",
        StagePlace::Any => "anywhere",
    }
}

fn limit_words(limit: Exceeded) -> &'static str {
    match limit {
        Exceeded::Attempts => "max_attempts",
        Exceeded::Duration => "max_duration",
        Exceeded::Stages => "the last stage's attempts",
    }
}
