//! Join tokens and the keys of credentials.

use std::time::Duration;

use muster_proto::workers::v1 as proto;
use muster_runtime::auth::Principal;
use muster_runtime::deadline::Deadline;
use muster_runtime::page::{Asked, Budget};
use muster_runtime::status::{self, Violations};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Status};

use super::access::actor;
use super::convert::{
    MAX_ID, parse_count, parse_duration, parse_labels, parse_later, parse_name, parse_required,
    parse_text, render_token,
};
use super::failure::{check, status_of};
use super::readers::{DEFAULT_WAIT, cursor};
use crate::credential;
use crate::domain::decide::{self, NewToken};
use crate::domain::text::Text;
use crate::domain::token::JoinToken;
use crate::registry::Registry;

/// How long a token lasts if nobody says.
const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);

/// The keys that verify workers' credentials.
pub(super) fn keys(registry: &Registry) -> proto::GetCredentialKeysResponse {
    let key = proto::CredentialKey {
        id: registry.keys.id().to_owned(),
        algorithm: "Ed25519".to_owned(),
        public_key: registry.keys.public_key().to_vec(),
    };
    proto::GetCredentialKeysResponse { keys: vec![key] }
}

/// Makes a token that lets machines register.
pub(super) async fn create(
    registry: &Registry,
    request: Request<proto::CreateJoinTokenRequest>,
) -> Result<proto::CreateJoinTokenResponse, Status> {
    let principal: Text = Principal::of(&request).id().into();
    let actor = actor(&request);
    let message = request.into_inner();
    let mut violations = Violations::new();
    let new = parse_new(registry, &message, &principal, actor, &mut violations)?;
    check(violations)?;
    let make = |book: &_, now| decide::create_token(book, &new, now);
    let made = registry.decide(make).await.map_err(status_of)?;
    Ok(proto::CreateJoinTokenResponse {
        secret: registry.keys.join_secret(&made.value.id),
        join_token: Some(render_token(&made.value)),
        resume_token: registry.token(made.revision),
    })
}

fn parse_new(
    registry: &Registry,
    message: &proto::CreateJoinTokenRequest,
    principal: &Text,
    actor: Text,
    violations: &mut Violations,
) -> Result<NewToken, Status> {
    let now = registry.clock.now();
    let id = credential::random_id().map_err(|_| status::internal())?;
    let bound = Some(&message.worker_name).filter(|name| !name.is_empty());
    let most = parse_count("max_uses", message.max_uses.unwrap_or(1), violations);
    let ttl = parse_duration("ttl", message.ttl.as_ref(), violations).unwrap_or(DEFAULT_TTL);
    let expires = match ttl.is_zero() {
        true => None,
        false => parse_later("ttl", now, ttl, violations),
    };
    let request_id = parse_text("request_id", &message.request_id, MAX_ID, violations);
    let body: [u8; 32] = Sha256::digest(message.encode_to_vec()).into();
    let body = body
        .first_chunk::<8>()
        .map_or(0, |first| u64::from_be_bytes(*first));
    Ok(NewToken {
        token: JoinToken {
            secret_hash: credential::hash(&registry.keys.join_secret(&id)),
            id,
            worker: bound.map(|name| parse_name("worker_name", name, violations)),
            max_uses: (most > 0).then_some(most),
            uses: 0,
            expires,
            created: now,
            actor,
            labels: parse_labels("labels", message.labels.clone(), violations),
        },
        uid: credential::random_id().map_err(|_| status::internal())?,
        request: (!request_id.is_empty()).then(|| (principal.clone(), request_id, body)),
    })
}

/// Join tokens, in order of id.
pub(super) async fn list(
    registry: &Registry,
    request: Request<proto::ListJoinTokensRequest>,
) -> Result<proto::ListJoinTokensResponse, Status> {
    let principal = Principal::of(&request);
    let deadline = Deadline::of(&request).unwrap_or_else(|| Deadline::after(DEFAULT_WAIT));
    let mut message = request.into_inner();
    let mut violations = Violations::new();
    let asked = Asked::take(
        &mut message.page_size,
        &mut message.page_token,
        &mut violations,
    );
    check(violations)?;
    let not_before = std::mem::take(&mut message.not_before);
    registry
        .progress
        .not_before(&not_before, &registry.epoch, deadline)
        .await?;
    let scope = registry
        .sealer
        .scope("ListJoinTokens", principal.id(), &message);
    let after = cursor(&scope, &asked.token)?;
    let view = registry.view();
    let mut budget = Budget::new(asked.size);
    let mut join_tokens: Vec<proto::JoinToken> = Vec::new();
    let mut next_page_token = String::new();
    for token in view.tokens_after(&after) {
        let token = render_token(token);
        if !budget.admit(token.encoded_len()) {
            let last = join_tokens
                .last()
                .map(|last| last.id.as_str())
                .unwrap_or_default();
            next_page_token = scope.seal(last.as_bytes());
            break;
        }
        join_tokens.push(token);
    }
    let resume_token = registry.token(view.revision());
    Ok(proto::ListJoinTokensResponse {
        join_tokens,
        next_page_token,
        resume_token,
    })
}

/// Ends a join token.
pub(super) async fn revoke(
    registry: &Registry,
    request: Request<proto::RevokeJoinTokenRequest>,
) -> Result<proto::RevokeJoinTokenResponse, Status> {
    let mut violations = Violations::new();
    let id = parse_required("id", &request.get_ref().id, MAX_ID, &mut violations);
    check(violations)?;
    let make = |book: &_, now| decide::revoke_token(book, &id, now);
    let revoked = registry.decide(make).await.map_err(status_of)?;
    Ok(proto::RevokeJoinTokenResponse {
        resume_token: registry.token(revoked.revision),
    })
}
