//! Where an attempt may be placed, the first choice first. The registry judges what fits; a choice that
//! no worker can meet by what is known already is left out, with its reason.

use std::collections::BTreeSet;

use super::Reason;
use super::draft::Draft;
use crate::domain::failure::Class;
use crate::domain::failure::episode::Episode;
use crate::domain::failure::policy::{Retry, StagePlace};
use crate::domain::replica::{Choice, Place, Replica, Role, State};

/// What is asked for the replica's next attempt; never empty.
pub(super) fn choices(draft: &Draft<'_>, replica: &Replica) -> (Vec<Choice>, Vec<Reason>) {
    let anywhere = Choice {
        place: Place::Anywhere,
        stage: None,
    };
    if let Role::Spare { of } = replica.role {
        let place = elsewhere(draft, replica, of);
        return (vec![Choice { place, stage: None }], Vec::new());
    }
    let retry = draft.service.spec().retry.as_ref();
    let failed = replica.episode.as_ref().filter(|e| e.failures > 0);
    let (Some(episode), Some(retry)) = (failed, retry) else {
        let same = same_worker(replica).filter(|_| restarts(replica));
        let same = same.filter(|place| reachable(draft, place));
        let same = same.map(|place| Choice { place, stage: None });
        return (same.into_iter().chain([anywhere]).collect(), Vec::new());
    };
    let mut skipped = Vec::new();
    let mut choices = Vec::new();
    for (place, stage) in steps(episode, retry) {
        let resolved = resolve(place, replica, episode);
        match resolved.filter(|place| reachable(draft, place)) {
            Some(place) => choices.push(Choice { place, stage }),
            None => skipped.push(Reason::StageSkipped {
                ordinal: replica.ordinal,
                stage: stage.map_or(0, |stage| stage + 1),
                place,
            }),
        }
    }
    if !choices.iter().any(|choice| choice.place == Place::Anywhere) {
        let last = retry.stages.len().checked_sub(1);
        choices.push(Choice {
            place: Place::Anywhere,
            stage: last,
        });
    }
    (choices, skipped)
}

/// Whether the first choice after this episode's last failure is the worker that it failed on, and
/// that worker takes it.
pub(super) fn stays(draft: &Draft<'_>, replica: &Replica, episode: &Episode) -> bool {
    let Some(retry) = &draft.service.spec().retry else {
        return false;
    };
    let first = steps(episode, retry).first().map(|(place, _)| *place);
    let same = same_worker(replica).filter(|place| reachable(draft, place));
    first == Some(StagePlace::SameWorker) && same.is_some()
}

/// The steps from the current stage on; without stages, the default order.
fn steps(episode: &Episode, retry: &Retry) -> Vec<(StagePlace, Option<usize>)> {
    if retry.stages.is_empty() {
        let place = match episode.cause {
            Some(Class::Interruption | Class::StartTimeout | Class::Image) => {
                StagePlace::OtherWorker
            }
            _ => StagePlace::SameWorker,
        };
        return vec![(place, None), (StagePlace::Any, None)];
    }
    let first = episode.next_stage(&retry.stages);
    let stages = retry.stages.iter().enumerate().skip(first);
    stages
        .map(|(index, stage)| (stage.place, Some(index)))
        .collect()
}

fn resolve(place: StagePlace, replica: &Replica, episode: &Episode) -> Option<Place> {
    match place {
        StagePlace::SameWorker => same_worker(replica),
        StagePlace::OtherWorker => Some(Place::Avoid {
            workers: episode.workers.clone(),
            regions: BTreeSet::new(),
        }),
        StagePlace::OtherRegion => Some(Place::Avoid {
            workers: BTreeSet::new(),
            regions: episode.regions.clone(),
        }),
        StagePlace::Any => Some(Place::Anywhere),
    }
}

fn same_worker(replica: &Replica) -> Option<Place> {
    let room = replica.last_placed()?.allocation.as_ref()?;
    Some(Place::Same {
        worker: room.worker.clone(),
    })
}

/// It was restarted by a user, and its room is kept for it.
fn restarts(replica: &Replica) -> bool {
    matches!(&replica.state, State::Pending { hold: Some(_) })
}

/// None of the workers where the other one failed, nor where it is.
fn elsewhere(draft: &Draft<'_>, replica: &Replica, of: u32) -> Place {
    let other = draft.replica(of);
    let episodes = [
        replica.episode.as_ref(),
        other.and_then(|r| r.episode.as_ref()),
    ];
    let mut workers: BTreeSet<String> = BTreeSet::new();
    for episode in episodes.into_iter().flatten() {
        workers.extend(episode.workers.iter().cloned());
    }
    Place::Avoid {
        workers,
        regions: BTreeSet::new(),
    }
}

/// Whether a worker that is known to take work is there. While nothing is known, all may be.
fn reachable(draft: &Draft<'_>, place: &Place) -> bool {
    let Some(known) = draft.world.workers else {
        return true;
    };
    match place {
        Place::Anywhere => true,
        Place::Same { worker } => !draft.world.closed(worker),
        Place::Avoid { workers, regions } => known.iter().any(|(name, worker)| {
            worker.placeable() && !workers.contains(name) && !regions.contains(&worker.region)
        }),
    }
}
