//! Asks Vast.ai: the market by price, a page at a time, each from where the last one ended.

use super::{Asking, Failure, blocking};
use crate::domain::builder::Builder;
use crate::domain::vastai;

const PATH: &str = "/bundles/";

/// Offers in a page: what the API gives at most.
const LIMIT: u32 = 3000;

/// Pages at most: ten times the market.
const MAX_PAGES: u32 = 20;

pub(super) async fn ask(asking: &Asking<'_>, mut builder: Builder) -> Result<Builder, Failure> {
    let mut from = None;
    for _ in 0..MAX_PAGES {
        let text = asking.post(PATH, vastai::question(from, LIMIT)).await?;
        let read = blocking(move || (vastai::read(&mut builder, &text), builder)).await?;
        let page;
        (page, builder) = read;
        let page = page.map_err(|error| asking.unexpected(PATH, &error))?;
        if page.offers < LIMIT {
            return Ok(builder);
        }
        // Offers at the price where a page ends come again in the next one, and count as repeated.
        if page.last.is_none() || page.last == from {
            return Err(Failure::passing(format!(
                "the pages of {}{PATH} do not get on: {} offers at one price, or without one",
                asking.api.base, page.offers
            )));
        }
        from = page.last;
    }
    Err(Failure::passing(format!(
        "{}{PATH} has more than {MAX_PAGES} pages of {LIMIT} offers",
        asking.api.base
    )))
}
