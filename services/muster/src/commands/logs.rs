//! `muster logs`: the output of a service's replicas, each line under its
//! replica's name.

use muster_proto::replicas::v1::{StreamLogsRequest, StreamLogsResponse};
use prost_types::Timestamp;

use super::live;
use crate::{
    args::{Format, Logs},
    failure::Failure,
    output::style::Style,
    session::{Component, Session},
    text,
};

/// Shows output.
pub(crate) async fn run(session: &Session, args: &Logs) -> Result<(), Failure> {
    if args.follow {
        return live::until_interrupted(show(session, args)).await;
    }
    show(session, args).await
}

async fn show(session: &Session, args: &Logs) -> Result<(), Failure> {
    let since = args
        .since
        .and_then(|since| session.now().checked_sub(since));
    let request = StreamLogsRequest {
        target: args.target.clone(),
        follow: args.follow,
        tail: args.tail,
        since_time: since.map(Timestamp::from),
        previous: args.previous,
        ..StreamLogsRequest::default()
    };
    let mut stream = session
        .call(Component::Manager, session.replicas().stream_logs(request))
        .await?;
    let several = !args.target.contains('/');
    let mut missing = Vec::new();
    loop {
        let message = stream.message().await;
        let Some(part) = message.map_err(|status| session.failure(Component::Manager, status))?
        else {
            break;
        };
        print(session, &part, several)?;
        if let Some(error) = &part.error {
            missing.push(format!("{}: {}", part.replica, error.message));
        }
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Failure::Failed(missing.join("\n")))
    }
}

fn print(session: &Session, part: &StreamLogsResponse, several: bool) -> Result<(), Failure> {
    if matches!(session.format, Format::Json | Format::Yaml) {
        return session.print_line(part).map(drop);
    }
    let name = session.colours.paint(Style::Dim, &part.replica);
    let mut lines = String::new();
    for line in &part.lines {
        if several {
            lines.push_str(&format!("{name}  "));
        }
        if session.is_wide() {
            lines.push_str(&format!("{}  ", text::print_time(line.time, session.now())));
        }
        lines.push_str(&line.text);
        lines.push('\n');
    }
    session.print(&lines)
}
