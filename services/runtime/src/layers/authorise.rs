//! Finds out who calls and whether the table of methods lets them. What a method does with its
//! caller beyond that, such as whom an agent may speak for, is the method's affair.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, Ready};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Response};
use tokio::time::Instant;
use tonic::Status;
use tower::Service;

use super::{Inbound, Peer, trailers};
use crate::auth::{Access, Principal, Role, credential_missing, role_denied};

/// How long a token that a connection has shown is taken for good without looking again.
const TOKEN_KNOWN_FOR: Duration = Duration::from_secs(10);

/// Lets calls pass whose caller the method's roles have.
#[derive(Debug, Clone)]
pub(crate) struct Authorise<S> {
    inner: S,
    access: Arc<Access>,
}

impl<S> Authorise<S> {
    pub(crate) fn new(inner: S, access: Arc<Access>) -> Self {
        Self { inner, access }
    }

    fn admit(&self, inbound: &Inbound) -> Result<Principal, Box<Status>> {
        let principal = identify(&self.access, inbound)?;
        if inbound.entry.method.allow.has(principal.role()) {
            return Ok(principal);
        }
        Err(Box::new(if principal.role() == Role::Anonymous {
            credential_missing(&principal)
        } else {
            role_denied(&principal, inbound.request.uri().path())
        }))
    }
}

impl<S, B> Service<Inbound> for Authorise<S>
where
    S: Service<Inbound, Response = Response<B>, Error = Infallible>,
    B: Default,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<B>, Infallible>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut inbound: Inbound) -> Self::Future {
        match self.admit(&inbound) {
            Ok(principal) => {
                inbound.request.extensions_mut().insert(principal);
                Either::Right(self.inner.call(inbound))
            }
            Err(status) => {
                Either::Left(futures_util::future::ready(Ok(trailers::response(*status))))
            }
        }
    }
}

fn identify(access: &Access, inbound: &Inbound) -> Result<Principal, Box<Status>> {
    let peer = &inbound.peer;
    let Some(header) = inbound.request.headers().get(AUTHORIZATION) else {
        let found = || access.without_token(Some(peer.address.ip()), &peer.sans);
        return Ok(peer.without_token.get_or_init(found).clone());
    };
    if let Some(principal) = known(peer, header) {
        return Ok(principal);
    }
    let token =
        bearer(header).ok_or_else(|| Box::new(credential_missing(&Principal::anonymous())))?;
    let principal = access.with_token(token)?;
    let mut last = peer.known.lock().unwrap_or_else(PoisonError::into_inner);
    *last = Some((header.clone(), principal.clone(), Instant::now()));
    Ok(principal)
}

/// Whom `header` stood for, if the same connection has shown it a short time ago.
fn known(peer: &Peer, header: &HeaderValue) -> Option<Principal> {
    let last = peer.known.lock().unwrap_or_else(PoisonError::into_inner);
    let (shown, principal, since) = last.as_ref()?;
    (shown == header && since.elapsed() < TOKEN_KNOWN_FOR).then(|| principal.clone())
}

fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
