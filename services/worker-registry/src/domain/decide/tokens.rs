//! Join tokens.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::register::buried_generation;
use super::{Decision, REQUEST_KEPT, Refused, put_worker};
use crate::domain::book::Book;
use crate::domain::fleet::{Change, Draft, Key, RequestKey, Spent};
use crate::domain::text::Text;
use crate::domain::token::JoinToken;
use crate::domain::worker::{By, Worker};

/// The method's word in the scope of request ids.
const METHOD: &str = "create-join-token";

/// The end of the year 9999, as far as the contract tells times: until then the call is kept that made a
/// token without an end, or until that is revoked.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// A join token to make.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// The token, with a fresh id.
    pub token: JoinToken,
    /// The uid of the worker that is made ahead, if the token is bound to one.
    pub uid: Text,
    /// The caller, its id for the call and the body's checksum; none if it gave no id.
    pub request: Option<(Text, Text, u64)>,
}

/// Makes a token, and the record of the worker that it is bound to. Answers the token, or the one that
/// the same call made before.
///
/// # Errors
/// `WorkerExists`, `RequestReused`, `AlreadyReleased`.
pub fn create_token(
    book: &Book,
    new: &NewToken,
    now: SystemTime,
) -> Result<Decision<Arc<JoinToken>>, Refused> {
    if let Some(known) = replayed(book, new)? {
        return Ok(Decision::nothing(known));
    }
    let mut draft = Draft::new();
    if let Some(name) = &new.token.worker {
        match book.fleet().worker(name) {
            Some(entry) if entry.worker.generation > 0 => {
                return Err(Refused::WorkerExists(name.clone()));
            }
            Some(_) => draft.rests_on(Key::Worker(name.clone())),
            None => {
                let by = By::new(new.token.actor.clone(), "a join token awaits it");
                let mut worker = Worker::ahead(name.clone(), new.uid.clone(), by, now);
                worker.revoked_through = buried_generation(book, name);
                worker.set_labels(new.token.labels.clone());
                put_worker(&mut draft, worker, now);
            }
        }
    }
    if let Some((principal, id, body)) = &new.request {
        let key = RequestKey {
            method: METHOD,
            principal: principal.clone(),
            id: id.clone(),
        };
        let until = match new.token.expires {
            Some(end) => end.checked_add(REQUEST_KEPT).unwrap_or(end),
            None => UNIX_EPOCH + LAST,
        };
        let spent = Spent {
            body: *body,
            made: new.token.id.clone(),
            until,
        };
        draft.put(Change::Spent(key, spent));
    }
    let token = Arc::new(new.token.clone());
    draft.put(Change::Token(Arc::clone(&token)));
    Ok(Decision {
        draft,
        answer: token,
    })
}

fn replayed(book: &Book, new: &NewToken) -> Result<Option<Arc<JoinToken>>, Refused> {
    let Some((principal, id, body)) = &new.request else {
        return Ok(None);
    };
    let key = RequestKey {
        method: METHOD,
        principal: principal.clone(),
        id: id.clone(),
    };
    match book.fleet().spent(&key) {
        None => Ok(None),
        Some(spent) if spent.body != *body => Err(Refused::RequestReused(id.clone())),
        Some(spent) => match book.fleet().token(&spent.made) {
            Some(token) => Ok(Some(Arc::clone(token))),
            None => Err(Refused::AlreadyReleased(id.clone())),
        },
    }
}

/// Ends a token. Workers that came by it stay; the call that made it is kept for a while.
///
/// # Errors
/// `NoToken`.
pub fn revoke_token(book: &Book, id: &Text, now: SystemTime) -> Result<Decision<()>, Refused> {
    let fleet = book.fleet();
    fleet
        .token(id)
        .ok_or_else(|| Refused::NoToken(id.clone()))?;
    let mut draft = Draft::of(Change::TokenGone(id.clone()));
    let mut endless = fleet.spent_from(UNIX_EPOCH + LAST);
    if let Some((key, spent)) = endless.find(|(_, spent)| spent.made == *id) {
        let spent = Spent {
            until: now + REQUEST_KEPT,
            ..spent.clone()
        };
        draft.put(Change::Spent(key.clone(), spent));
    }
    Ok(Decision { draft, answer: () })
}
