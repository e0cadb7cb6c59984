//! Where a server is, in the words that gRPC has for it: `host:port`, `:port`,
//! `dns:///host:port`, `unix:path`. Decides what an address means; resolves
//! nothing.

use std::path::PathBuf;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Target {
    /// Reads an address; the error says what is wrong with it.
    pub(super) fn parse(addr: &str) -> Result<Self, String> {
        if let Some(path) = addr.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok(Self::Unix(path.into()));
        }
        let schemes = ["dns:///", "passthrough:///", "dns:"];
        let bare = schemes.iter().find_map(|scheme| addr.strip_prefix(scheme));
        let bare = bare.unwrap_or(addr);
        let (host, port) = bare
            .rsplit_once(':')
            .ok_or_else(|| format!("address {addr}: missing port in address"))?;
        let open = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        if open.is_none() && host.contains(':') {
            return Err(format!("address {addr}: too many colons in address"));
        }
        let port = port
            .parse()
            .map_err(|_| format!("address {addr}: {port:?} is no port"))?;
        let host = match open.unwrap_or(host) {
            "" => "localhost",
            host => host,
        };
        Ok(Self::Tcp(host.to_owned(), port))
    }

    /// The name that a server there has to prove.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Tcp(host, _) => host,
            Self::Unix(_) => "localhost",
        }
    }

    /// What a call there is addressed to.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp(host, port) => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_is_read() {
        for (addr, host, authority) in [
            ("a.example:7401", "a.example", "a.example:7401"),
            (":7401", "localhost", "localhost:7401"),
            ("127.0.0.1:7401", "127.0.0.1", "127.0.0.1:7401"),
            ("[::1]:7401", "::1", "[::1]:7401"),
            ("dns:///a:1", "a", "a:1"),
            ("dns:a:1", "a", "a:1"),
            ("passthrough:///a:1", "a", "a:1"),
            ("unix:///run/x.sock", "localhost", "localhost"),
        ] {
            let target = Target::parse(addr).expect(addr);
            assert_eq!(target.host(), host, "{addr}");
            assert_eq!(target.authority(), authority, "{addr}");
        }
        for (addr, path) in [("unix:///run/x", "/run/x"), ("unix:x", "x")] {
            assert_eq!(Target::parse(addr), Ok(Target::Unix(path.into())));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for addr in ["a", "a:", "a:x", "a:70000", "::1", "a:1:2", "http://a:1"] {
            assert!(Target::parse(addr).is_err(), "{addr}");
        }
    }
}
