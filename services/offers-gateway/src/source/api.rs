//! What asking any provider's live API has in common: the addresses, the key, and what it means
//! that an answer is not what was asked for.

mod digitalocean;
mod lambda;
mod runpod;
mod vastai;
mod vultr;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::http::{Ask, Client, Expected, Known, Session};
use super::{Failure, Fetched, Offers, blocking};
use crate::domain::builder::Builder;
use crate::domain::id;
use crate::domain::json::Unexpected;
use crate::domain::offer::Source;
use crate::spec::{Api, Provider, Url};

/// The largest answer read, in bytes. A page of Vast.ai's 3,000 offers has a third of it; of the
/// others, whose answers are a tenth of it, several are read at the same time.
const fn limit(provider: Provider) -> usize {
    match provider {
        Provider::Vastai => 32 << 20,
        Provider::Runpod(_) | Provider::Lambda | Provider::Digitalocean | Provider::Vultr => {
            8 << 20
        }
    }
}

/// Pages of one list at most.
const MAX_PAGES: usize = 100;

/// Asks a provider once for all that it offers.
pub(super) async fn fetch(
    api: &Api,
    backend: &str,
    client: &Client,
    patience: Duration,
) -> Result<Fetched, Failure> {
    let asking = Asking {
        api,
        session: client.session(patience)?,
    };
    let builder = Builder::new(backend, Source::Provider);
    let builder = match api.provider {
        Provider::Vastai => vastai::ask(&asking, builder).await,
        Provider::Runpod(cloud) => runpod::ask(&asking, cloud, builder).await,
        Provider::Lambda => lambda::ask(&asking, builder).await,
        Provider::Digitalocean => digitalocean::ask(&asking, builder).await,
        Provider::Vultr => vultr::ask(&asking, builder).await,
    }?;
    // Rows of which none can be used are more likely another format than no offers.
    if let Some(worst) = builder.intake.worst().filter(|_| builder.is_empty()) {
        return Err(Failure::passing(format!(
            "nothing in the answer of {} can be used: {worst}",
            api.base
        )));
    }
    let snapshot = blocking(move || builder.finish()).await?;
    Ok(Fetched::of(Offers {
        snapshot,
        validator: String::new(),
        live_capacity: true,
    }))
}

/// The requests of one refresh.
struct Asking<'a> {
    api: &'a Api,
    session: Session<'a>,
}

impl Asking<'_> {
    /// Gets what is at `path` below the API's base.
    async fn get(&self, path: &str) -> Result<Vec<u8>, Failure> {
        self.ask(&self.url(path)?, None).await
    }

    /// Sends JSON to `path` below the API's base.
    async fn post(&self, path: &str, question: String) -> Result<Vec<u8>, Failure> {
        self.ask(&self.url(path)?, Some(question.into())).await
    }

    async fn ask(&self, url: &Url, post: Option<Bytes>) -> Result<Vec<u8>, Failure> {
        let ask = Ask {
            url,
            provider: Some(self.api.provider),
            key: self.api.secret(),
            post,
            expected: Expected::Json,
            known: Known::default(),
            limit: limit(self.api.provider),
        };
        self.session.body(&ask).await
    }

    fn url(&self, path: &str) -> Result<Url, Failure> {
        self.api
            .base
            .below(path)
            .map_err(|error| Failure::lasting(error.to_string()))
    }

    /// What it means that the answer at `path` was not what was asked for.
    fn unexpected(&self, path: &str, error: &Unexpected) -> Failure {
        let path = path.split('?').next().unwrap_or_default();
        let message = format!(
            "the answer of {}{path} is of no use: {error}",
            self.api.base
        );
        Failure::passing(match self.api.secret() {
            Some(key) => key.blot(&message),
            None => message,
        })
    }
}

/// The pages of one list: which is asked next, and that none is asked twice.
///
/// Of a link only what stands after the `?` is followed: everything else is as it is configured, so
/// that no answer can send the key, or us, anywhere else.
#[derive(Debug)]
struct Pages {
    path: &'static str,
    seen: BTreeSet<String>,
}

impl Pages {
    /// The pages of the list at `path`, and the first of them.
    fn of(path: &'static str, query: &str) -> (Self, String) {
        let seen = BTreeSet::from([query.to_owned()]);
        (Self { path, seen }, format!("{path}?{query}"))
    }

    /// The page that a link leads to: a URL, or a bare cursor.
    fn next(&mut self, link: Option<String>, query: &str) -> Result<Option<String>, Failure> {
        let Some(link) = link else {
            return Ok(None);
        };
        let query = match link.split_once('?') {
            Some((_, query)) => query.to_owned(),
            None => format!("{query}&cursor={}", id::encode(&link)),
        };
        let path = self.path;
        if self.seen.len() >= MAX_PAGES {
            return Err(Failure::passing(format!(
                "{path} has more than {MAX_PAGES} pages"
            )));
        }
        if !self.seen.insert(query.clone()) {
            return Err(Failure::passing(format!(
                "the pages of {path} lead in a circle: ?{query} comes twice"
            )));
        }
        Ok(Some(format!("{path}?{query}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_followed_by_their_query_alone_and_never_twice() {
        let (mut pages, first) = Pages::of("/sizes", "per_page=500");
        assert_eq!(first, "/sizes?per_page=500");
        let mut next = |link: &str| pages.next(Some(link.to_owned()), "per_page=500");
        assert_eq!(
            next("https://elsewhere/x?page=2&per_page=500")
                .unwrap()
                .unwrap(),
            "/sizes?page=2&per_page=500"
        );
        assert_eq!(
            next("b0dG==").unwrap().unwrap(),
            "/sizes?per_page=500&cursor=b0dG%3D%3D"
        );
        let circle = next("/v2/sizes?page=2&per_page=500").unwrap_err();
        assert!(circle.fault.message.contains("in a circle"), "{circle:?}");
        assert_eq!(pages.next(None, "").unwrap(), None);
    }

    #[test]
    fn there_is_an_end_to_pages() {
        let (mut pages, _) = Pages::of("/sizes", "page=0");
        let walked =
            (1..1000).take_while(|page| pages.next(Some(format!("?page={page}")), "").is_ok());
        assert_eq!(walked.count(), MAX_PAGES - 1);
    }
}
