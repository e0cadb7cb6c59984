//! `Health/Check`: what a call costs that does nothing, and the floor of all others.

use anyhow::ensure;
use muster_proto::health::v1::HealthCheckRequest;
use muster_proto::health::v1::health_check_response::ServingStatus;
use muster_proto::health::v1::health_client::HealthClient;

use super::connection::Connection;
use super::load::Call;

/// Asks whether the process serves, again and again.
pub(super) struct Check(HealthClient<Connection>);

impl Check {
    /// A client on each connection.
    pub(super) fn on(channels: &[Connection]) -> Vec<Self> {
        let client = |channel: &Connection| Self(HealthClient::new(channel.clone()));
        channels.iter().map(client).collect()
    }
}

impl Call for Check {
    async fn call(&mut self) -> anyhow::Result<u64> {
        let response = self.0.check(HealthCheckRequest::default()).await?;
        let status = response.into_inner().status();
        ensure!(
            status == ServingStatus::Serving,
            "the server says {status:?}"
        );
        Ok(1)
    }
}

pub(super) async fn is_serving(channel: Connection) -> bool {
    let mut client = HealthClient::new(channel);
    let answer = client.check(HealthCheckRequest::default()).await;
    answer.is_ok_and(|response| response.into_inner().status() == ServingStatus::Serving)
}
