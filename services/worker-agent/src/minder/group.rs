//! What a minder has to do with its attempt's control group: find it, see that it is used, and remove
//! it in the end. It decides nothing of what runs there.

use tokio::time::sleep;

use super::{KILL_PAUSE, LONGEST_KILL_PAUSE, Minder, blocking};
use crate::cgroup::Group;

/// Tries to remove a group. What is left then is removed by the janitor.
const TRIES: u32 = 8;

impl Minder {
    /// The attempt's group: the one that it was started in, or would be in.
    pub(super) async fn group(&self) -> Option<Group> {
        let dir = self.dir.clone();
        match blocking(move || dir.spec()).await {
            Ok(spec) => spec.cgroup,
            Err(_) => self.groups.group(&self.id),
        }
    }

    /// Says if a supervisor that lives could not enter its group: then neither does its replica.
    pub(super) async fn look_for_group(&self) {
        let (group, dir) = (self.group().await, self.dir.clone());
        let Some(group) = group else {
            return;
        };
        let left_out = move || Ok(!group.has_supervisor() && matches!(dir.life(), Ok(Some(_))));
        if blocking(left_out).await.unwrap_or(false) {
            let why = self.complaint();
            tracing::warn!(attempt = %self.id, why, "it has no limits: it is not in its control group");
        }
    }

    /// Removes the group of an attempt that has ended. Its supervisor may be there for a moment.
    pub(super) async fn remove_group(&self) {
        let Some(group) = self.group().await else {
            return;
        };
        let mut pause = KILL_PAUSE;
        for _ in 0..TRIES {
            let group = group.clone();
            if blocking(move || group.remove()).await.is_ok() {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_KILL_PAUSE);
        }
    }
}
