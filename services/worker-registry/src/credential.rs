//! The registry's own key: it signs workers' credentials and makes the secrets of join tokens. It is made
//! with the store, and so is in every backup.
//!
//! It decides whether a credential was signed here; whether its worker still exists is for others. A
//! credential is `mw1.KEY.NAME.UID.SIGNATURE`, the signature (base64url) over all before its dot.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_store::{Condition, Outcome, Store, Transaction};
use sha2::{Digest as _, Sha256};

use crate::domain::text::Text;
use crate::record::SECRET;
use crate::registry::StartError;

/// First word of a credential: its layout, so that a later one can differ.
const CREDENTIAL: &str = "mw1";

/// First word of what a machine presents to join.
const JOIN: &str = "mj1";

/// The longest token looked at, in bytes.
const MAX_TOKEN: usize = 512;

/// Letters of random ids: no two look alike in lower case.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The keys of one store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Keys(Arc<Inner>);

struct Inner {
    id: String,
    pair: Ed25519KeyPair,
    secrets: hmac::Key,
}

/// Whose credential it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) name: Text,
    pub(crate) uid: Text,
}

impl Keys {
    /// The keys of the store, made now if it has none.
    pub(crate) async fn open(store: &Store) -> Result<Self, StartError> {
        loop {
            if let Some(record) = store.get(SECRET).await? {
                let seed: [u8; 32] = record
                    .value
                    .as_ref()
                    .try_into()
                    .map_err(|_| StartError::Key("its record is damaged".to_owned()))?;
                return Self::from_seed(&seed);
            }
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(|error| StartError::Key(error.to_string()))?;
            let made = Transaction::new()
                .when(SECRET, Condition::Absent)
                .put(SECRET, seed.to_vec());
            // Another instance may have been first; then its key is read.
            match store.commit(made).await? {
                Outcome::Committed(_) | Outcome::Conflict { .. } => {}
            }
        }
    }

    fn from_seed(seed: &[u8; 32]) -> Result<Self, StartError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|error| StartError::Key(error.to_string()))?;
        let digest: [u8; 32] = Sha256::digest(pair.public_key().as_ref()).into();
        let id = URL_SAFE_NO_PAD.encode(&digest[..6]);
        let mut joined = b"join tokens ".to_vec();
        joined.extend_from_slice(seed);
        let secret: [u8; 32] = Sha256::digest(&joined).into();
        let secrets = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Ok(Self(Arc::new(Inner { id, pair, secrets })))
    }

    /// The key's id, as credentials name it.
    pub(crate) fn id(&self) -> &str {
        &self.0.id
    }

    /// The public key, 32 bytes.
    pub(crate) fn public_key(&self) -> &[u8] {
        self.0.pair.public_key().as_ref()
    }

    /// The credential of a worker. The same each time.
    pub(crate) fn sign(&self, name: &str, uid: &str) -> String {
        let body = format!("{CREDENTIAL}.{}.{name}.{uid}", self.0.id);
        let signature = self.0.pair.sign(body.as_bytes());
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Whose credential it is, if it was signed by this key.
    pub(crate) fn verify(&self, credential: &str) -> Option<Claim> {
        let claim = self.read(credential)?;
        let (body, signature) = credential.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let key = signature::UnparsedPublicKey::new(&signature::ED25519, self.public_key());
        key.verify(body.as_bytes(), &signature).ok()?;
        Some(claim)
    }

    /// Whose credential it claims to be; the signature is not looked at.
    pub(crate) fn read(&self, credential: &str) -> Option<Claim> {
        if credential.len() > MAX_TOKEN {
            return None;
        }
        let mut parts = credential.split('.');
        let mut next = || parts.next();
        let (layout, key, name, uid) = (next()?, next()?, next()?, next()?);
        let _signature = next()?;
        let whole = layout == CREDENTIAL && key == self.0.id && next().is_none();
        whole.then(|| Claim {
            name: name.into(),
            uid: uid.into(),
        })
    }

    /// What a machine presents for the join token of this id. The same each time, so that a repeated
    /// call can be answered although it is not kept.
    pub(crate) fn join_secret(&self, id: &str) -> String {
        let tag = hmac::sign(&self.0.secrets, id.as_bytes());
        format!(
            "{JOIN}.{id}.{}",
            URL_SAFE_NO_PAD.encode(&tag.as_ref()[..20])
        )
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.id)
    }
}

/// The join token's id and the SHA-256 of what a machine presents; none if it is no join token.
pub(crate) fn read_join_token(secret: &str) -> Option<(Text, [u8; 32])> {
    let mut parts = secret.splitn(3, '.');
    let (layout, id, _) = (parts.next()?, parts.next()?, parts.next()?);
    let known = layout == JOIN && secret.len() <= MAX_TOKEN;
    known.then(|| (id.into(), hash(secret)))
}

/// SHA-256 of a secret.
pub(crate) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Twelve random letters and digits: an id that no other has.
pub(crate) fn random_id() -> Result<Text, getrandom::Error> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes)?;
    let letters = bytes.map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
    Ok(letters.iter().collect::<String>().into())
}
