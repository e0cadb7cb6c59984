//! Whether a process may serve as it was told to: nothing beyond loopback in plaintext, and nobody
//! an admin there for want of credentials, unless that is spelled out. The ops port is exempt: it
//! is read only.

use std::net::IpAddr;

use crate::args::{CommonArgs, TlsMode};
use crate::auth::{Access, Entry};
use crate::tls;

/// The checked security of a server.
#[derive(Debug)]
pub(super) struct Security {
    pub(super) tls: Option<tls::Server>,
    pub(super) access: Access,
    pub(super) client: tls::Client,
}

impl Security {
    /// Checks what `common` says, with the callers known by `entries`. The error says what to do.
    pub(super) fn check(common: &CommonArgs, entries: Vec<Entry>) -> Result<Self, String> {
        let exposed = !is_loopback(common.listen.ip()) && !common.insecure;
        if exposed && common.tls == TlsMode::Off {
            return Err(format!(
                "--listen {} is reached from other machines: give --tls with a certificate, \
                 or --insecure to serve in plaintext",
                common.listen
            ));
        }
        let client_ca = common.tls_client_ca.is_some();
        if exposed && !client_ca && entries.is_empty() {
            return Err(format!(
                "--listen {} is reached from other machines, and every caller would be an admin: \
                 give --tls-client-ca or [[auth]] entries, or --insecure",
                common.listen
            ));
        }
        Ok(Self {
            tls: server_tls(common)?,
            access: Access::new(entries, client_ca, common.insecure),
            client: client_tls(common)?,
        })
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn server_tls(common: &CommonArgs) -> Result<Option<tls::Server>, String> {
    let mode = match common.tls {
        TlsMode::Off => {
            return match common.tls_cert.is_some() || common.tls_client_ca.is_some() {
                true => Err("certificates are given but --tls is off".to_owned()),
                false => Ok(None),
            };
        }
        TlsMode::Optional => tls::Mode::Optional,
        TlsMode::Required => tls::Mode::Required,
    };
    let (Some(certificate), Some(key)) = (common.tls_cert.clone(), common.tls_key.clone()) else {
        return Err("--tls needs --tls-cert and --tls-key".to_owned());
    };
    tls::Server::load(mode, certificate, key, common.tls_client_ca.clone())
        .map(Some)
        .map_err(|error| error.to_string())
}

fn client_tls(common: &CommonArgs) -> Result<tls::Client, String> {
    let client = &common.client;
    let identity = match (client.cert.clone(), client.key.clone()) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err("--cert and --key go together".to_owned()),
    };
    if identity.is_some() && client.ca.is_none() {
        return Err("--cert needs --ca, to know whom to show it".to_owned());
    }
    tls::Client::load(client.ca.clone(), identity, client.token_file.clone())
        .map_err(|error| error.to_string())
}
