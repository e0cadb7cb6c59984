//! The providers whose live APIs can be asked, and what has to be known to ask one.

use std::time::Duration;

use super::{Secret, Times, Url};
use crate::domain::runpod::Cloud;

/// A provider with a live API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Vast.ai, a market of other people's machines.
    Vastai,
    /// One of Runpod's clouds.
    Runpod(Cloud),
    /// Lambda.
    Lambda,
    /// DigitalOcean.
    Digitalocean,
    /// Vultr.
    Vultr,
}

/// A live API that is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Whose.
    pub provider: Provider,
    /// What its calls are below.
    pub base: Url,
    /// The key to show, if there is one.
    pub key: Key,
}

/// The key of a live API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// There is one.
    Known(Secret),
    /// There is none. Says in words where it was looked for, such as "the environment variable
    /// LAMBDA_API_KEY"; empty stands for the provider's own variable.
    Missing(String),
}

impl Provider {
    /// All of them, as they are unless their configuration says more.
    pub const ALL: [Self; 5] = [
        Self::Vastai,
        Self::Runpod(Cloud::Secure),
        Self::Lambda,
        Self::Digitalocean,
        Self::Vultr,
    ];

    /// The kind of its backends, as it is configured and shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vastai => "vastai",
            Self::Runpod(_) => "runpod",
            Self::Lambda => "lambda",
            Self::Digitalocean => "digitalocean",
            Self::Vultr => "vultr",
        }
    }

    /// Where its API is.
    pub const fn default_base(self) -> &'static str {
        match self {
            Self::Vastai => "https://console.vast.ai/api/v0",
            Self::Runpod(_) => "https://api.runpod.io",
            Self::Lambda => "https://cloud.lambdalabs.com/api/v1",
            Self::Digitalocean => "https://api.digitalocean.com/v2",
            Self::Vultr => "https://api.vultr.com/v2",
        }
    }

    /// The environment variable that its key is looked for in.
    pub const fn key_variable(self) -> &'static str {
        match self {
            Self::Vastai => "VAST_API_KEY",
            Self::Runpod(_) => "RUNPOD_API_KEY",
            Self::Lambda => "LAMBDA_API_KEY",
            Self::Digitalocean => "DIGITALOCEAN_ACCESS_TOKEN",
            Self::Vultr => "VULTR_API_KEY",
        }
    }

    /// Whether it tells nothing without a key.
    pub const fn needs_key(self) -> bool {
        match self {
            Self::Lambda | Self::Digitalocean => true,
            Self::Vastai | Self::Runpod(_) | Self::Vultr => false,
        }
    }

    /// How it is asked unless its configuration says otherwise: a market of single machines often,
    /// a list of sizes less so, and Runpod, which has to be asked many things, with more patience.
    pub(super) fn times(self) -> Times {
        let seconds = Duration::from_secs;
        let (refresh_interval, attempt_timeout) = match self {
            Self::Vastai => (seconds(120), seconds(30)),
            Self::Runpod(_) => (seconds(300), seconds(90)),
            Self::Lambda => (seconds(120), seconds(20)),
            Self::Digitalocean | Self::Vultr => (seconds(300), seconds(30)),
        };
        Times {
            refresh_interval,
            attempt_timeout,
            refresh_timeout: seconds(180),
            ..Times::default()
        }
    }
}

impl Api {
    /// A provider's API at `base`.
    pub fn new(provider: Provider, base: Url, key: Key) -> Self {
        Self {
            provider,
            base,
            key,
        }
    }

    /// What is asked, and where, without secrets.
    pub fn source(&self) -> String {
        match self.provider {
            Provider::Runpod(Cloud::Community) => format!("{} (community cloud)", self.base),
            Provider::Vastai
            | Provider::Runpod(Cloud::Secure)
            | Provider::Lambda
            | Provider::Digitalocean
            | Provider::Vultr => self.base.to_string(),
        }
    }

    /// The key, if there is one.
    pub fn secret(&self) -> Option<&Secret> {
        match &self.key {
            Key::Known(secret) => Some(secret),
            Key::Missing(_) => None,
        }
    }

    /// Why it cannot be asked; none if it can.
    pub fn disabled(&self) -> Option<String> {
        match &self.key {
            Key::Missing(place) if self.provider.needs_key() => {
                let variable = format!("the environment variable {}", self.provider.key_variable());
                let place = if place.is_empty() { &variable } else { place };
                Some(format!(
                    "it needs a key: put one into {place} and restart or reload the gateway"
                ))
            }
            Key::Known(_) if !self.base.is_tls() && !self.base.is_loopback() => Some(format!(
                "its key would be sent in the clear to {}: write the address with https://",
                self.base
            )),
            Key::Known(_) | Key::Missing(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(provider: Provider, base: &str, key: Option<&str>) -> Api {
        let key = key.map_or(Key::Missing(String::new()), |key| {
            Key::Known(Secret::new(key).unwrap())
        });
        Api::new(provider, base.parse().unwrap(), key)
    }

    #[test]
    fn without_a_key_that_it_needs_it_is_disabled_and_says_where_to_put_one() {
        for provider in Provider::ALL {
            let reason = api(provider, provider.default_base(), None).disabled();
            assert_eq!(reason.is_some(), provider.needs_key(), "{provider:?}");
            if let Some(reason) = reason {
                assert!(reason.contains(provider.key_variable()), "{reason}");
            }
            assert_eq!(
                api(provider, provider.default_base(), Some("k")).disabled(),
                None
            );
        }
    }

    #[test]
    fn a_key_is_not_sent_in_the_clear() {
        let reason = api(
            Provider::Vultr,
            "http://mirror.example.org/v2",
            Some("hush"),
        )
        .disabled();
        let reason = reason.unwrap();
        assert!(
            reason.contains("in the clear") && !reason.contains("hush"),
            "{reason}"
        );
        assert_eq!(
            api(Provider::Vultr, "http://127.0.0.1:1/", Some("k")).disabled(),
            None
        );
        assert_eq!(
            api(Provider::Vultr, "http://mirror.example.org/", None).disabled(),
            None
        );
    }
}
