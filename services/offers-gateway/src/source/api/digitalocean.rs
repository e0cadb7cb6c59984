//! Asks DigitalOcean: pages of sizes, one after the other.

use super::{Asking, Failure, Pages, blocking};
use crate::domain::builder::Builder;
use crate::domain::digitalocean;

const PATH: &str = "/sizes";
const QUERY: &str = "per_page=500";

pub(super) async fn ask(asking: &Asking<'_>, mut builder: Builder) -> Result<Builder, Failure> {
    let (mut pages, mut path) = Pages::of(PATH, QUERY);
    loop {
        let text = asking.get(&path).await?;
        let read = blocking(move || (digitalocean::read(&mut builder, &text), builder)).await?;
        let link;
        (link, builder) = read;
        let link = link.map_err(|error| asking.unexpected(PATH, &error))?;
        match pages.next(link, QUERY)? {
            None => return Ok(builder),
            Some(next) => path = next,
        }
    }
}
