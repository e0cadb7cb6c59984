//! Addresses that are asked over HTTP, checked before anything is opened. It resolves no name.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use muster_runtime::connect::is_this_machine;

/// An `http` or `https` URL without a user name or fragment. What stands after a `?` may be a
/// secret (a signed address) and is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    scheme: Scheme,
    authority: Authority,
    path: PathAndQuery,
}

/// Why a text is no URL that could be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a URL that can be asked: {0}")]
pub struct UrlError(&'static str);

impl Url {
    /// Whether it is reached by TLS.
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Whether it is on this machine, so that nothing sent to it can be overheard.
    pub fn is_loopback(&self) -> bool {
        is_this_machine(self.authority.host())
    }

    /// Whether both have the same scheme, host and port, so that a key for one is for the other.
    pub fn is_same_origin(&self, other: &Self) -> bool {
        self.scheme == other.scheme
            && self
                .authority
                .host()
                .eq_ignore_ascii_case(other.authority.host())
            && self.port() == other.port()
    }

    /// The URL below this one, as of an API below its base: `below` begins with a slash.
    pub fn below(&self, below: &str) -> Result<Self, UrlError> {
        let path = format!("{}{below}", self.path.path().trim_end_matches('/'));
        Ok(Self {
            path: path
                .parse()
                .map_err(|_| UrlError("its path is not one of a URL"))?,
            ..self.clone()
        })
    }

    /// Where a link that was found at this URL leads: another URL whole, or a path on this host.
    pub fn follow(&self, link: &str) -> Result<Self, UrlError> {
        let link = link.split_once('#').map_or(link, |(link, _)| link);
        if let Some(rest) = link.strip_prefix("//") {
            return format!("{}://{rest}", self.scheme).parse();
        }
        let path = match link.as_bytes().first() {
            Some(b'/') => link.to_owned(),
            Some(b'?') => format!("{}{link}", self.path.path()),
            _ if link.contains("://") => return link.parse(),
            Some(_) => {
                let folder = self
                    .path
                    .path()
                    .rsplit_once('/')
                    .map_or("", |(folder, _)| folder);
                format!("{folder}/{link}")
            }
            None => return Err(UrlError("it is empty")),
        };
        Ok(Self {
            path: path
                .parse()
                .map_err(|_| UrlError("its path is not one of a URL"))?,
            ..self.clone()
        })
    }

    /// Host and port.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The last part of its path, as the name of the file there; empty if there is none.
    pub fn file_name(&self) -> &str {
        let path = self.path.path();
        path.rsplit_once('/').map_or(path, |(_, name)| name)
    }

    /// The whole of it, to be asked: with its query.
    pub fn to_uri(&self) -> Uri {
        // Its parts were taken from a URI: together they are one.
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(self.path.clone())
            .build()
            .unwrap_or_default()
    }

    fn port(&self) -> u16 {
        let default = if self.is_tls() { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(default)
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let uri: Uri = text
            .parse()
            .map_err(|_| UrlError("write it as https://host/path"))?;
        let parts = uri.into_parts();
        let scheme = parts
            .scheme
            .filter(|scheme| *scheme == Scheme::HTTPS || *scheme == Scheme::HTTP)
            .ok_or(UrlError("it must begin with https:// or http://"))?;
        let authority = parts.authority.ok_or(UrlError("it names no host"))?;
        if authority.host().is_empty() {
            return Err(UrlError("it names no host"));
        }
        if authority.as_str().contains('@') {
            return Err(UrlError("it must not carry a user name or password"));
        }
        let has_port = authority.as_str().len() > authority.host().len();
        if has_port && authority.port_u16().is_none() {
            return Err(UrlError("its port is no number up to 65535"));
        }
        let path = parts
            .path_and_query
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self {
            scheme,
            authority,
            path,
        })
    }
}

/// Without its query.
impl fmt::Display for Url {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}://{}", self.scheme, self.authority)?;
        to.write_str(self.path.path().trim_end_matches('/'))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Url({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn only_what_can_be_asked_is_a_url() {
        for bad in [
            "",
            "host/path",
            "/path",
            "ftp://host/",
            "https://",
            "https://me:secret@host/",
            "http://ho st/",
            "https://host:port/",
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad:?}");
        }
        assert_eq!(
            url("https://host:8443/v2/").to_string(),
            "https://host:8443/v2"
        );
        assert_eq!(
            url(" http://[::1]:80 ").to_uri().to_string(),
            "http://[::1]:80/"
        );
    }

    #[test]
    fn a_query_is_sent_and_not_shown() {
        let signed = url("https://host/vms.csv?signature=abc");
        assert_eq!(
            format!("{signed} {signed:?}"),
            "https://host/vms.csv Url(https://host/vms.csv)"
        );
        assert_eq!(
            signed.to_uri().to_string(),
            "https://host/vms.csv?signature=abc"
        );
        assert_eq!(signed.file_name(), "vms.csv");
    }

    #[test]
    fn links_lead_below_beside_and_elsewhere() {
        let base = url("https://host/api/v1/");
        let below = base.below("/plans?page=1").unwrap();
        assert_eq!(
            below.to_uri().to_string(),
            "https://host/api/v1/plans?page=1"
        );
        let follow = |link: &str| below.follow(link).unwrap().to_uri().to_string();
        assert_eq!(follow("/x?y=z"), "https://host/x?y=z");
        assert_eq!(follow("?page=2"), "https://host/api/v1/plans?page=2");
        assert_eq!(follow("other#part"), "https://host/api/v1/other");
        assert_eq!(follow("//elsewhere/x"), "https://elsewhere/x");
        assert_eq!(follow("http://elsewhere"), "http://elsewhere/");
        assert!(below.follow("").is_err());
        assert!(below.follow("ftp://x/").is_err());
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let one = url("https://Host/a");
        assert!(one.is_same_origin(&url("https://host:443/b?c")));
        for other in ["http://host/a", "https://host:444/a", "https://host2/a"] {
            assert!(!one.is_same_origin(&url(other)), "{other}");
        }
        assert!(url("http://127.0.0.1:1/").is_loopback());
        assert!(url("http://[::1]:1/").is_loopback());
        assert!(url("http://LocalHost:1/").is_loopback());
        assert!(url("http://[::ffff:127.0.0.1]:1/").is_loopback());
        assert!(!url("http://127.0.0.1.example.org/").is_loopback());
    }
}
