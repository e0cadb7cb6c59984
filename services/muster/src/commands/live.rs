//! What `-w` shows: resources as a watch tells them. On a terminal the table is
//! drawn anew at each change, and as its times go on; elsewhere each change is
//! printed as it comes.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::{Future, pending},
    time::Duration,
};

use prost::{Message, Name};
use tonic::{Code, Response, Status, Streaming};

use crate::{
    args::Format,
    failure::Failure,
    output::table::{Columns, Table},
    session::{self, Component, Session},
};

/// The pause before a broken watch is taken up again, and from one look for a reader to the next.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// From one look at the times in a table to the next.
const TICK: Duration = Duration::from_secs(1);

/// One message of a watch, whatever its type.
pub(crate) struct Update<R> {
    /// What changed.
    pub(crate) changes: Changes<R>,
    /// Where to go on, if it is told.
    pub(crate) resume_token: String,
    /// Whether the current state is complete.
    pub(crate) synced: bool,
}

/// How a kind of resource is watched and shown.
pub(crate) trait Watched {
    /// The resource.
    type Resource: Message + Name + Clone;
    /// The watch's message.
    type Message;

    /// Who tells.
    const COMPONENT: Component;

    /// Begins, or goes on from a token.
    fn open(
        &self,
        session: &Session,
        resume_token: String,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Message>>, Status>> + Send;

    /// Reads a message.
    fn read(&self, message: Self::Message) -> Update<Self::Resource>;
}

/// A kind of resource that is shown as it is watched.
pub(crate) trait Shown: Watched {
    /// The resources as a table.
    fn table(session: &Session, resources: &mut dyn Iterator<Item = &Self::Resource>) -> Table;

    /// The resource's name.
    fn name(resource: &Self::Resource) -> &str;
}

/// Shows resources and their changes until the program is interrupted.
pub(crate) async fn show<W: Shown>(session: &Session, watched: &W) -> Result<(), Failure> {
    let screen = RefCell::new(Screen::<W>::new());
    let mut unseen = BTreeSet::new();
    let mut columns = Columns::default();
    let watch = follow_all(session, watched, |told| {
        let mut screen = screen.borrow_mut();
        let terminal = session.is_terminal();
        if let (Told::Changes(changes), false) = (&told, terminal) {
            let resources = changes.iter().filter_map(|(_, resource)| resource.as_ref());
            print_all::<W>(session, resources, &mut columns)?;
        }
        for key in gone(&screen.state, &mut unseen, &told) {
            if !terminal {
                session.say(&format!("{key} is no longer listed\n"))?;
            }
        }
        screen.is_whole = matches!(told, Told::Changes(_));
        apply(&mut screen.state, told);
        if terminal && screen.is_whole {
            screen.drawn.clear();
            screen.draw(session)?;
        }
        Ok(Flow::GoOn)
    });
    let shown = async {
        tokio::select! {
            ended = watch => ended,
            ended = go_on(session, &screen) => ended,
        }
    };
    until_interrupted(shown).await
}

/// Draws what a terminal shows again as time passes.
async fn go_on<W: Shown>(session: &Session, screen: &RefCell<Screen<W>>) -> Result<(), Failure> {
    if !session.is_terminal() {
        return pending().await;
    }
    loop {
        tokio::time::sleep(TICK).await;
        // What is said of a component that is away stays there until it is back.
        if !session.is_away(W::COMPONENT) {
            screen.borrow_mut().draw(session)?;
        }
    }
}

/// What a terminal shows.
struct Screen<W: Shown> {
    state: BTreeMap<String, W::Resource>,
    /// Whether that is all that is there.
    is_whole: bool,
    /// The table as it was drawn last; empty to draw it in any case.
    drawn: String,
}

impl<W: Shown> Screen<W> {
    fn new() -> Self {
        Self {
            state: BTreeMap::new(),
            is_whole: false,
            drawn: String::new(),
        }
    }

    /// Draws the table, unless it looks as it did.
    fn draw(&mut self, session: &Session) -> Result<(), Failure> {
        let table = session.render_table(&W::table(session, &mut self.state.values()))?;
        if self.is_whole && table != self.drawn {
            session.print(&format!("{CLEAR}{table}"))?;
            self.drawn = table;
        }
        Ok(())
    }
}

/// What goes by what a watch tells. `unseen` is what was there before it began anew and has not come again.
fn gone<R>(
    state: &BTreeMap<String, R>,
    unseen: &mut BTreeSet<String>,
    told: &Told<R>,
) -> BTreeSet<String> {
    match told {
        Told::Changes(changes) => {
            let mut gone = BTreeSet::new();
            for (key, resource) in changes {
                let was_unseen = unseen.remove(key);
                if resource.is_none() && (was_unseen || state.contains_key(key)) {
                    gone.insert(key.clone());
                }
            }
            gone.append(unseen);
            gone
        }
        Told::Anew => {
            unseen.extend(state.keys().cloned());
            BTreeSet::new()
        }
    }
}

/// What is there after a watch has told of something.
fn apply<R>(state: &mut BTreeMap<String, R>, told: Told<R>) {
    match told {
        Told::Changes(changes) => {
            for (key, resource) in changes {
                match resource {
                    Some(resource) => state.insert(key, resource),
                    None => state.remove(&key),
                };
            }
        }
        // What went meanwhile is not told any more.
        Told::Anew => state.clear(),
    }
}

/// What empties the terminal.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Empties the terminal.
pub(crate) fn clear(session: &Session) -> Result<(), Failure> {
    session.print(CLEAR)
}

/// Runs what shows changes for ever. Whoever ends it by Ctrl-C, or reads no more of it, has seen enough:
/// that is no failure.
pub(crate) async fn until_interrupted(
    watch: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    tokio::select! {
        ended = watch => ended,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        () = until_unread() => Ok(()),
    }
}

async fn until_unread() {
    while !session::is_unread() {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Prints what came, under the columns of what came before.
fn print_all<'a, W: Shown>(
    session: &Session,
    mut resources: impl Iterator<Item = &'a W::Resource>,
    columns: &mut Columns,
) -> Result<(), Failure>
where
    W::Resource: 'a,
{
    match session.format {
        Format::Json | Format::Yaml => {
            resources.try_for_each(|resource| session.print_line(resource).map(drop))
        }
        Format::Name => {
            let names = resources.map(|resource| format!("{}\n", W::name(resource)));
            session.print(&names.collect::<String>())
        }
        Format::Table | Format::Wide => {
            let table = W::table(session, &mut resources);
            session.print_under(&table, columns)
        }
    }
}

/// Whether a watch goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It goes on.
    GoOn,
    /// Enough was seen.
    Done,
}

/// What changed: the key, and the resource unless it is gone.
type Changes<R> = Vec<(String, Option<R>)>;

/// What a watch says to those who follow it.
enum Told<R> {
    /// The current state, and then what changed.
    Changes(Changes<R>),
    /// It begins anew: the whole current state comes again.
    Anew,
}

/// Hands the current state to `take`, then every change, until it has seen enough. A
/// watch that breaks is taken up where it was, which is told if it takes a while; one
/// whose history is gone begins anew.
pub(crate) async fn follow<W: Watched>(
    session: &Session,
    watched: &W,
    mut take: impl FnMut(Changes<W::Resource>) -> Result<Flow, Failure>,
) -> Result<(), Failure> {
    let take = |told| match told {
        Told::Changes(changes) => take(changes),
        Told::Anew => Ok(Flow::GoOn),
    };
    follow_all(session, watched, take).await
}

/// The same, and is told when the watch begins anew.
async fn follow_all<W: Watched>(
    session: &Session,
    watched: &W,
    mut take: impl FnMut(Told<W::Resource>) -> Result<Flow, Failure>,
) -> Result<(), Failure> {
    let mut token = String::new();
    let mut first = true;
    let mut early = Vec::new();
    loop {
        let ended = match watched.open(session, token.clone()).await {
            Ok(stream) => {
                session.tell_back(W::COMPONENT);
                let mut take = |update| match hold_back(&mut early, update) {
                    Some(changes) => take(Told::Changes(changes)),
                    None => Ok(Flow::GoOn),
                };
                read_all(watched, stream.into_inner(), &mut token, &mut take).await?
            }
            Err(status) if first => return Err(session.failure(W::COMPONENT, status)),
            Err(status) => {
                if passes(status.code()) {
                    session.tell_away(W::COMPONENT, &status);
                }
                Ended::Broken(status)
            }
        };
        first = false;
        match ended {
            Ended::Done => return Ok(()),
            Ended::Broken(status) if status.code() == Code::OutOfRange => {
                token.clear();
                early.clear();
                take(Told::Anew)?;
            }
            Ended::Broken(status) if passes(status.code()) => {}
            Ended::Broken(status) => return Err(session.failure(W::COMPONENT, status)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Keeps what comes before the current state is complete, and gives it out with the change that completes it:
/// a watch may begin with a state of a moment ago, which its own caller may have changed since. Of several
/// changes of one resource the last counts.
fn hold_back<R>(early: &mut Changes<R>, mut update: Update<R>) -> Option<Changes<R>> {
    if update.synced && early.is_empty() {
        return Some(update.changes);
    }
    early.append(&mut update.changes);
    if !update.synced {
        return None;
    }
    let mut told = BTreeSet::new();
    let mut last = std::mem::take(early);
    last.reverse();
    last.retain(|(key, _)| told.insert(key.clone()));
    last.reverse();
    Some(last)
}

/// Whether a watch that broke like this may go on later.
pub(crate) fn passes(code: Code) -> bool {
    matches!(
        code,
        Code::Ok
            | Code::Unavailable
            | Code::ResourceExhausted
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
    )
}

/// How a stream ended.
enum Ended {
    Done,
    Broken(Status),
}

async fn read_all<W: Watched>(
    watched: &W,
    mut stream: Streaming<W::Message>,
    token: &mut String,
    take: &mut impl FnMut(Update<W::Resource>) -> Result<Flow, Failure>,
) -> Result<Ended, Failure> {
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                let update = watched.read(message);
                if !update.resume_token.is_empty() {
                    token.clone_from(&update.resume_token);
                }
                if take(update)? == Flow::Done {
                    return Ok(Ended::Done);
                }
            }
            Ok(None) => return Ok(Ended::Broken(Status::ok(""))),
            Err(status) => return Ok(Ended::Broken(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_before_a_watch_began_anew_is_not_shown_after_it() {
        let mut state = BTreeMap::new();
        let put = |key: &str, value: u8| (key.to_owned(), Some(value));
        let changes = vec![put("a", 1), put("b", 1), put("c", 1)];
        apply(&mut state, Told::Changes(changes));
        apply(&mut state, Told::Changes(vec![("c".to_owned(), None)]));
        assert_eq!(state.keys().collect::<Vec<_>>(), ["a", "b"]);
        apply(&mut state, Told::Anew);
        apply(&mut state, Told::Changes(vec![put("a", 2)]));
        assert_eq!(state, BTreeMap::from([("a".to_owned(), 2)]));
    }

    #[test]
    fn what_is_not_complete_is_held_back_and_the_last_of_each_counts() {
        let mut early = Vec::new();
        let mut hear = |changes: &[(&str, Option<u8>)], synced| {
            let changes = changes.iter();
            let update = Update {
                changes: changes
                    .map(|(key, value)| ((*key).to_owned(), *value))
                    .collect(),
                resume_token: String::new(),
                synced,
            };
            hold_back(&mut early, update)
        };
        assert_eq!(hear(&[("a", Some(1)), ("b", Some(1))], false), None);
        assert_eq!(hear(&[("a", Some(2))], false), None);
        let state = vec![("a".to_owned(), Some(2)), ("b".to_owned(), None)];
        assert_eq!(hear(&[("b", None)], true), Some(state));
        let twice = [("a", Some(3)), ("a", Some(4))];
        let both = Vec::from_iter(twice.map(|(key, value)| (key.to_owned(), value)));
        assert_eq!(hear(&twice, true), Some(both));
    }

    #[test]
    fn what_goes_is_told_once_also_while_nobody_watched() {
        let (mut state, mut unseen) = (BTreeMap::new(), BTreeSet::new());
        let mut hear = |told| {
            let gone = gone(&state, &mut unseen, &told);
            apply(&mut state, told);
            Vec::from_iter(gone)
        };
        let put = |key: &str| (key.to_owned(), Some(1));
        let deleted = |key: &str| (key.to_owned(), None);
        let all = vec![put("a"), put("b"), put("c"), put("d"), put("e")];
        assert_eq!(hear(Told::Changes(all)), [""; 0]);
        let some = vec![deleted("a"), deleted("none")];
        assert_eq!(hear(Told::Changes(some)), ["a"]);
        // It may begin anew again before it has told of anything.
        assert_eq!(hear(Told::Anew), [""; 0]);
        assert_eq!(hear(Told::Anew), [""; 0]);
        let some = vec![put("b"), put("c"), deleted("d")];
        assert_eq!(hear(Told::Changes(some)), ["d", "e"]);
        assert_eq!(hear(Told::Changes(vec![])), [""; 0]);
    }
}
