//! Who calls, and in which role: reads a call's certificate or token into a principal. It decides
//! who someone is; what they may do stands in the table of methods.

mod config;
mod roles;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use muster_proto::types::v1::ErrorReason;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::status;

pub use config::{Entry, Proof, Rejected, read_entries};
pub use roles::{Role, Roles};

/// Someone who calls. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    /// `role:name`; the whole is unique where a name alone need not be.
    id: Arc<str>,
    role: Role,
    /// The name in the certificate that proved it.
    san: Option<Arc<str>>,
}

impl Principal {
    /// `name` in `role`.
    pub fn new(role: Role, name: &str) -> Self {
        Self {
            id: format!("{}:{name}", role.name()).into(),
            role,
            san: None,
        }
    }

    /// Who has shown no credential where some are expected.
    pub fn anonymous() -> Self {
        Self::new(Role::Anonymous, "")
    }

    /// The principal with this id, as another instance of ours established it.
    pub fn parse(id: &str) -> Option<Self> {
        let (role, name) = id.split_once(':')?;
        let role = Role::ALL.into_iter().find(|one| one.name() == role)?;
        Some(Self::new(role, name))
    }

    /// The caller of `request`, as the layers found it; anonymous for a request that came through
    /// no layer.
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request
            .extensions()
            .get()
            .cloned()
            .unwrap_or_else(Self::anonymous)
    }

    /// Makes `request` one of this caller's, for tests of handlers.
    pub fn carry<T>(self, request: &mut tonic::Request<T>) {
        request.extensions_mut().insert(self);
    }

    /// The same, proved by a certificate for `san`.
    pub fn with_san(mut self, san: &str) -> Self {
        self.san = Some(san.into());
        self
    }

    /// Unique among all callers, such as `operator:alice`: what page tokens and request ids bind.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name within the role.
    pub fn name(&self) -> &str {
        self.id.split_once(':').map_or("", |(_, name)| name)
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The certificate's name, if a certificate proved who it is.
    pub fn san(&self) -> Option<&str> {
        self.san.as_deref()
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.id)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.id)
    }
}

/// Knows tokens that a component has issued itself.
pub trait Verify: Send + Sync {
    /// Whose token `token` is; `None` if it is not valid now.
    fn verify(&self, token: &str) -> Option<Principal>;
}

/// Who may come in, and as whom. A valid certificate whose name stands in no entry leaves its
/// bearer anonymous, with [`Principal::san`] set. Clones share the entries, and what replaces them.
#[derive(Clone, Default)]
pub struct Access {
    known: Arc<Known>,
    client_ca: bool,
    insecure: bool,
    verifier: Option<Arc<dyn Verify>>,
}

/// Those whom the configuration names.
#[derive(Default)]
struct Known {
    entries: ArcSwap<Vec<Entry>>,
    /// How often they were replaced.
    edition: AtomicU64,
    /// Tells of each time.
    changes: watch::Sender<()>,
}

impl Access {
    /// Callers prove who they are by `entries`, or by a certificate where there is a client CA.
    /// With neither, callers are admins: on loopback, or anywhere if `insecure`.
    pub fn new(entries: Vec<Entry>, client_ca: bool, insecure: bool) -> Self {
        let known = Known {
            entries: ArcSwap::from_pointee(entries),
            ..Known::default()
        };
        Self {
            known: Arc::new(known),
            client_ca,
            insecure,
            verifier: None,
        }
    }

    /// From now on callers prove who they are by `entries`, here and in every clone.
    pub fn replace(&self, entries: Vec<Entry>) {
        self.known.entries.store(Arc::new(entries));
        // After them, so that nobody takes what the last edition said for what this one does.
        self.known.edition.fetch_add(1, Ordering::SeqCst);
        self.known.changes.send_replace(());
    }

    /// Rises with each [`Access::replace`]: what was found out in one edition is not known in another.
    pub(crate) fn edition(&self) -> u64 {
        self.known.edition.load(Ordering::SeqCst)
    }

    /// Hears of each [`Access::replace`] from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.known.changes.subscribe()
    }

    /// Takes tokens that `verifier` knows as well.
    pub fn with_verifier(mut self, verifier: Arc<dyn Verify>) -> Self {
        self.verifier = Some(verifier);
        self
    }

    /// Whether callers need no credential at all.
    pub fn is_open(&self) -> bool {
        !self.client_ca && self.known.entries.load().is_empty()
    }

    /// Whose token `token` is: a token that is shown must be good. UNAUTHENTICATED if it is not.
    pub fn with_token(&self, token: &str) -> Result<Principal, Box<Status>> {
        self.by_token(token)
            .ok_or_else(|| Box::new(unknown_token()))
    }

    /// Who calls from `peer` (`None` if that is no network) with a verified certificate for `sans`
    /// (none without one) and no token: the same for all calls of one connection. Showing nothing
    /// is anonymous, unless no credentials are expected here.
    pub fn without_token(&self, peer: Option<IpAddr>, sans: &[String]) -> Principal {
        if let Some(principal) = sans.iter().find_map(|san| self.by_san(san)) {
            return principal;
        }
        let local = peer.is_none_or(|peer| peer.to_canonical().is_loopback());
        if self.is_open() && (local || self.insecure) {
            return Principal::new(Role::Admin, "local");
        }
        match sans.first() {
            Some(san) => Principal::anonymous().with_san(san),
            None => Principal::anonymous(),
        }
    }

    fn by_token(&self, token: &str) -> Option<Principal> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let entries = self.known.entries.load();
        let configured = entries.iter().find(|entry| match &entry.proof {
            Proof::Token(expected) => bool::from(expected.ct_eq(&hash)),
            Proof::San(_) => false,
        });
        if let Some(entry) = configured {
            return Some(Principal::new(entry.role, &entry.name));
        }
        self.verifier.as_ref()?.verify(token)
    }

    fn by_san(&self, san: &str) -> Option<Principal> {
        let entries = self.known.entries.load();
        let entry = entries.iter().find(|entry| entry.proof.covers(san))?;
        // A pattern covers many machines, each of which is someone of its own.
        let name = if entry.proof.is_pattern() {
            san
        } else {
            &entry.name
        };
        Some(Principal::new(entry.role, name).with_san(san))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.is_open();
        let entries = self.known.entries.load().len();
        write!(to, "Access({entries} entries, open: {open})")
    }
}

/// UNAUTHENTICATED for who has shown no credential that counts, and needs one.
pub(crate) fn credential_missing(anonymous: &Principal) -> Status {
    let message = match anonymous.san() {
        Some(san) => {
            format!("the certificate is valid, but nobody is known here by its name {san:?}")
        }
        None => "no credential: send a client certificate, or a token in \"authorization: Bearer\""
            .to_owned(),
    };
    status::error(
        Code::Unauthenticated,
        ErrorReason::CredentialInvalid,
        message,
    )
    .into_status()
}

/// PERMISSION_DENIED for a role that may not call a method.
pub(crate) fn role_denied(principal: &Principal, method: &str) -> Status {
    let message = format!("{principal} may not call {method}");
    let failure = status::error(Code::PermissionDenied, ErrorReason::RoleDenied, message);
    failure
        .metadata("role", principal.role().name())
        .into_status()
}

fn unknown_token() -> Status {
    const MESSAGE: &str = "the token is not known here, or not valid any more";
    status::error(
        Code::Unauthenticated,
        ErrorReason::CredentialInvalid,
        MESSAGE,
    )
    .into_status()
}
