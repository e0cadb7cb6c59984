//! A backend in any language, behind `muster.backend.v1.BackendService`.

use std::time::Duration;

use muster_runtime::connect::Endpoints;

use super::{Key, Secret, Times};

/// A server of offers that is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where it listens.
    pub endpoints: Endpoints,
    /// The token to show, if it is configured to want one.
    pub key: Option<Key>,
}

impl Service {
    /// The token, if there is one.
    pub fn secret(&self) -> Option<&Secret> {
        match &self.key {
            Some(Key::Known(secret)) => Some(secret),
            Some(Key::Missing(_)) | None => None,
        }
    }

    /// Why it cannot be asked; none if it can.
    pub fn disabled(&self) -> Option<String> {
        let mut endpoints = self.endpoints.iter();
        match &self.key {
            Some(Key::Missing(place)) => Some(format!(
                "its token is missing: put one into {place} and restart or reload the gateway"
            )),
            Some(Key::Known(_)) => endpoints
                .find(|endpoint| !endpoint.is_tls() && !endpoint.is_of_this_machine())
                .map(|endpoint| {
                    format!(
                        "its token would be sent in the clear to {endpoint}: write the address with https://"
                    )
                }),
            None => None,
        }
    }
}

/// How a server of offers is asked unless its configuration says otherwise.
pub(super) fn times() -> Times {
    Times {
        refresh_interval: Duration::from_secs(60),
        attempt_timeout: Duration::from_secs(30),
        ..Times::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_sent_in_the_clear_and_its_lack_is_told() {
        let disabled = |address: &str, key: Option<Key>| {
            let endpoints = address.parse().unwrap();
            Service { endpoints, key }.disabled()
        };
        let known = || Some(Key::Known(Secret::new("hush").unwrap()));
        assert_eq!(disabled("http://prices.example.org:1", None), None);
        assert_eq!(disabled("http://127.0.0.1:1", known()), None);
        assert_eq!(disabled("https://prices.example.org", known()), None);
        let why = disabled("http://127.0.0.1:1,http://prices.example.org:1", known()).unwrap();
        assert!(
            why.contains("http://prices.example.org:1") && !why.contains("hush"),
            "{why}"
        );
        let missing = Key::Missing("the environment variable PRICES_TOKEN".to_owned());
        let why = disabled("http://127.0.0.1:1", Some(missing)).unwrap();
        assert!(why.contains("PRICES_TOKEN"), "{why}");
    }
}
