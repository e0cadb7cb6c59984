//! Which replicas may get traffic, and how much. An endpoint is gone before its replica is told to stop.

use super::replica::attempt::Attempt;
use super::replica::{Phase, Replica, State};
use super::service::Service;

/// How much traffic a replica should get, next to the others; `None` is none, ever again.
///
/// It is 0 only for one that another, ready for `min_ready`, has replaced, and that is about to be
/// stopped.
#[must_use]
pub fn weight(replica: &Replica) -> Option<u32> {
    if replica.state != State::Running(Phase::Ready) {
        return None;
    }
    match replica.stop {
        None => Some(1),
        Some(stop) if !stop.told && stop.why.replaced() => Some(0),
        Some(_) => None,
    }
}

/// The replicas that may get traffic, with their attempts and weights, in order.
pub fn endpoints(service: &Service) -> impl Iterator<Item = (&Replica, &Attempt, u32)> {
    service.replicas.values().filter_map(|replica| {
        let weight = weight(replica)?;
        Some((replica.as_ref(), replica.attempt.as_ref()?, weight))
    })
}
