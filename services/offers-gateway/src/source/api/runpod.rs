//! Asks Runpod: what there is, then each data centre for all that it sells, several at a time. If
//! one data centre does not answer, the whole has failed, by its name: offers that are missing
//! would look as if they were sold out.

use futures_util::stream::{self, StreamExt as _};

use super::{Asking, Failure, blocking};
use crate::domain::builder::Builder;
use crate::domain::runpod;

const PATH: &str = "/graphql";

/// Data centres that are asked at the same time.
const AT_ONCE: usize = 4;

pub(super) async fn ask(asking: &Asking<'_>, mut builder: Builder) -> Result<Builder, Failure> {
    let text = asking.post(PATH, runpod::plan_question()).await?;
    let plan = runpod::plan(&text).map_err(|error| asking.unexpected(PATH, &error))?;
    drop(text);
    let max_count = plan.max_count;
    let mut answers = stream::iter(plan.data_centers)
        .map(|center| async move {
            let answer = asking
                .post(PATH, runpod::question(&center, max_count))
                .await;
            (center, answer)
        })
        .buffered(AT_ONCE);
    while let Some((center, answer)) = answers.next().await {
        let text = answer.map_err(|failure| failure.about(&format!("data centre {center}")))?;
        let name = center.clone();
        let read = blocking(move || (runpod::read(&mut builder, &text, &name), builder)).await?;
        let done;
        (done, builder) = read;
        done.map_err(|error| {
            asking
                .unexpected(PATH, &error)
                .about(&format!("data centre {center}"))
        })?;
    }
    Ok(builder)
}
