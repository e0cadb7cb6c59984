//! Finds out who calls and whether the table of methods lets them. What a method does with its
//! caller beyond that, such as whom an agent may speak for, is the method's affair.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{Either, Ready};
use http::Response;
use http::header::AUTHORIZATION;
use tonic::Status;
use tower::Service;

use super::{Inbound, trailers};
use crate::auth::{Access, Principal, Role, credential_missing, role_denied};

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
        let header = inbound.request.headers().get(AUTHORIZATION);
        loop {
            let edition = self.access.edition();
            let principal = inbound.peer.identify(&self.access, header)?;
            if !inbound.entry.method.allow.has(principal.role()) {
                return Err(Box::new(if principal.role() == Role::Anonymous {
                    credential_missing(&principal)
                } else {
                    role_denied(&principal, inbound.request.uri().path())
                }));
            }
            if !inbound.entry.is_open_ended() {
                return Ok(principal);
            }
            inbound.peer.holds_stream(header, &principal);
            // Whoever ends the streams of those who are gone may have looked before that.
            if self.access.edition() == edition {
                return Ok(principal);
            }
        }
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
