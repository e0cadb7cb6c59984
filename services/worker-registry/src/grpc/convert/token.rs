//! Join tokens.

use muster_proto::workers::v1 as proto;

use super::render_count;
use super::time::render_time;
use crate::domain::token::JoinToken;

/// A join token, without its secret.
pub(crate) fn render_token(token: &JoinToken) -> proto::JoinToken {
    proto::JoinToken {
        id: token.id.to_string(),
        worker_name: token
            .worker
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        max_uses: token.max_uses.map_or(0, render_count),
        uses: render_count(token.uses),
        expire_time: token.expires.map(render_time),
        create_time: Some(render_time(token.created)),
        actor: token.actor.to_string(),
        labels: token.labels.clone(),
    }
}
