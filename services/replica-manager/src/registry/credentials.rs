//! Which worker a credential names: verified with the registry's public keys, which are fetched and kept
//! fresh, and kept in the store for a start while the registry is away. It never asks the registry while a call
//! waits: what cannot be verified yet is refused, and the agent comes again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_proto::workers::v1::{
    CredentialKey, GetCredentialKeysRequest, GetCredentialKeysResponse,
};
use muster_runtime::auth::{Principal, Role, Verify};
use muster_runtime::backoff::{Backoff, Policy};
use muster_runtime::connect::Channel;
use muster_store::{Store, Transaction};
use prost::Message as _;
use tokio::sync::Notify;

use crate::fleet::Fleet;
use crate::state::keys;

/// The first word of a credential: its layout.
const LAYOUT: &str = "mw1";

/// The longest token looked at, in bytes.
const MAX_TOKEN: usize = 512;

/// How often keys are fetched anew; an unknown key is asked for at once.
const REFRESH: Duration = Duration::from_secs(60);

/// The least time between two fetches, so that nobody makes us ask by presenting nonsense.
const PAUSE: Duration = Duration::from_millis(500);

/// The delays between tries to reach the registry.
const AGAIN: Policy = Policy::doubling(Duration::from_millis(50), Duration::from_secs(2));

/// How many verified credentials are remembered: the workers of a large fleet. A signature costs more
/// than the call that it proves.
const REMEMBERED: usize = 100_000;

/// The registry's keys, as far as they are known. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Credentials(Arc<Inner>);

struct Inner {
    fleet: Fleet,
    known: Mutex<Known>,
    unknown_key: Notify,
}

/// Public keys by id.
type Keys = BTreeMap<String, Vec<u8>>;

struct Known {
    keys: Keys,
    /// Verified credentials, with the worker that each names.
    verified: BTreeMap<String, Principal>,
}

impl Credentials {
    /// Those that the store has are known. A credential of a worker that is deleted does not speak for its
    /// namesake in `fleet`.
    pub(crate) fn new(fleet: Fleet, stored: &[u8]) -> Self {
        let stored = GetCredentialKeysResponse::decode(stored).unwrap_or_default();
        let known = Known {
            keys: by_id(stored),
            verified: BTreeMap::new(),
        };
        Self(Arc::new(Inner {
            fleet,
            known: Mutex::new(known),
            unknown_key: Notify::new(),
        }))
    }

    /// Fetches the keys, and again for ever.
    pub(crate) async fn follow(self, mut registry: WorkersServiceClient<Channel>, store: Store) {
        let mut backoff = Backoff::new(AGAIN, 3);
        loop {
            match registry
                .get_credential_keys(GetCredentialKeysRequest {})
                .await
            {
                Ok(answer) => {
                    self.learn(by_id(answer.into_inner()), &store).await;
                    backoff.reset();
                    tokio::time::sleep(PAUSE).await;
                    tokio::select! {
                        () = tokio::time::sleep(REFRESH) => {}
                        () = self.0.unknown_key.notified() => {}
                    }
                }
                Err(_) => tokio::time::sleep(backoff.next_delay()).await,
            }
        }
    }

    /// Goes by these keys from now on, and after the next start.
    async fn learn(&self, keys: Keys, store: &Store) {
        let record = in_bytes(&keys);
        self.replace(keys);
        if let Err(error) = keep(record, store).await {
            tracing::debug!(%error, "the registry's public keys are not kept; they will be asked for again");
        }
    }

    fn replace(&self, keys: Keys) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.keys != keys {
            known.verified.clear();
            known.keys = keys;
        }
    }
}

/// Writes the record if it says something else; every instance tries.
async fn keep(record: Vec<u8>, store: &Store) -> Result<(), muster_store::Error> {
    let stored = store.get(keys::CREDENTIAL_KEYS).await?;
    if stored.is_none_or(|stored| stored.value != record) {
        let transaction = Transaction::new().put(keys::CREDENTIAL_KEYS, record);
        // Without conditions there is no conflict.
        let _ = store.commit(transaction).await?;
    }
    Ok(())
}

fn by_id(answer: GetCredentialKeysResponse) -> Keys {
    let keys = answer.keys.into_iter();
    keys.map(|key| (key.id, key.public_key)).collect()
}

fn in_bytes(keys: &Keys) -> Vec<u8> {
    let key = |(id, public_key): (&String, &Vec<u8>)| CredentialKey {
        id: id.clone(),
        public_key: public_key.clone(),
        ..CredentialKey::default()
    };
    let keys = keys.iter().map(key).collect();
    GetCredentialKeysResponse { keys }.encode_to_vec()
}

impl Verify for Credentials {
    fn verify(&self, token: &str) -> Option<Principal> {
        let claim = Claim::read(token)?;
        if !self.0.fleet.is_it(claim.worker, claim.uid) {
            return None;
        }
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(principal) = known.verified.get(token) {
            return Some(principal.clone());
        }
        let Some(key) = known.keys.get(claim.key) else {
            self.0.unknown_key.notify_one();
            return None;
        };
        UnparsedPublicKey::new(&ED25519, key)
            .verify(claim.body.as_bytes(), &claim.signature)
            .ok()?;
        let principal = Principal::new(Role::Agent, claim.worker);
        if known.verified.len() >= REMEMBERED {
            known.verified.clear();
        }
        known.verified.insert(token.to_owned(), principal.clone());
        Some(principal)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// What a credential says, before anything of it is believed: `mw1.KEY.WORKER.UID.SIGNATURE`.
struct Claim<'t> {
    key: &'t str,
    worker: &'t str,
    uid: &'t str,
    body: &'t str,
    signature: Vec<u8>,
}

impl<'t> Claim<'t> {
    fn read(token: &'t str) -> Option<Self> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (body, signature) = token.rsplit_once('.')?;
        let mut parts = body.split('.');
        let (layout, key, worker, uid) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let whole = layout == LAYOUT && parts.next().is_none();
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        whole.then_some(Self {
            key,
            worker,
            uid,
            body,
            signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::domain::time::Time;
    use crate::domain::world::{Worker, WorkerState};
    use crate::fleet::Traits;

    fn pair(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn signed(pair: &Ed25519KeyPair, body: &str) -> String {
        format!(
            "{body}.{}",
            URL_SAFE_NO_PAD.encode(pair.sign(body.as_bytes()))
        )
    }

    fn knowing(pair: &Ed25519KeyPair) -> Credentials {
        let credentials = Credentials::new(Fleet::new(Time::default()), &[]);
        let key = pair.public_key().as_ref().to_vec();
        credentials.replace(BTreeMap::from([("k1".to_owned(), key)]));
        credentials
    }

    #[test]
    fn a_signed_credential_names_its_worker() {
        let credentials = knowing(&pair(1));
        let token = signed(&pair(1), "mw1.k1.w7.uid");
        for _ in 0..2 {
            let principal = credentials.verify(&token).unwrap();
            assert_eq!((principal.role(), principal.name()), (Role::Agent, "w7"));
        }
    }

    #[test]
    fn a_deleted_worker_does_not_speak_for_its_namesake() {
        let credentials = knowing(&pair(1));
        let token = signed(&pair(1), "mw1.k1.w7.uid");
        let told = |uid: &str| {
            let traits = Traits {
                uid: uid.to_owned(),
                offered: 0,
            };
            credentials
                .0
                .fleet
                .put("w7", Worker::in_state(WorkerState::Active), traits)
        };
        let _ = told("uid");
        assert!(credentials.verify(&token).is_some());
        let _ = told("other");
        assert_eq!(credentials.verify(&token), None);
    }

    #[test]
    fn what_was_not_signed_is_refused() {
        let credentials = knowing(&pair(1));
        let good = signed(&pair(1), "mw1.k1.w7.uid");
        let (_, signature) = good.rsplit_once('.').unwrap();
        for token in [
            signed(&pair(2), "mw1.k1.w7.uid"),
            signed(&pair(1), "mw1.k2.w7.uid"),
            signed(&pair(1), "mw2.k1.w7.uid"),
            signed(&pair(1), "mw1.k1.w7.uid.more"),
            format!("mw1.k1.w8.uid.{signature}"),
            format!("mw1.k1.w7.uid.{}", &signature[1..]),
            "mw1.k1.w7.uid.!".to_owned(),
            "x".repeat(100_000),
            String::new(),
        ] {
            assert_eq!(credentials.verify(&token), None, "{token}");
        }
    }

    #[test]
    fn a_key_that_is_gone_verifies_nothing() {
        let credentials = knowing(&pair(1));
        let token = signed(&pair(1), "mw1.k1.w7.uid");
        assert!(credentials.verify(&token).is_some());
        credentials.replace(BTreeMap::new());
        assert_eq!(credentials.verify(&token), None);
    }

    #[tokio::test]
    async fn keys_outlive_a_start_without_the_registry() {
        let store = Store::memory();
        let (one, two) = (pair(1), pair(2));
        let learn = async |id: &str, pair: &Ed25519KeyPair| {
            let key = pair.public_key().as_ref().to_vec();
            let keys = BTreeMap::from([(id.to_owned(), key)]);
            knowing(pair).learn(keys, &store).await;
            store.get(keys::CREDENTIAL_KEYS).await.unwrap().unwrap()
        };
        let first = learn("k1", &one).await;
        assert_eq!(learn("k1", &one).await.modified, first.modified);
        let after = |record: &[u8]| Credentials::new(Fleet::new(Time::default()), record);
        let token = signed(&one, "mw1.k1.w7.uid");
        assert!(after(&first.value).verify(&token).is_some());
        assert_eq!(after(&learn("k2", &two).await.value).verify(&token), None);
        assert_eq!(after(b"nonsense").verify(&token), None);
    }
}
