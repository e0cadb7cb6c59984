//! Asks Lambda: one request tells all.

use super::{Asking, Failure, blocking};
use crate::domain::builder::Builder;
use crate::domain::lambda;

const PATH: &str = "/instance-types";

pub(super) async fn ask(asking: &Asking<'_>, mut builder: Builder) -> Result<Builder, Failure> {
    let text = asking.get(PATH).await?;
    let read = blocking(move || lambda::read(&mut builder, &text).map(|()| builder)).await?;
    read.map_err(|error| asking.unexpected(PATH, &error))
}
