//! What is done to each of several: how it is asked for one by one, and told.

use prost::{Message, Name};

use crate::{args::Format, failure::Failure, session::Session};

/// Does something to each of these, in order, and tells of each by the sentence that comes with its answer;
/// ends with the first that is refused. Documents are printed together, also where one was refused: those before it are done.
pub(crate) async fn each<M: Message + Name>(
    session: &Session,
    names: &[String],
    act: impl AsyncFn(&str) -> Result<(M, String), Failure>,
) -> Result<Vec<M>, Failure> {
    let mut answers = Vec::new();
    let mut refused = Ok(());
    for name in names {
        match act(name).await {
            Ok((answer, sentence)) => {
                match session.format {
                    Format::Json | Format::Yaml => {}
                    Format::Name => session.print(&format!("{name}\n"))?,
                    Format::Table | Format::Wide => session.print(&sentence)?,
                }
                answers.push(answer);
            }
            Err(failure) if names.len() > 1 => {
                refused = Err(failure.about(name));
                break;
            }
            Err(failure) => return Err(failure),
        }
    }
    if !answers.is_empty() {
        session.print_messages(&answers, names.len())?;
    }
    refused.map(|()| answers)
}
