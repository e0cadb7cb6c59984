//! Where a process is reached by others, as the command line says it: a host, and a port where it is not
//! the one listened on. It never resolves a name.

use std::net::SocketAddr;
use std::str::FromStr;

use crate::connect::is_this_machine;

/// Where a process is reached by others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise {
    /// A name or address, without brackets.
    pub host: String,
    /// The port; absent is the one that it listens on.
    pub port: Option<u16>,
}

/// Where a process that is bound somewhere is reached by others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The host, without brackets.
    pub host: String,
    /// HOST:PORT.
    pub address: String,
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is neither HOST nor HOST:PORT");
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| wrong())?))
            }
            Some(_) | None => (text, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains(['/', ' ']) || port == Some(0) {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl Reached {
    /// By what is advertised; without it by the address bound, or by the machine's name where that is
    /// every address.
    pub fn of(advertise: Option<&Advertise>, bound: SocketAddr) -> Self {
        let (host, port) = match advertise {
            Some(advertise) => (
                advertise.host.clone(),
                advertise.port.unwrap_or(bound.port()),
            ),
            None if bound.ip().is_unspecified() => {
                let system = rustix::system::uname();
                let name = system.nodename().to_string_lossy().into_owned();
                (name, bound.port())
            }
            None => (bound.ip().to_string(), bound.port()),
        };
        let address = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        Self { host, address }
    }

    /// Whether others are told of an address at which nothing listens for them: what is bound is of this machine
    /// alone. Something may still pass on what comes there.
    pub fn is_out_of_reach(&self, bound: SocketAddr) -> bool {
        bound.ip().is_loopback() && !is_this_machine(&self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advertise(host: &str, port: Option<u16>) -> Advertise {
        Advertise {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn what_is_bound_to_loopback_is_out_of_others_reach() {
        let loopback: SocketAddr = "127.0.0.1:7403".parse().unwrap();
        let every: SocketAddr = "0.0.0.0:7403".parse().unwrap();
        let is_out = |host: &str, bound| {
            let advertised = advertise(host, None);
            Reached::of(Some(&advertised), bound).is_out_of_reach(bound)
        };
        assert!(is_out("gpu-7.example", loopback) && is_out("10.0.0.1", loopback));
        assert!(!is_out("localhost", loopback) && !is_out("::1", loopback));
        assert!(!is_out("gpu-7.example", every));
        assert!(!Reached::of(None, loopback).is_out_of_reach(loopback));
    }

    #[test]
    fn a_host_with_or_without_a_port() {
        for (text, expected) in [
            ("10.0.0.1:7403", advertise("10.0.0.1", Some(7403))),
            ("gpu-1.example", advertise("gpu-1.example", None)),
            ("[::1]:7403", advertise("::1", Some(7403))),
            ("::1", advertise("::1", None)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "",
            ":7403",
            "host:",
            "host:x",
            "host:0",
            "http://host",
            "a b",
        ] {
            assert!(text.parse::<Advertise>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_advertised_wins_and_an_address_is_written_for_a_url() {
        let bound: SocketAddr = "127.0.0.1:7401".parse().unwrap();
        for (advertised, address) in [
            (Some(advertise("registry-1", None)), "registry-1:7401"),
            (Some(advertise("::1", Some(9))), "[::1]:9"),
            (None, "127.0.0.1:7401"),
        ] {
            assert_eq!(Reached::of(advertised.as_ref(), bound).address, address);
        }
        let any = Reached::of(None, "0.0.0.0:7401".parse().unwrap());
        assert!(!any.host.is_empty() && any.host != "0.0.0.0");
    }
}
