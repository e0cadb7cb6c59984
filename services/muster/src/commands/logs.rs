//! `muster logs`: the output of a service's replicas, each line under its
//! replica's name. What is followed goes on where it was when the connection breaks.

use std::collections::BTreeMap;

use muster_proto::replicas::v1::{StreamLogsRequest, StreamLogsResponse};
use prost_types::Timestamp;
use tonic::{Code, Status, Streaming};

use super::live;
use crate::{
    args::{Format, Logs},
    failure::Failure,
    output::style::Style,
    session::{self, Component, Session},
    text,
};

/// Attempts of one replica of which it is known how far they were read: the rest of one may come after
/// the next has begun.
const KNOWN_ATTEMPTS: usize = 2;

/// Shows output.
pub(crate) async fn run(session: &Session, args: &Logs) -> Result<(), Failure> {
    if args.follow {
        return live::until_interrupted(follow(session, args)).await;
    }
    let mut shown = Shown::new(session, args);
    let mut replicas = session.replicas();
    let stream = replicas.stream_logs(request(session, args));
    let mut stream = session.call(Component::Manager, stream).await?;
    match shown.show(&mut stream).await? {
        Ok(()) => shown.into_result(),
        Err(status) => Err(session.failure(Component::Manager, status)),
    }
}

async fn follow(session: &Session, args: &Logs) -> Result<(), Failure> {
    let mut request = request(session, args);
    let mut shown = Shown::new(session, args);
    let mut is_first = true;
    loop {
        let ended = match session.replicas().stream_logs(request.clone()).await {
            Ok(stream) => {
                session.tell_back(Component::Manager);
                shown.show(&mut stream.into_inner()).await?
            }
            // It went while nobody could see it.
            Err(status) if !is_first && status.code() == Code::NotFound => Ok(()),
            Err(status) if !is_first && live::passes(status.code()) => {
                session.tell_away(Component::Manager, &status);
                Err(status)
            }
            Err(status) => return Err(session.failure(Component::Manager, status)),
        };
        is_first = false;
        match ended {
            Ok(()) => return shown.into_result(),
            Err(status) if live::passes(status.code()) => {}
            Err(status) => return Err(session.failure(Component::Manager, status)),
        }
        request.after = shown.positions();
        tokio::time::sleep(live::PAUSE).await;
    }
}

fn request(session: &Session, args: &Logs) -> StreamLogsRequest {
    let since = args
        .since
        .and_then(|since| session.now().checked_sub(since));
    StreamLogsRequest {
        target: args.target.clone(),
        follow: args.follow,
        tail: args.tail,
        since_time: since.map(Timestamp::from),
        previous: args.previous,
        ..StreamLogsRequest::default()
    }
}

/// What was shown so far.
struct Shown<'a> {
    session: &'a Session,
    follows: bool,
    /// Lines are told apart by their replica.
    several: bool,
    /// How far the last attempts of each replica were read, the last one last: its id and the position.
    read: BTreeMap<String, Vec<(String, String)>>,
    /// Why the output of a replica is missing.
    missing: BTreeMap<String, String>,
}

impl<'a> Shown<'a> {
    fn new(session: &'a Session, args: &Logs) -> Self {
        Self {
            session,
            follows: args.follow,
            several: !args.target.contains('/'),
            read: BTreeMap::new(),
            missing: BTreeMap::new(),
        }
    }

    /// Shows what comes, and how it ended.
    async fn show(
        &mut self,
        stream: &mut Streaming<StreamLogsResponse>,
    ) -> Result<Result<(), Status>, Failure> {
        loop {
            match stream.message().await {
                Ok(Some(part)) => self.take(&part)?,
                Ok(None) => return Ok(Ok(())),
                Err(status) => return Ok(Err(status)),
            }
        }
    }

    fn take(&mut self, part: &StreamLogsResponse) -> Result<(), Failure> {
        if let Some(error) = &part.error {
            if self.follows {
                session::note(&format!("{}: {}", part.replica, error.message));
            }
            let missing = &mut self.missing;
            missing.insert(part.replica.clone(), error.message.clone());
        } else {
            self.missing.remove(&part.replica);
            self.keep_position(part);
        }
        if !part.lines.is_empty() || part.error.is_some() {
            self.print(part)?;
        }
        Ok(())
    }

    fn keep_position(&mut self, part: &StreamLogsResponse) {
        let known = self.read.entry(part.replica.clone()).or_default();
        if let Some((_, position)) = known.iter_mut().find(|(id, _)| *id == part.attempt_id) {
            position.clone_from(&part.position);
            return;
        }
        if self.follows && !known.is_empty() {
            let number = part.attempt_id.rsplit('.').next().unwrap_or_default();
            session::note(&format!("{} goes on with attempt {number}", part.replica));
        }
        known.push((part.attempt_id.clone(), part.position.clone()));
        known.drain(..known.len().saturating_sub(KNOWN_ATTEMPTS));
    }

    /// Where each attempt goes on.
    fn positions(&self) -> BTreeMap<String, String> {
        self.read.values().flatten().cloned().collect()
    }

    fn print(&self, part: &StreamLogsResponse) -> Result<(), Failure> {
        let session = self.session;
        if matches!(session.format, Format::Json | Format::Yaml) {
            return session.print_line(part).map(drop);
        }
        let name = session.colours.paint(Style::Dim, &part.replica);
        let mut lines = String::new();
        for line in &part.lines {
            if self.several {
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

    /// Fails if output is missing that did not come later.
    fn into_result(self) -> Result<(), Failure> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let lines = self.missing.iter();
        let lines = lines.map(|(replica, message)| format!("{replica}: {message}"));
        Err(Failure::Failed(lines.collect::<Vec<_>>().join("\n")))
    }
}
