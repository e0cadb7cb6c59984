//! What it means when a server answers, and not with what was asked for: in words that say what to
//! do about it.

use http::header::{CONTENT_TYPE, DATE, HeaderName, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::super::Failure;
use super::{Ask, Expected};
use crate::domain::excerpt::excerpt;
use crate::domain::{json, retry_after};
use crate::spec::Url;

/// Bytes of an error's body that are looked at.
const LOOKED_AT: usize = 4096;

/// Why `response`, which is no success, came.
pub(super) async fn read(ask: &Ask<'_>, url: &Url, response: Response<Incoming>) -> Failure {
    let status = response.status();
    let wait = {
        let date = header(&response, DATE);
        header(&response, RETRY_AFTER).and_then(|after| retry_after::wait(after, date))
    };
    let said = said(response).await;
    let failure = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Failure::lasting(denied(ask, url, status))
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => Failure::lasting(format!(
            "there is nothing at {url} ({}): check the address",
            status.as_u16()
        )),
        StatusCode::TOO_MANY_REQUESTS => Failure::passing(asks_for_quiet(url, wait)),
        StatusCode::REQUEST_TIMEOUT => Failure::passing(format!("{url} answers {status}")),
        _ if status.is_server_error() => Failure::passing(format!("{url} answers {status}")),
        _ => Failure::lasting(format!("{url} answers {status}")),
    };
    Failure {
        retry_after: wait,
        ..failure.and(&said)
    }
}

/// The content type, if it is not one of what was expected.
pub(super) fn odd_type(expected: Expected, response: &Response<Incoming>) -> Option<String> {
    // Many servers give files no type, or that of unknown bytes; JSON they all name.
    let kind = header(response, CONTENT_TYPE)?.to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let fits = match expected {
        Expected::Json => kind.ends_with("/json") || kind.ends_with("+json"),
        Expected::File => kind != "text/html",
    };
    (!fits).then(|| kind.to_owned())
}

/// What it means that `response` is of another type than was expected.
pub(super) async fn of_odd_type(url: &Url, kind: &str, response: Response<Incoming>) -> Failure {
    let begins = excerpt(&beginning(response).await);
    let begins = if begins.is_empty() {
        String::new()
    } else {
        format!(", which begins with: {begins}")
    };
    Failure::passing(format!(
        "{url} answers with {kind} instead of what was asked for{begins}"
    ))
}

fn denied(ask: &Ask<'_>, url: &Url, status: StatusCode) -> String {
    let number = status.as_u16();
    match (ask.provider, ask.key) {
        (Some(provider), Some(_)) => format!(
            "{url} refuses the key ({number}): put a valid one where it is configured ({} by \
             default) and restart or reload the gateway",
            provider.key_variable()
        ),
        (Some(provider), None) => format!(
            "{url} wants a key ({number}): put one into the environment variable {} and restart \
             or reload the gateway",
            provider.key_variable()
        ),
        (None, _) => format!(
            "{url} may not be read without a key ({number}): give an address that anyone may read"
        ),
    }
}

fn asks_for_quiet(url: &Url, wait: Option<std::time::Duration>) -> String {
    match wait {
        Some(wait) => format!(
            "{url} was asked too often (429) and asks to be left alone for {}",
            crate::domain::report::seconds(wait)
        ),
        None => format!("{url} was asked too often (429)"),
    }
}

/// What the server itself says of its refusal.
async fn said(response: Response<Incoming>) -> String {
    let bytes = beginning(response).await;
    json::complaint(&bytes).unwrap_or_else(|| excerpt(&bytes))
}

/// The first bytes of a body, as far as they come.
async fn beginning(response: Response<Incoming>) -> Vec<u8> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            let room = LOOKED_AT - bytes.len();
            bytes.extend_from_slice(&data[..data.len().min(room)]);
        }
        if bytes.len() >= LOOKED_AT {
            break;
        }
    }
    bytes
}

fn header(response: &Response<Incoming>, name: HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}
