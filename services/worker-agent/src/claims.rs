//! That this agent alone offers its accelerators, and nobody else uses them: two agents on one machine, or a
//! replica that an agent of another data folder has left, would have them given away twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::machine::claim::{Claim, Holder};

/// The name of an accelerator that an agent offers.
fn offer_of(uuid: &str) -> String {
    format!("agent/{uuid}")
}

/// The name of an accelerator that a replica runs on.
pub(crate) fn use_of(uuid: &str) -> String {
    format!("replica/{uuid}")
}

/// What this agent has claimed.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    offered: BTreeMap<String, Claim>,
    /// Those in our way: each is asked once, since askers are never let in.
    holders: BTreeMap<String, Holder>,
}

impl Claims {
    /// Claims the accelerators `uuids`, and no others; where one cannot be had, none is claimed that was not
    /// before, so that whoever has the better claim is not kept from it. Replicas of this agent run on `ours`.
    ///
    /// # Errors
    /// Who offers or uses one, and what to do.
    pub(crate) fn offer(
        &mut self,
        uuids: &BTreeSet<String>,
        ours: &BTreeSet<String>,
    ) -> Result<(), String> {
        self.offered.retain(|uuid, _| uuids.contains(uuid));
        let mut claimed = Vec::new();
        for uuid in uuids {
            if !ours.contains(uuid) {
                self.take(&use_of(uuid)).map_err(|holder| {
                    format!("{uuid} is used by {holder}, of which this agent knows nothing: end it")
                })?;
            }
            if !self.offered.contains_key(uuid) {
                let claim = self.take(&offer_of(uuid)).map_err(|holder| {
                    format!(
                        "{uuid} is offered by another agent here, {holder}: stop one of the two"
                    )
                })?;
                claimed.extend(claim.map(|claim| (uuid.clone(), claim)));
            }
        }
        self.offered.extend(claimed);
        Ok(())
    }

    /// Takes a name; nothing where the kernel has no such names.
    fn take(&mut self, name: &str) -> Result<Option<Claim>, Holder> {
        match Claim::take(name) {
            Ok(Some(claim)) => {
                self.holders.remove(name);
                Ok(Some(claim))
            }
            Ok(None) => {
                let ask = || Holder::of(name).ok().flatten().unwrap_or_default();
                Err(self
                    .holders
                    .entry(name.to_owned())
                    .or_insert_with(ask)
                    .clone())
            }
            Err(error) => {
                tracing::debug!(name, %error, "an accelerator cannot be claimed");
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<const N: usize>(uuids: [&str; N]) -> BTreeSet<String> {
        let me = std::process::id();
        uuids.iter().map(|uuid| format!("{uuid}-{me}")).collect()
    }

    #[test]
    fn an_accelerator_is_offered_by_one_agent() {
        let (mut one, mut other) = (Claims::default(), Claims::default());
        let none = BTreeSet::new();
        one.offer(&set(["GPU-a", "GPU-b"]), &none).unwrap();
        one.offer(&set(["GPU-a", "GPU-b"]), &none).unwrap();
        for _ in 0..3 {
            let wrong = other.offer(&set(["GPU-b", "GPU-c"]), &none).unwrap_err();
            let by = format!("another agent here, process {} (", std::process::id());
            assert!(wrong.contains(&by), "{wrong}");
        }
        let wrong = other.offer(&set(["GPU-a0", "GPU-b"]), &none).unwrap_err();
        assert!(wrong.contains("GPU-b"), "{wrong}");
        let third = Claims::default().offer(&set(["GPU-a0"]), &none);
        assert_eq!(third, Ok(()), "who fails keeps nobody from it");
        // It has lost one, which the other may have then.
        one.offer(&set(["GPU-a"]), &none).unwrap();
        other.offer(&set(["GPU-b", "GPU-c"]), &none).unwrap();
        drop(other);
        one.offer(&set(["GPU-a", "GPU-b", "GPU-c"]), &none).unwrap();
    }

    #[test]
    fn an_accelerator_that_a_stranger_uses_is_not_offered() {
        let uuids = set(["GPU-used"]);
        let used = Claim::take(&use_of(uuids.first().unwrap())).unwrap();
        let mut claims = Claims::default();
        let wrong = claims.offer(&uuids, &BTreeSet::new()).unwrap_err();
        assert!(wrong.contains("this agent knows nothing"), "{wrong}");
        claims.offer(&uuids, &uuids).unwrap();
        drop(used);
        claims.offer(&uuids, &BTreeSet::new()).unwrap();
    }
}
