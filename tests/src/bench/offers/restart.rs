//! From nothing to a full answer: a gateway that starts for the first time, and one that starts again.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use muster_proto::offers::v1::offers_service_client::OffersServiceClient;
use tokio::time::Instant;

use super::super::Setup;
use super::super::child::Child;
use super::super::figure::{Figure, Report, Target};
use super::super::statistics::median;
use super::ask::{self, Question};
use super::catalogue::Expected;

/// The longest wait for a full answer.
const PATIENCE: Duration = Duration::from_secs(60);
const RESTARTS: usize = 5;
const MOST_SECONDS: f64 = 0.3;

/// Measures, and answers the last gateway, which runs on.
pub(super) async fn run(
    setup: &Setup,
    folder: &Path,
    expected: Expected,
    report: &mut Report,
) -> anyhow::Result<Child> {
    let (mut gateway, seconds) = until_full(folder, expected).await?;
    report.add(Figure::new("first-start-to-full-answer", seconds, "s"));
    let mut times = Vec::new();
    for _ in 0..setup.size(RESTARTS, 2) {
        gateway.kill().await?;
        let seconds;
        (gateway, seconds) = until_full(folder, expected).await?;
        times.push(seconds);
    }
    report.add(
        Figure::new("restart-to-full-answer", median(times), "s")
            .target(Target::AtMost(MOST_SECONDS)),
    );
    Ok(gateway)
}

async fn until_full(folder: &Path, expected: Expected) -> anyhow::Result<(Child, f64)> {
    let begun = Instant::now();
    let gateway = super::plan(folder).start().await?;
    let mut client = OffersServiceClient::new(gateway.connect().await?);
    let mut answer = ask::ask(&mut client, Question::Selective.request()).await?;
    while !ask::is_whole(&answer) {
        let waited = begun.elapsed();
        ensure!(waited < PATIENCE, "no full answer: {:?}", answer.backends);
        answer = ask::ask(&mut client, Question::Selective.request()).await?;
    }
    ask::check(&answer, expected.selective)?;
    Ok((gateway, begun.elapsed().as_secs_f64()))
}
