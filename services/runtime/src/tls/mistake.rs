//! What a failed handshake means to who configures TLS: the library's words, and what to do.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// The same error, with what to do about it where that is known.
pub(crate) fn explain(error: io::Error) -> io::Error {
    let advice = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(error) => advice(error),
        // A server without TLS reads nonsense and closes.
        None if closed(error.kind()) => {
            Some("it does not speak TLS: is it served in plaintext, at http://?")
        }
        None => None,
    };
    match advice {
        Some(advice) => io::Error::new(error.kind(), format!("{error}; {advice}")),
        None => error,
    }
}

/// What to do about an error of TLS, if that is known.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a list of another library's errors that grows: what is not known gets no advice"
)]
pub(crate) fn advice(error: &Error) -> Option<&'static str> {
    match error {
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Some("the authorities given by --ca did not sign it"),
        Error::InvalidMessage(_) => {
            Some("it does not speak TLS: is it served in plaintext, at http://?")
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            Some("the certificate given by --cert has expired")
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError,
        ) => Some("the peer does not believe the certificate given by --cert"),
        _ => None,
    }
}

fn closed(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}
