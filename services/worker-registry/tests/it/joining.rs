//! Who gets in, and who may speak for whom.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use muster_proto::workers::v1 as proto;
use muster_proto::workers::v1::WorkerState;
use muster_store::Store;
use tonic::{Code, Request};

use crate::support::{Agent, Client, Registry, config, get, passed, reason, registration};

async fn closed() -> Registry {
    let mut config = config();
    config.insecure_join = false;
    Registry::with(config, Store::memory()).await
}

async fn token(
    client: &mut Client,
    worker: &str,
    uses: Option<i32>,
) -> proto::CreateJoinTokenResponse {
    let request = proto::CreateJoinTokenRequest {
        worker_name: worker.to_owned(),
        max_uses: uses,
        labels: [("tier".to_owned(), "gold".to_owned())].into(),
        ..Default::default()
    };
    client
        .create_join_token(request)
        .await
        .unwrap()
        .into_inner()
}

fn with_token(name: &str, boot: &str, token: &str) -> proto::RegisterWorkerRequest {
    proto::RegisterWorkerRequest {
        join_token: token.to_owned(),
        ..registration(name, boot)
    }
}

pub(crate) fn as_agent<T>(message: T, credential: &str) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {credential}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

/// How often each join token was used.
async fn uses(client: &mut Client) -> Vec<i32> {
    let request = proto::ListJoinTokensRequest::default();
    let listed = client.list_join_tokens(request).await.unwrap().into_inner();
    listed.join_tokens.iter().map(|token| token.uses).collect()
}

#[tokio::test]
async fn a_machine_joins_by_its_token_and_comes_back_by_its_credential() {
    let registry = closed().await;
    let mut client = registry.client().await;
    assert_eq!(
        reason(client.register_worker(registration("w1", "b1")).await),
        "JOIN_TOKEN_INVALID"
    );
    let made = token(&mut client, "", Some(1)).await;
    let answer = client
        .register_worker(with_token("w1", "b1", &made.secret))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.worker.unwrap().labels["tier"], "gold");
    // The answer was lost: the same process tries again, with the same token.
    let again = client
        .register_worker(with_token("w1", "b1", &made.secret))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (again.credential.as_str(), again.worker.unwrap().generation),
        (answer.credential.as_str(), 1)
    );
    // Who knows no more than the token's id gets nothing for it.
    let (id, _) = made.secret.rsplit_once('.').unwrap();
    let guessed = with_token("w1", "b1", &format!("{id}.{}", "x".repeat(27)));
    assert_eq!(
        reason(client.register_worker(guessed).await),
        "WORKER_NAME_TAKEN"
    );
    assert_eq!(
        reason(
            client
                .register_worker(with_token("w2", "b2", &made.secret))
                .await
        ),
        "JOIN_TOKEN_INVALID"
    );
    assert_eq!(
        reason(
            client
                .register_worker(with_token("w1", "b2", &made.secret))
                .await
        ),
        "WORKER_NAME_TAKEN"
    );
    let restarted = as_agent(registration("w1", "b2"), &answer.credential);
    let restarted = client
        .register_worker(restarted)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (
            restarted.worker.unwrap().generation,
            restarted.credential.as_str()
        ),
        (2, "")
    );
    assert_eq!(uses(&mut client).await, [1]);
    registry.stop().await;
}

#[tokio::test]
async fn a_bound_token_awaits_its_worker_and_a_revoked_one_lets_nobody_in() {
    let registry = closed().await;
    let mut client = registry.client().await;
    let made = token(&mut client, "w1", None).await;
    let ahead = get(&mut client, "w1").await.unwrap();
    assert_eq!(
        (ahead.generation, ahead.state()),
        (0, WorkerState::Provisioning)
    );
    assert_eq!(
        reason(
            client
                .register_worker(with_token("w2", "b1", &made.secret))
                .await
        ),
        "JOIN_TOKEN_INVALID"
    );
    let joined = client
        .register_worker(with_token("w1", "b1", &made.secret))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(joined.worker.unwrap().uid, ahead.uid);
    let other = token(&mut client, "", Some(0)).await;
    let id = other.join_token.unwrap().id;
    client
        .revoke_join_token(proto::RevokeJoinTokenRequest { id: id.clone() })
        .await
        .unwrap();
    assert_eq!(
        reason(
            client
                .register_worker(with_token("w3", "b1", &other.secret))
                .await
        ),
        "JOIN_TOKEN_INVALID"
    );
    let twice = client
        .revoke_join_token(proto::RevokeJoinTokenRequest { id })
        .await;
    assert_eq!(reason(twice), "RESOURCE_NOT_FOUND");
    registry.stop().await;
}

#[tokio::test]
async fn a_repeated_token_request_shows_the_same_secret() {
    let registry = closed().await;
    let mut client = registry.client().await;
    let request = proto::CreateJoinTokenRequest {
        request_id: "req-1".to_owned(),
        ..Default::default()
    };
    let first = client
        .create_join_token(request.clone())
        .await
        .unwrap()
        .into_inner();
    let second = client
        .create_join_token(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (first.secret, first.join_token),
        (second.secret, second.join_token)
    );
    let other = proto::CreateJoinTokenRequest {
        max_uses: Some(7),
        ..request
    };
    assert_eq!(
        reason(client.create_join_token(other).await),
        "REQUEST_ID_REUSED"
    );
    registry.stop().await;
}

#[tokio::test]
async fn a_worker_speaks_only_for_itself() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let first = client
        .register_worker(registration("w1", "b1"))
        .await
        .unwrap()
        .into_inner();
    client
        .register_worker(registration("w2", "b1"))
        .await
        .unwrap();
    let beat = |name: &str| proto::HeartbeatRequest {
        name: name.to_owned(),
        generation: 1,
        ..Default::default()
    };
    client
        .heartbeat(as_agent(beat("w1"), &first.credential))
        .await
        .unwrap();
    // Known by now without looking at the signature again.
    client
        .heartbeat(as_agent(beat("w1"), &first.credential))
        .await
        .unwrap();
    let other = client
        .heartbeat(as_agent(beat("w2"), &first.credential))
        .await;
    assert_eq!(reason(other), "NOT_YOURSELF");
    let activation = proto::ActivateWorkerRequest {
        name: "w2".to_owned(),
        generation: 1,
        checks: passed(),
    };
    let other = client
        .activate_worker(as_agent(activation, &first.credential))
        .await;
    assert_eq!(reason(other), "NOT_YOURSELF");
    let forged = format!("{}x", first.credential);
    let refused = client
        .heartbeat(as_agent(beat("w1"), &forged))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let list = client
        .list_workers(as_agent(
            proto::ListWorkersRequest::default(),
            &first.credential,
        ))
        .await;
    assert_eq!(reason(list), "ROLE_DENIED");
    registry.stop().await;
}

#[tokio::test]
async fn a_credential_is_verified_by_the_public_key_alone() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let joined = client
        .register_worker(registration("w1", "b1"))
        .await
        .unwrap()
        .into_inner();
    let keys = client
        .get_credential_keys(proto::GetCredentialKeysRequest {})
        .await
        .unwrap()
        .into_inner();
    let (body, signature) = joined.credential.rsplit_once('.').unwrap();
    let parts: Vec<_> = body.split('.').collect();
    assert_eq!(
        (parts[0], parts[1], parts[2]),
        ("mw1", keys.keys[0].id.as_str(), "w1")
    );
    let signature =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, signature)
            .unwrap();
    let key = UnparsedPublicKey::new(&ED25519, &keys.keys[0].public_key);
    key.verify(body.as_bytes(), &signature).unwrap();
    registry.stop().await;
}

#[tokio::test]
async fn the_credential_of_a_deleted_worker_opens_nothing() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let first = client
        .register_worker(registration("w1", "b1"))
        .await
        .unwrap()
        .into_inner();
    client
        .disable_worker(proto::DisableWorkerRequest {
            name: "w1".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap();
    client
        .delete_worker(proto::DeleteWorkerRequest {
            name: "w1".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap();
    let beat = proto::HeartbeatRequest {
        name: "w1".to_owned(),
        generation: 1,
        ..Default::default()
    };
    let refused = client
        .heartbeat(as_agent(beat.clone(), &first.credential))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(reason(client.heartbeat(beat).await), "REREGISTER");
    let agent = Agent::join(&mut client, "w1").await;
    assert_eq!(agent.generation, 2);
    registry.stop().await;
}
