//! What is sent, and where to next: a key goes to its own host alone, a question is not lost on the
//! way, and nothing that was encrypted goes on in the clear.

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LOCATION, USER_AGENT,
};
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;

use super::super::Failure;
use super::{Ask, Expected};
use crate::spec::Url;

pub(super) fn request(ask: &Ask<'_>, url: &Url) -> Request<Full<Bytes>> {
    let accept = match ask.expected {
        Expected::Json => "application/json",
        Expected::File => "*/*",
    };
    let mut request = Request::new(Full::new(ask.post.clone().unwrap_or_default()));
    *request.uri_mut() = url.to_uri();
    let headers = request.headers_mut();
    let fixed = |text: &'static str| http::HeaderValue::from_static(text);
    headers.insert(
        USER_AGENT,
        fixed(concat!("muster/", env!("CARGO_PKG_VERSION"))),
    );
    headers.insert(ACCEPT, fixed(accept));
    headers.insert(ACCEPT_ENCODING, fixed("gzip"));
    if let Some(key) = ask.key.filter(|_| url.is_same_origin(ask.url)) {
        headers.insert(AUTHORIZATION, key.bearer());
    }
    let conditions = [
        (IF_NONE_MATCH, ask.known.etag),
        (IF_MODIFIED_SINCE, ask.known.modified),
    ];
    for (name, value) in conditions {
        if let Ok(value) = value.parse::<http::HeaderValue>()
            && !value.is_empty()
        {
            headers.insert(name, value);
        }
    }
    if ask.post.is_some() {
        headers.insert(CONTENT_TYPE, fixed("application/json"));
        *request.method_mut() = Method::POST;
    }
    request
}

/// Where a response sends us; none if it is the answer.
pub(super) fn redirect(
    ask: &Ask<'_>,
    url: &Url,
    response: &Response<Incoming>,
) -> Result<Option<Url>, Failure> {
    let status = response.status();
    let same_method = matches!(status.as_u16(), 307 | 308);
    if !same_method && !matches!(status.as_u16(), 301..=303) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION);
    let location = location.and_then(|location| location.to_str().ok());
    let Some(location) = location else {
        return Err(Failure::passing(format!(
            "{url} redirects ({status}) without saying where"
        )));
    };
    let next = url.follow(location);
    let next =
        next.map_err(|_| Failure::passing(format!("{url} redirects to what is no web address")))?;
    if ask.post.is_some() && !same_method {
        return Err(Failure::lasting(format!(
            "{url} redirects to {next} and would lose the question: configure the address that it \
             leads to"
        )));
    }
    if url.is_tls() && !next.is_tls() {
        return Err(Failure::lasting(format!(
            "{url} redirects to {next}, which is not encrypted and is not followed"
        )));
    }
    Ok(Some(next))
}
