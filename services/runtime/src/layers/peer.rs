//! The other end of a connection, and who it has shown itself to be: found out once, and again when
//! those who are known have changed. It does not decide what anyone may do.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::auth::{Access, Principal, credential_missing};

/// How long a token that a connection has shown is taken for good without looking again.
const TOKEN_KNOWN_FOR: Duration = Duration::from_secs(10);

/// Whose streams on one connection are told apart. Of a connection that more callers share, all
/// streams end when those who are known change.
const MOST_STREAMERS: usize = 16;

/// The other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The names in its verified certificate.
    sans: Vec<String>,
    /// Ends the streams on it that have no bound of their own.
    pub(crate) last_call: CancellationToken,
    shown: Mutex<Shown>,
}

/// What has been found out about who calls.
#[derive(Debug, Default)]
struct Shown {
    /// Who it is where a call shows no token, and in which edition of those who are known.
    without_token: Option<(u64, Principal)>,
    /// Whom its last `authorization` stood for.
    token: Option<Token>,
    /// Who has opened streams that have no bound, each with what it showed.
    streamers: Vec<(Option<HeaderValue>, Principal)>,
}

#[derive(Debug)]
struct Token {
    header: HeaderValue,
    principal: Principal,
    edition: u64,
    since: Instant,
}

impl Peer {
    /// At `address` with a certificate for `sans`; its open streams end with `last_call`.
    pub(crate) fn new(
        address: SocketAddr,
        sans: Vec<String>,
        last_call: CancellationToken,
    ) -> Self {
        Self {
            address,
            sans,
            last_call,
            shown: Mutex::default(),
        }
    }

    /// Who calls with this `authorization`. UNAUTHENTICATED if it is not good.
    pub(crate) fn identify(
        &self,
        access: &Access,
        header: Option<&HeaderValue>,
    ) -> Result<Principal, Box<Status>> {
        // Read first: whoever is found by later entries is only found out once more.
        let edition = access.edition();
        if let Some(principal) = self.known(edition, header) {
            return Ok(principal);
        }
        let principal = self.find(access, header)?;
        let mut shown = self.shown();
        match header {
            None => shown.without_token = Some((edition, principal.clone())),
            Some(header) => {
                shown.token = Some(Token {
                    header: header.clone(),
                    principal: principal.clone(),
                    edition,
                    since: Instant::now(),
                });
            }
        }
        Ok(principal)
    }

    /// `principal`, who was identified by this `authorization`, opens a stream that has no bound.
    pub(crate) fn holds_stream(&self, header: Option<&HeaderValue>, principal: &Principal) {
        let mut shown = self.shown();
        let streamers = &mut shown.streamers;
        let is_new = !streamers
            .iter()
            .any(|(before, who)| before.as_ref() == header && who == principal);
        if is_new && streamers.len() <= MOST_STREAMERS {
            streamers.push((header.cloned(), principal.clone()));
        }
    }

    /// Whether all who have opened streams are still who they were.
    pub(crate) fn still_holds(&self, access: &Access) -> bool {
        // Looked at without the lock: who issues tokens may take its own.
        let streamers = self.shown().streamers.clone();
        let is_same = |(header, before): &(Option<HeaderValue>, Principal)| {
            self.find(access, header.as_ref())
                .is_ok_and(|now| now == *before)
        };
        streamers.len() <= MOST_STREAMERS && streamers.iter().all(is_same)
    }

    fn find(
        &self,
        access: &Access,
        header: Option<&HeaderValue>,
    ) -> Result<Principal, Box<Status>> {
        let Some(header) = header else {
            return Ok(access.without_token(Some(self.address.ip()), &self.sans));
        };
        let token =
            bearer(header).ok_or_else(|| Box::new(credential_missing(&Principal::anonymous())))?;
        access.with_token(token)
    }

    /// Who that is, if the same was shown before: a token, a short time ago.
    fn known(&self, edition: u64, header: Option<&HeaderValue>) -> Option<Principal> {
        let shown = self.shown();
        let Some(header) = header else {
            let (of, principal) = shown.without_token.as_ref()?;
            return (*of == edition).then(|| principal.clone());
        };
        let token = shown.token.as_ref()?;
        let is_same = token.header == header && token.edition == edition;
        (is_same && token.since.elapsed() < TOKEN_KNOWN_FOR).then(|| token.principal.clone())
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_whose_streams_are_told_apart_are_bounded() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let peer = Peer::new(address, Vec::new(), CancellationToken::new());
        let access = Access::default();
        let me = peer.identify(&access, None).unwrap();
        for _ in 0..100 {
            peer.holds_stream(None, &me);
        }
        assert_eq!(peer.shown().streamers.len(), 1);
        assert!(peer.still_holds(&access));
        for number in 0..1000 {
            let name = Principal::new(crate::auth::Role::Admin, &number.to_string());
            peer.holds_stream(None, &name);
        }
        assert_eq!(peer.shown().streamers.len(), MOST_STREAMERS + 1);
        assert!(!peer.still_holds(&access), "nobody knows of the others");
    }
}
