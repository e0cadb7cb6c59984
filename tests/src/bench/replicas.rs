//! The replica-manager: how soon a killed replica is replaced on a real agent, how soon many are HEALTHY
//! on agents that are played by the bench, what one change costs among few services and many, and a
//! restart with 100,000 replicas.

mod agents;
mod crowd;
mod healthy;
mod kills;
mod manager;

use super::Setup;
use super::figure::Report;

pub(super) async fn run(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    kills::run(setup, report).await?;
    healthy::run(setup, report).await?;
    crowd::run(setup, report).await
}
