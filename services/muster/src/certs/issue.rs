//! Keys, and certificates signed with them. It opens no file.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, Error, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

use super::Leaf;

/// The authority's name. Always the same: what a later run signs with the same key must name the
/// same issuer.
const AUTHORITY: &str = "Muster development authority";

/// How much longer the authority lasts than what it signs.
const AUTHORITY_LASTS: u32 = 10;

/// How far back certificates begin, so that a clock that is late believes them.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);

/// When certificates are made, and how long they last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validity {
    /// The time.
    pub(crate) now: SystemTime,
    /// How long the certificates last.
    pub(crate) lasts: Duration,
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Signs certificates.
pub(crate) struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// A new one.
    pub(crate) fn generate(validity: Validity) -> Result<(Self, Pair), Error> {
        let key = KeyPair::generate()?;
        let mut params = authority_params();
        let lasts = validity.lasts.saturating_mul(AUTHORITY_LASTS);
        limit(&mut params, Validity { lasts, ..validity });
        let pair = Pair {
            certificate: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        };
        Ok((Self(Issuer::new(params, key)), pair))
    }

    /// The one whose key this is.
    pub(crate) fn from_key(pem: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pem(pem)?;
        Ok(Self(Issuer::new(authority_params(), key)))
    }

    /// A certificate of the leaf's names, for both sides of a connection.
    pub(crate) fn sign(&self, leaf: &Leaf, validity: Validity) -> Result<Pair, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(leaf.names())?;
        params
            .distinguished_name
            .push(DnType::CommonName, leaf.identity.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        limit(&mut params, validity);
        Ok(Pair {
            certificate: params.signed_by(&key, &self.0)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn limit(params: &mut CertificateParams, validity: Validity) {
    let begin = validity.now.checked_sub(CLOCK_SKEW).unwrap_or(validity.now);
    let end = validity.now.checked_add(validity.lasts);
    params.not_before = begin.into();
    // Beyond what can be counted, the library's own far end stays.
    if let Some(end) = end.filter(|end| *end < far_end()) {
        params.not_after = end.into();
    }
}

/// The last time that a certificate's own format writes without trouble: the year 4000.
fn far_end() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(2030 * 365 * 24 * 3600)
}
