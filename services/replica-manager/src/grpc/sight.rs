//! How much of a service a caller is shown: values of its environment, which may be secrets, are for those
//! who may change it.

use muster_proto::replicas::v1 as wire;
use muster_runtime::auth::{Principal, Role, Roles};
use tonic::Request;

use super::convert::spec::mask_values;

/// Who is shown everything.
const TRUSTED: Roles = Roles::OPERATE.and(Role::Component);

/// What a caller is shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sight {
    /// Everything.
    Whole,
    /// No value of the environment.
    Masked,
}

impl Sight {
    /// What whoever makes this request is shown.
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        if TRUSTED.has(Principal::of(request).role()) {
            Self::Whole
        } else {
            Self::Masked
        }
    }

    /// A service as the caller is shown it.
    pub(super) fn service(self, mut service: wire::Service) -> wire::Service {
        self.mask(&mut service.spec);
        service
    }

    /// A version as the caller is shown it.
    pub(super) fn version(self, mut version: wire::ServiceVersion) -> wire::ServiceVersion {
        self.mask(&mut version.spec);
        version
    }

    fn mask(self, spec: &mut Option<wire::ServiceSpec>) {
        match self {
            Self::Whole => {}
            Self::Masked => spec.iter_mut().for_each(mask_values),
        }
    }
}
