//! Seals and opens page tokens. The key is the only secret; it never leaves this module.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::TokenError;
use crate::check::checksum;

/// Which key sealed a token: tells a token of another instance from an altered one.
const KEY_ID: usize = 8;

/// Half an HMAC-SHA256, as RFC 2104 allows: 2^128 guesses.
const TAG: usize = 16;

/// Over all before it, so that a slip in the key id is seen as one.
const CHECK: usize = 4;

/// The longest token looked at, in characters; ours are far shorter.
const MAX_TOKEN: usize = 4096;

/// Seals the tokens of one process, or of one store. A cheap handle.
#[derive(Clone)]
pub struct Sealer {
    key: hmac::Key,
    key_id: [u8; KEY_ID],
}

impl Sealer {
    /// With a key that lives as long as this process: its tokens expire with it.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self::with_key(&secret))
    }

    /// With a key that outlives the process or is shared by instances, such as one kept in their
    /// store.
    pub fn with_key(secret: &[u8; 32]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let mut key_id = [0; KEY_ID];
        key_id.copy_from_slice(&hmac::sign(&key, b"page token key id").as_ref()[..KEY_ID]);
        Self { key, key_id }
    }

    /// What the tokens of one list call are bound to: its method, its caller, and all fields of
    /// `request` that are not about paging (see [`super::Asked::take`]). `request` must encode
    /// the same way each time, so its maps must be ordered ones.
    pub fn scope(&self, method: &str, principal: &str, request: &impl prost::Message) -> Scope<'_> {
        let mut bound =
            Vec::with_capacity(16 + method.len() + principal.len() + request.encoded_len());
        for part in [method, principal] {
            bound.extend_from_slice(&part.len().to_be_bytes());
            bound.extend_from_slice(part.as_bytes());
        }
        bound.extend_from_slice(&request.encode_to_vec());
        Scope {
            sealer: self,
            bound,
        }
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(..)")
    }
}

/// One list call, whose tokens open for no other.
#[derive(Debug)]
pub struct Scope<'a> {
    sealer: &'a Sealer,
    bound: Vec<u8>,
}

impl Scope<'_> {
    /// The token of the page that begins at `cursor`.
    pub fn seal(&self, cursor: &[u8]) -> String {
        let mut token = Vec::with_capacity(KEY_ID + cursor.len() + TAG + CHECK);
        token.extend_from_slice(&self.sealer.key_id);
        token.extend_from_slice(cursor);
        token.extend_from_slice(&self.tag(cursor).as_ref()[..TAG]);
        let check = checksum(&token);
        token.extend_from_slice(&check);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// The cursor inside `token`; `None` for the first page, whose token is empty.
    pub fn open(&self, token: &str) -> Result<Option<Bytes>, TokenError> {
        if token.is_empty() {
            return Ok(None);
        }
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Mismatch);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|_| TokenError::Mismatch)?;
        let (rest, check) = bytes
            .split_last_chunk::<CHECK>()
            .ok_or(TokenError::Mismatch)?;
        let (rest, tag) = rest.split_last_chunk::<TAG>().ok_or(TokenError::Mismatch)?;
        let (key_id, cursor) = rest
            .split_first_chunk::<KEY_ID>()
            .ok_or(TokenError::Mismatch)?;
        if *check != checksum(&bytes[..bytes.len() - CHECK]) {
            return Err(TokenError::Mismatch);
        }
        if *key_id != self.sealer.key_id {
            return Err(TokenError::Expired);
        }
        let expected = self.tag(cursor);
        if !bool::from(subtle::ConstantTimeEq::ct_eq(
            tag.as_slice(),
            &expected.as_ref()[..TAG],
        )) {
            return Err(TokenError::Mismatch);
        }
        Ok(Some(Bytes::copy_from_slice(cursor)))
    }

    fn tag(&self, cursor: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.sealer.key);
        context.update(&self.bound.len().to_be_bytes());
        context.update(&self.bound);
        context.update(cursor);
        context.sign()
    }
}
