//! What an instance that does not lead knows of what only the leader judges: who is SUSPECT, who was heard, how
//! far drains have come. It takes the latest that the leader says, and keeps it while nobody leads.

use std::time::Duration;

use futures_util::StreamExt as _;
use muster_proto::workers::v1 as proto;
use muster_runtime::instances::Peer;
use tracing::debug;

use super::Registry;
use crate::domain::liveness::Liveness;
use crate::domain::text::Text;
use crate::grpc::peers;

/// How often it is looked whether the one that is listened to still leads.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The wait before a leader is looked for again.
const AGAIN: Duration = Duration::from_millis(250);

impl Registry {
    /// Takes what the leader says, whoever that is, for ever.
    pub(super) async fn follow_leader(&self) {
        loop {
            if let Ok(leader) = self.instances.leader().await {
                tokio::select! {
                    () = self.listen(&leader) => {}
                    () = self.replaced(&leader) => {}
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn listen(&self, leader: &Peer) {
        let mut said = match peers::watch_observed(leader).await {
            Ok(said) => said,
            Err(status) => {
                debug!(%status, "the leader does not tell what it observes");
                return;
            }
        };
        while let Some(Ok(message)) = said.next().await {
            if self.leads() {
                return;
            }
            for worker in message.workers {
                self.take_told(worker);
            }
        }
    }

    fn take_told(&self, worker: proto::Worker) {
        let name = Text::from(worker.name.as_str());
        let Some(told) = peers::parse_told(worker) else {
            return;
        };
        let is_suspect = told.observed.liveness == Liveness::Suspect;
        if self.lives.tell(&name, told) {
            self.with_book(|book| book.set_suspect(&name, is_suspect));
            self.observe(&name);
        }
    }

    /// Resolves when another leads. A leader that stands still ends no stream.
    async fn replaced(&self, leader: &Peer) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.instances.leader().await;
            if now.is_ok_and(|now| now.id != leader.id) || self.leads() {
                return;
            }
        }
    }
}
