//! Asks one of Runpod's clouds: what there is, then each place for all that it sells, several at a
//! time. If one place does not answer, the whole has failed, by its name: offers that are missing
//! would look as if they were sold out.

use futures_util::stream::{self, StreamExt as _};

use super::{Asking, Failure, blocking};
use crate::domain::builder::Builder;
use crate::domain::runpod::{self, Cloud};

const PATH: &str = "/graphql";

/// Places that are asked at the same time.
const AT_ONCE: usize = 4;

pub(super) async fn ask(
    asking: &Asking<'_>,
    cloud: Cloud,
    mut builder: Builder,
) -> Result<Builder, Failure> {
    let text = asking.post(PATH, runpod::plan_question(cloud)).await?;
    let plan = runpod::plan(&text, cloud).map_err(|error| asking.unexpected(PATH, &error))?;
    drop(text);
    let max_count = plan.max_count;
    let mut answers = stream::iter(plan.places)
        .map(|place| async move {
            let question = runpod::question(cloud, &place, max_count);
            (place, asking.post(PATH, question).await)
        })
        .buffered(AT_ONCE);
    while let Some((name, answer)) = answers.next().await {
        let place = format!("{} {name}", cloud.place());
        let text = answer.map_err(|failure| failure.about(&place))?;
        let read = move || (runpod::read(&mut builder, &text, cloud, &name), builder);
        let done;
        (done, builder) = blocking(read).await?;
        done.map_err(|error| asking.unexpected(PATH, &error).about(&place))?;
    }
    Ok(builder)
}
