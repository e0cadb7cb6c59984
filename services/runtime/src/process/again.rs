//! Reads the settings of a process again when SIGHUP asks for it: the same command line, the
//! environment, and the file as it is now. Settings with any fault change nothing, and the log tells
//! the fault. Of good ones, those who may call are replaced at once, the component is given what it
//! takes, and what takes a restart is named.

use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use toml::Table;

use super::{Component, Settings};
use crate::args;
use crate::auth::{Access, Entry};
use crate::context::Context;
use crate::health::{Check, Tier};
use crate::shutdown::Phase;
use crate::signals::Hangup;
use crate::task;

/// How long a component may take over settings that were read again. Later ones wait for it no longer: they may be
/// there to shut somebody out.
const TAKES_WITHIN: Duration = Duration::from_secs(30);

/// The key of those who may call, which are taken for every component.
const AUTH: &str = "auth";

/// Settings that are read again while a component runs.
#[derive(Debug)]
pub struct Renewed<T>(mpsc::Receiver<Renewal<T>>);

impl<T> Renewed<T> {
    /// The next that are good; none once there will be no more.
    pub async fn next(&mut self) -> Option<Renewal<T>> {
        self.0.recv().await
    }
}

/// Settings that were read again, and are good.
#[derive(Debug)]
pub struct Renewal<T> {
    /// All of them.
    pub config: T,
    /// To be dropped once what can be taken of them is.
    pub taken: oneshot::Sender<()>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Reads the settings of `C` again.
pub(super) struct Reader<C: Component> {
    /// What they said at the start.
    said: Table,
    /// Who may call now.
    auth: Vec<Entry>,
    access: Access,
    reloads: Family<Outcome, Counter>,
    component: Option<mpsc::Sender<Renewal<C::Config>>>,
}

impl<C: Component> Reader<C> {
    /// For a process that has begun with what was `said`, and who may call by `auth`.
    pub(super) fn new(context: &Context, said: Table, auth: Vec<Entry>) -> Self {
        Self {
            said,
            auth,
            access: context.settings.access.clone(),
            reloads: context.metrics.register(
                "muster_config_reloads",
                "Times that the configuration was read again, by outcome",
                Family::default(),
            ),
            component: None,
        }
    }

    /// Reads at every SIGHUP from now on, if that is what it is for. Needs a tokio runtime around it.
    pub(super) fn start(
        mut self,
        context: &Context,
        hangup: Hangup,
    ) -> std::io::Result<Renewed<C::Config>> {
        // One at a time: the next is read once the component has taken the last.
        let (sender, receiver) = mpsc::channel(1);
        self.component = Some(sender);
        if hangup == Hangup::Reloads {
            let signal = signal(SignalKind::hangup())?;
            let check = context.health.check("configuration", Tier::Auxiliary);
            check.ok("");
            context
                .tasks
                .until(Phase::Loops, "configuration", self.follow(signal, check));
        }
        Ok(Renewed(receiver))
    }

    async fn follow(mut self, mut hangup: Signal, check: Check) {
        while hangup.recv().await.is_some() {
            let read = task::spawn_blocking(read::<C>).await;
            let read = read.unwrap_or_else(|error| Err(error.to_string()));
            let outcome = match read.and_then(|settings| self.check(settings)) {
                Ok(settings) => match self.take(settings).await {
                    true => {
                        check.ok("");
                        "taken"
                    }
                    false => {
                        tracing::error!(within = ?TAKES_WITHIN, "configuration not taken, but for who may call");
                        check.failed(format!(
                            "the component has not taken it within {TAKES_WITHIN:?}, who may call is in force: \
                             send SIGHUP again"
                        ));
                        "late"
                    }
                },
                Err(error) => {
                    let error = in_one_line(&error);
                    tracing::error!(error, "configuration refused; what was in force stays");
                    check.failed(format!("what was in force stays: {error}"));
                    "refused"
                }
            };
            self.reloads.get_or_create(&Outcome { outcome }).inc();
        }
    }

    /// Who is an admin for want of anyone known, or shut out with all others, is so from a start.
    fn check(&self, settings: Settings<C>) -> Result<Settings<C>, String> {
        if settings.auth.is_empty() && !self.auth.is_empty() {
            return Err(
                "there is no [[auth]] entry any more: a file that means this takes a restart"
                    .to_owned(),
            );
        }
        Ok(settings)
    }

    /// Has everybody take what is theirs, of which who may call comes first. Whether the component has, in time.
    async fn take(&mut self, settings: Settings<C>) -> bool {
        let Settings {
            auth, said, config, ..
        } = settings;
        let added = missing(&auth, &self.auth);
        let removed = missing(&self.auth, &auth);
        if self.auth != auth {
            self.access.replace(auth.clone());
            self.auth = auth;
        }
        let (taken, until) = oneshot::channel();
        let given = async {
            // Who takes nothing never looks.
            if let Some(component) = self.component.as_ref().filter(|_| !C::TAKES.is_empty())
                && component.send(Renewal { config, taken }).await.is_ok()
            {
                let _ = until.await;
            }
        };
        let in_time = timeout(TAKES_WITHIN, given).await.is_ok();
        tracing::info!(
            callers_added = ?added,
            callers_removed = ?removed,
            "configuration taken"
        );
        let restart = differing::<C>(&self.said, &said);
        if !restart.is_empty() {
            tracing::warn!(keys = ?restart, "these differ too, and take a restart");
        }
        in_time
    }
}

/// The settings as they are now. Says in words what is wrong; opens nothing but files to read.
fn read<C: Component>() -> Result<Settings<C>, String> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let mut parsed = args::parse::<C>(&words).map_err(|error| error.to_string())?;
    let (file, text) = (parsed.common.config.clone(), parsed.text.take());
    let settings = Settings::check(parsed)?;
    // Who reads it once more to check it must have read the same.
    if let Some(file) = file.filter(|file| fs::read_to_string(file).ok() != text) {
        let file = file.display();
        return Err(format!("config file {file}: it changed while it was read"));
    }
    Ok(settings)
}

/// The names of `entries` that are not among `others`.
fn missing(entries: &[Entry], others: &[Entry]) -> Vec<String> {
    let missing = entries.iter().filter(|entry| !others.contains(entry));
    missing
        .map(|entry| format!("{}:{}", entry.role.name(), entry.name))
        .collect()
}

/// What `now` says otherwise than `before`, as far as nothing takes it while the process runs.
fn differing<'a, C: Component>(before: &'a Table, now: &'a Table) -> Vec<&'a str> {
    let keys = before
        .keys()
        .chain(now.keys().filter(|key| !before.contains_key(*key)));
    let differing = keys
        .map(String::as_str)
        .filter(|key| *key != AUTH && !C::TAKES.contains(key) && before.get(*key) != now.get(*key));
    differing.collect()
}

/// What is wrong, without what clap says to who has typed it.
fn in_one_line(error: &str) -> String {
    let lines = error.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let line = lines.collect::<Vec<_>>().join("; ");
    line.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::CommonArgs;
    use crate::auth::{Proof, Role};
    use crate::process::{NoArgs, NoFile};
    use crate::server::Listeners;

    /// Says that it takes settings.
    struct Busy;

    impl Component for Busy {
        const NAME: &'static str = "busy";
        const VERSION: &'static str = "1.2.3";
        const ABOUT: &'static str = "Takes nothing";
        const DEFAULTS: &'static [(&'static str, &'static str)] =
            &[("listen", "127.0.0.1:0"), ("ops-listen", "off")];
        const TAKES: &'static [&'static str] = &["threads"];
        type Args = NoArgs;
        type File = NoFile;
        type Config = ();

        fn configure(_: &CommonArgs, _: NoArgs, _: NoFile) -> Result<(), String> {
            Ok(())
        }

        async fn run((): (), _: Renewed<()>, _: Context, _: Listeners) -> anyhow::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_component_that_takes_nothing_holds_up_nobody_who_is_to_be_shut_out() {
        let context = Context::for_tests("busy");
        let (component, _untaken) = mpsc::channel(1);
        let mut reader = Reader::<Busy>::new(&context, Table::new(), Vec::new());
        reader.component = Some(component);
        for name in ["alice", "bob", "carol"] {
            let parsed = args::parse::<Busy>(&["busy".into()]).unwrap();
            let mut settings = Settings::check(parsed).unwrap();
            settings.auth = vec![Entry {
                name: name.to_owned(),
                role: Role::Viewer,
                proof: Proof::San("x".to_owned()),
            }];
            let minutes = Duration::from_secs(600);
            let taken = timeout(minutes, reader.take(settings)).await;
            assert_eq!(taken, Ok(false), "{name}");
            let caller = context
                .settings
                .access
                .without_token(None, &["x".to_owned()]);
            assert_eq!(caller.name(), name);
        }
    }
}
