//! The promises of a watch, each by itself, and all together under concurrent writers.

mod bounds;
mod filters;
mod follower;
mod invariants;
mod sequence;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use muster_proto::types::v1::ErrorReason;
use tokio::time::{Instant, advance, sleep, timeout};
use tonic::Code;

use super::*;
use crate::resume::{self, Position};
use crate::status::Details;

const EPOCH: &str = "epoch-1";

/// A resource for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Thing {
    name: String,
    /// Its last durable change.
    version: u64,
    /// A durable fact to filter by.
    group: u64,
    /// An in-memory fact.
    mood: u64,
    size: usize,
}

impl Resource for Thing {
    fn encoded_len(&self) -> usize {
        self.size
    }
}

fn thing(name: &str, version: u64) -> Thing {
    Thing {
        name: name.to_owned(),
        version,
        group: 0,
        mood: 0,
        size: 10,
    }
}

fn put(name: &str, version: u64) -> Update<Thing> {
    Update::put(name, thing(name, version))
}

/// A hub at `revision` with so many things, `t0000` and on.
fn hub_with(things: usize, revision: u64, options: Options) -> Hub<Thing> {
    let state = (0..things).map(|index| {
        let name = format!("t{index:04}");
        (name.as_str().into(), Arc::new(thing(&name, revision)))
    });
    Hub::new(EPOCH, revision, state, options)
}

fn hub(revision: u64) -> Hub<Thing> {
    hub_with(0, revision, Options::default())
}

fn token(revision: u64) -> String {
    resume::token(EPOCH, revision)
}

/// What a message says, in short: `+a1` put, `-a1` deleted, `~a1:2` observed with mood 2; then
/// `@5` for a token of revision 5, and `synced`.
fn words(message: &Message<Thing>) -> String {
    let mut words: Vec<String> = message
        .changes
        .iter()
        .map(|change| {
            let Thing {
                name,
                version,
                mood,
                ..
            } = &**change.resource();
            match change {
                Event::Put(_) => format!("+{name}{version}"),
                Event::Deleted(_) => format!("-{name}{version}"),
                Event::Observed(_) => format!("~{name}{version}:{mood}"),
            }
        })
        .collect();
    if !message.resume_token.is_empty() {
        words.push(format!(
            "@{}",
            Position::parse(&message.resume_token).unwrap().revision
        ));
    }
    if message.synced {
        words.push("synced".to_owned());
    }
    words.join(" ")
}

/// The next message, which must be there without waiting.
fn now(messages: &mut Messages<Thing>) -> Option<Message<Thing>> {
    messages
        .next()
        .now_or_never()
        .map(|message| message.expect("not over").expect("no failure"))
}

/// What the next message says, which must be there without waiting.
fn says(messages: &mut Messages<Thing>) -> String {
    now(messages).map_or_else(|| "nothing".to_owned(), |message| words(&message))
}

/// How the watch ended.
async fn end(messages: &mut Messages<Thing>) -> Details {
    loop {
        match messages.next().await.expect("it ends with a status") {
            Ok(_) => {}
            Err(status) => {
                assert!(
                    messages.next().await.is_none(),
                    "nothing comes after the status"
                );
                return Details::of(&status);
            }
        }
    }
}

fn refusal(watch: Result<Messages<Thing>, Status>) -> Details {
    Details::of(&watch.err().expect("refused"))
}
