//! Reflection, in both versions that clients speak, of the services that a server has. The contract is read
//! when someone first asks: it takes more memory than all else of an idle process, and most are never asked.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tonic_reflection::server::{Builder, Error};
use tower::Service;

use super::routes::GrpcService;
use crate::status;

/// The longest request: the name of a symbol or a file, which the library repeats when it knows none of it.
const LARGEST_REQUEST: usize = 1024;

/// A service that is made by its first call.
pub(super) struct Lazily<S> {
    names: Arc<[&'static str]>,
    make: fn(&[&'static str]) -> Result<S, Error>,
    made: Arc<OnceLock<Option<S>>>,
}

/// Version 1, of the services `names`.
pub(super) fn v1(names: &[&'static str]) -> Lazily<impl GrpcService> {
    Lazily::new(names, |names| {
        Ok(builder(names)
            .build_v1()?
            .max_decoding_message_size(LARGEST_REQUEST))
    })
}

/// What clients spoke before version 1, of the services `names`.
pub(super) fn v1alpha(names: &[&'static str]) -> Lazily<impl GrpcService> {
    Lazily::new(names, |names| {
        Ok(builder(names)
            .build_v1alpha()?
            .max_decoding_message_size(LARGEST_REQUEST))
    })
}

fn builder<'a>(names: &[&'static str]) -> Builder<'a> {
    let builder =
        Builder::configure().register_encoded_file_descriptor_set(muster_proto::DESCRIPTORS);
    names
        .iter()
        .fold(builder, |builder, name| builder.with_service_name(*name))
}

impl<S: GrpcService> Lazily<S> {
    fn new(names: &[&'static str], make: fn(&[&'static str]) -> Result<S, Error>) -> Self {
        Self {
            names: names.into(),
            make,
            made: Arc::default(),
        }
    }

    fn made(&self) -> Option<S> {
        let make = || {
            (self.make)(&self.names)
                .inspect_err(|error| tracing::error!(%error, "no reflection"))
                .ok()
        };
        self.made.get_or_init(make).clone()
    }
}

impl<S> Clone for Lazily<S> {
    fn clone(&self) -> Self {
        Self {
            names: Arc::clone(&self.names),
            make: self.make,
            made: Arc::clone(&self.made),
        }
    }
}

impl<S: NamedService> NamedService for Lazily<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: GrpcService> Service<Request<Body>> for Lazily<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.made() {
            Some(mut service) => service.call(request),
            None => Box::pin(std::future::ready(Ok(status::internal().into_http()))),
        }
    }
}
