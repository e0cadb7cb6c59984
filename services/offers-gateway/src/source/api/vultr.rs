//! Asks Vultr: the pages of both lists of plans, then each region for what it has capacity for,
//! several at a time. A region that does not let us know is one of which nothing is known; one that
//! does not answer makes the whole fail, by its name.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt as _};

use super::{Asking, Failure, Pages, blocking};
use crate::domain::builder::Builder;
use crate::domain::id;
use crate::domain::vultr::{self, Capacity, Plans};

/// Regions that are asked at the same time.
const AT_ONCE: usize = 4;

/// Regions at most; there are about 32.
const MAX_REGIONS: usize = 200;

/// Bytes of all pages together at most: they are kept until the regions have answered.
const MAX_BYTES: usize = 32 << 20;

/// A page, and what it is of.
type Page = (Plans, Vec<u8>);

pub(super) async fn ask(asking: &Asking<'_>, mut builder: Builder) -> Result<Builder, Failure> {
    let (mut pages, mut regions) = (Vec::new(), BTreeSet::new());
    list(
        asking,
        "/plans",
        "type=all&per_page=500",
        Plans::Shared,
        &mut pages,
        &mut regions,
    )
    .await?;
    list(
        asking,
        "/plans-metal",
        "per_page=500",
        Plans::Metal,
        &mut pages,
        &mut regions,
    )
    .await?;
    if regions.len() > MAX_REGIONS {
        return Err(Failure::passing(format!(
            "{} names {} regions",
            asking.api.base,
            regions.len()
        )));
    }
    let capacity = capacity(asking, regions).await?;
    blocking(move || {
        for (plans, text) in pages {
            vultr::read(&mut builder, &text, plans, &capacity)?;
        }
        Ok(builder)
    })
    .await?
    .map_err(|error| asking.unexpected("/plans", &error))
}

/// Gets all pages of one list, and notes the regions that they name.
async fn list(
    asking: &Asking<'_>,
    list: &'static str,
    query: &str,
    plans: Plans,
    pages: &mut Vec<Page>,
    regions: &mut BTreeSet<String>,
) -> Result<(), Failure> {
    let (mut walk, mut path) = Pages::of(list, query);
    loop {
        let text = asking.get(&path).await?;
        let link = vultr::regions(&text, plans, regions);
        let link = link.map_err(|error| asking.unexpected(list, &error))?;
        pages.push((plans, text));
        if pages.iter().map(|(_, text)| text.len()).sum::<usize>() > MAX_BYTES {
            let limit = MAX_BYTES >> 20;
            return Err(Failure::lasting(format!(
                "the pages of {list} are larger than {limit} MiB"
            )));
        }
        match walk.next(link, query)? {
            None => return Ok(()),
            Some(next) => path = next,
        }
    }
}

async fn capacity(asking: &Asking<'_>, regions: BTreeSet<String>) -> Result<Capacity, Failure> {
    let mut answers = stream::iter(regions)
        .map(|region| async move {
            let path = format!("/regions/{}/availability", id::encode(&region));
            let plans = match asking.get(&path).await {
                Ok(text) => vultr::available(&text)
                    .map(Some)
                    .map_err(|error| asking.unexpected(&path, &error)),
                // Some regions are told with a key only, or not at all.
                Err(failure) if failure.permanent => Ok(None),
                Err(failure) => Err(failure),
            };
            (region, plans)
        })
        .buffered(AT_ONCE);
    let mut capacity = Capacity::new();
    while let Some((region, plans)) = answers.next().await {
        let plans = plans.map_err(|failure| failure.about(&format!("region {region}")))?;
        capacity.insert(region, plans);
    }
    Ok(capacity)
}
