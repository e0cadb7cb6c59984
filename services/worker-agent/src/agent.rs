//! The agent's one loop: hears what comes, has the domain decide, does what it says, and shows
//! everyone what is held. What has to be on disk is there before it is shown; on a disk that takes
//! nothing it waits, and is not shown.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use muster_proto::replicas::v1 as wire;
use muster_runtime::backoff;
use muster_runtime::context::Context;
use muster_runtime::shutdown::Phase as ShutdownPhase;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::accelerators::Looks;
use crate::attempt_dir::{AttemptDir, Container, Fence, Running, Spec};
use crate::cgroup::Groups;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::domain::Now;
use crate::domain::assignment::Assignment;
use crate::domain::attempt::Phase;
use crate::domain::end::{Exit, StopCause};
use crate::domain::holdings::{Action, Holdings, Input};
use crate::domain::ids::AttemptId;
use crate::domain::ports;
use crate::domain::probe::{Kind, Terms};
use crate::grpc::convert;
use crate::ledger::{Entry, Ledger};
use crate::measures::Measures;
use crate::minder::{Minder, Orders, Start, Task};
use crate::plan::{self, Port, WantedPort};
use crate::prober::{self, Prober, Question};
use crate::view::{Seen, View};
use crate::{machine, record};

mod books;
mod judge;
mod recover;
mod render;

use books::Books;

/// Everything that the agent hears waits here. Each attempt has few events under way, and who sends
/// waits when it is full.
const INBOX: usize = 1024;

/// Where the agent hears.
pub(crate) type Inbox = mpsc::Sender<Heard>;

/// What the agent hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Something that the domain decides by.
    Input(Input),
    /// An assignment, as it came.
    Assigned(Box<wire::Assignment>),
    /// A supervisor has brought its attempt up, or has failed to.
    Launched(AttemptId, Running),
    /// An attempt has ended, with its last lines of output.
    Ended(AttemptId, Exit, Vec<String>),
    /// What an attempt uses was measured.
    Sampled(AttemptId, wire::AttemptSample),
}

/// What is known of an attempt beside the domain.
#[derive(Debug)]
struct Local {
    assignment: Arc<wire::Assignment>,
    ports: Vec<Port>,
    orders: Option<Orders>,
    ready: Option<Prober>,
    alive: Option<Prober>,
    running: Option<Running>,
    last_lines: Vec<String>,
    sample: Option<wire::AttemptSample>,
    /// Nothing of it runs; why is not yet known.
    exited: bool,
    /// Grows with each change of what is told that the domain does not know.
    revision: u64,
}

impl Local {
    fn new(assignment: Arc<wire::Assignment>, ports: Vec<Port>) -> Self {
        Self {
            assignment,
            ports,
            orders: None,
            ready: None,
            alive: None,
            running: None,
            last_lines: Vec::new(),
            sample: None,
            exited: false,
            revision: 0,
        }
    }

    /// What it runs in, if not as a process.
    fn container(&self, config: &Config) -> Option<Container> {
        plan::container(&self.assignment, &self.ports, &config.docker_socket)
    }
}

/// The agent's state and surroundings.
#[derive(Debug)]
pub(crate) struct Agent {
    config: Arc<Config>,
    context: Context,
    data: Arc<DataDir>,
    groups: Groups,
    books: Books,
    holdings: Holdings,
    locals: BTreeMap<AttemptId, Local>,
    inbox: Inbox,
    heard: mpsc::Receiver<Heard>,
    view: watch::Sender<Arc<View>>,
    advertise_host: String,
    measures: Measures,
    looks: Looks,
}

impl Agent {
    /// The agent with what its last process has left on disk.
    pub(crate) async fn open(
        config: &Arc<Config>,
        context: &Context,
        data: &Arc<DataDir>,
        groups: &Groups,
        advertise_host: &str,
        measures: &Measures,
        looks: Looks,
    ) -> io::Result<Self> {
        let (ledger, facts) = Ledger::open(&data.ledger_path())?;
        let (inbox, heard) = mpsc::channel(INBOX);
        let mut agent = Self {
            config: Arc::clone(config),
            context: context.clone(),
            data: Arc::clone(data),
            groups: groups.clone(),
            books: Books::new(ledger),
            holdings: Holdings::recalled(facts.ended, facts.tokens),
            locals: BTreeMap::new(),
            inbox,
            heard,
            view: watch::Sender::new(Arc::default()),
            advertise_host: advertise_host.to_owned(),
            measures: measures.clone(),
            looks,
        };
        prober::end_left(&data.attempts()?);
        agent.recover().await?;
        agent.show();
        Ok(agent)
    }

    /// Where the agent hears.
    pub(crate) fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// What the agent holds, as it changes.
    pub(crate) fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// Runs until the loops end.
    pub(crate) async fn run(mut self) -> Result<(), String> {
        let stop = self.context.shutdown.reached(ShutdownPhase::Loops);
        tokio::pin!(stop);
        loop {
            let wake = self.wake_at();
            tokio::select! {
                () = &mut stop => return Ok(()),
                heard = self.heard.recv() => match heard {
                    Some(heard) => self.hear(heard),
                    None => return Ok(()),
                },
                () = sleep_until(wake) => self.decide(Input::Tick),
                () = sleep_until(self.books.next_try()), if self.books.is_behind() => {
                    self.books.keep(&[]);
                }
            }
            // What has come meanwhile is taken before anyone is shown anything.
            while let Ok(heard) = self.heard.try_recv() {
                self.hear(heard);
            }
            let before = Arc::clone(&self.view.borrow());
            self.show();
            self.measure(&before);
        }
    }

    /// Notes what has changed, for those who look at numbers.
    fn measure(&self, before: &View) {
        let after = Arc::clone(&self.view.borrow());
        for (id, seen) in &after.attempts {
            let known = before.attempts.get(id);
            let (was_ready, had_ended) = known.map_or((false, false), |known| {
                (
                    known.report.ready_time.is_some(),
                    known.report.end_time.is_some(),
                )
            });
            let Some(attempt) = self.holdings.get(id) else {
                continue;
            };
            if let (false, Some(start), Some(ready)) =
                (was_ready, attempt.start_time(), attempt.ready_time())
            {
                self.measures.note_ready(start, ready);
            }
            let end = attempt.end().filter(|_| seen.has_ended());
            if let (false, Some(end)) = (had_ended, end) {
                let class = convert::class_name(end.class);
                self.measures.note_end(class);
                tracing::info!(attempt = %id, replica = seen.assignment.replica, class, why = end.message, "ended");
            }
        }
        let phases = self.holdings.attempts().values();
        self.measures
            .set_attempts(phases.map(|held| convert::phase_name(held.attempt().phase())));
    }

    fn now(&self) -> Now {
        Now {
            wall: self.context.clock.now(),
            boot: machine::since_boot(),
        }
    }

    fn wake_at(&self) -> Instant {
        let far = Duration::from_secs(3600);
        let wait = self
            .holdings
            .wake_at()
            .map_or(far, |at| at.saturating_sub(machine::since_boot()));
        Instant::now() + wait.min(far)
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Input(input) => self.decide(input),
            Heard::Assigned(assignment) => self.assigned(*assignment),
            Heard::Launched(id, running) => {
                let begun = running.process.and(running.start_time);
                if let Some(local) = self.locals.get_mut(&id) {
                    local.running = Some(running);
                    local.revision += 1;
                }
                if let Some(time) = begun {
                    self.decide(Input::Runs(id, time));
                }
            }
            Heard::Ended(id, exit, lines) => self.ended(id, exit, lines),
            Heard::Sampled(id, sample) => {
                if let Some(local) = self.locals.get_mut(&id) {
                    local.sample = Some(sample);
                    // Told at once only where something is decided by it.
                    local.revision += u64::from(local.assignment.scaling.is_some());
                }
            }
        }
    }

    fn assigned(&mut self, assignment: wire::Assignment) {
        let parsed = match convert::parse_assignment(&assignment) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "an assignment is ignored");
                return;
            }
        };
        let id = parsed.attempt.clone();
        let misfit = plan::misfit(&assignment);
        let assignment = Arc::new(assignment);
        match self.locals.get_mut(&id) {
            // What it runs stays; how it is started, asked and stopped may change.
            Some(local) => {
                let before = std::mem::replace(&mut local.assignment, assignment);
                let now = &local.assignment;
                if before.probes != now.probes {
                    (local.ready, local.alive) = (None, None);
                }
                // What waits has no folder yet.
                if local.orders.is_some()
                    && let Err(error) = keep_terms(&self.data.attempt(&id), &before, now, &parsed)
                {
                    tracing::warn!(attempt = %id, %error, "new terms are not kept");
                }
            }
            None => {
                self.locals.insert(id, Local::new(assignment, Vec::new()));
            }
        }
        self.decide(Input::Assigned(parsed, misfit));
    }

    /// Has the domain decide, and does what it says.
    fn decide(&mut self, input: Input) {
        let told = match &input {
            Input::Forgotten(id) => Some(Entry::Told(id.clone())),
            Input::Assigned(..)
            | Input::Settled(_)
            | Input::Ending(..)
            | Input::Forced(_)
            | Input::Accelerators(_)
            | Input::Superseded
            | Input::Closing
            | Input::Runs(..)
            | Input::Probed(..)
            | Input::Exited(..)
            | Input::Misfit(..)
            | Input::Tick => None,
        };
        let actions = self.holdings.apply(input, self.now());
        let mut entries: Vec<Entry> = told.into_iter().collect();
        entries.extend(actions.iter().filter_map(entry));
        self.books.keep(&entries);
        for action in actions {
            self.act(action);
        }
        self.probe();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::RememberEnded(_) | Action::RememberToken(..) => {}
            Action::Start(id) => {
                if let Err(input) = self.start(&id) {
                    self.decide(*input);
                }
            }
            Action::Stop(id, cause, grace) => self.stop(&id, cause, grace),
            Action::RememberReadiness(id) => {
                let readiness = self
                    .holdings
                    .get(&id)
                    .and_then(|attempt| attempt.readiness());
                if let Some(readiness) = readiness
                    && let Err(error) = record::set_readiness(&self.data.attempt(&id), &readiness)
                {
                    tracing::warn!(attempt = %id, %error, "readiness is not kept");
                }
            }
            Action::Forget(id) => self.forget(&id),
        }
    }

    /// Has it started, or says what has come of it instead.
    fn start(&mut self, id: &AttemptId) -> Result<(), Box<Input>> {
        let misfit = |why: String| Box::new(Input::Misfit(id.clone(), why));
        let not_started = |why: String| {
            let exit = Exit::not_started(why, self.context.clock.now());
            Box::new(Input::Exited(id.clone(), exit))
        };
        let taken: BTreeSet<u16> = self.real_ports();
        let Some(local) = self.locals.get_mut(id) else {
            return Err(misfit("its assignment is gone".to_owned()));
        };
        let dir = self.data.attempt(id);
        if matches!(dir.has_begun(), Ok(true)) {
            // An earlier agent did, and could not tell what it was: nothing is run twice.
            local.ports = record::ports(&dir);
            local.orders = Some(begin_minder(
                &self.config,
                &self.groups,
                &self.context,
                &self.inbox,
                (id, dir),
                local.container(&self.config),
                Task::Adopt,
            ));
            return Ok(());
        }
        // What it was started at has to be known ever after, also to another process.
        self.books.check().map_err(not_started)?;
        let wanted = plan::wanted_ports(&local.assignment).map_err(misfit)?;
        // Another machine may have them.
        local.ports = choose_ports(&self.config, id, &wanted, &taken).map_err(not_started)?;
        let spec = spec_of(
            &self.config,
            &self.data,
            &dir,
            &local.assignment,
            &local.ports,
        )
        .map_err(misfit)?;
        let start = Start {
            spec,
            limits: plan::limits(&local.assignment),
            assignment: Arc::clone(&local.assignment),
            ports: local.ports.clone(),
        };
        tracing::info!(attempt = %id, replica = local.assignment.replica, "starting");
        local.orders = Some(begin_minder(
            &self.config,
            &self.groups,
            &self.context,
            &self.inbox,
            (id, dir),
            start.spec.container.clone(),
            Task::Start(Box::new(start)),
        ));
        Ok(())
    }

    /// The real ports of everything that has not ended.
    fn real_ports(&self) -> BTreeSet<u16> {
        let live = |id: &AttemptId| {
            self.holdings
                .get(id)
                .is_some_and(|attempt| !attempt.is_ended())
        };
        let locals = self.locals.iter().filter(|(id, _)| live(id));
        locals
            .flat_map(|(_, local)| local.ports.iter().map(|port| port.real))
            .collect()
    }

    fn stop(&mut self, id: &AttemptId, cause: StopCause, grace: Duration) {
        if let Some(local) = self.locals.get_mut(id) {
            tracing::info!(attempt = %id, replica = local.assignment.replica, ?cause, ?grace, "stopping");
            (local.ready, local.alive) = (None, None);
            if let Some(orders) = &local.orders {
                orders.stop(cause, grace);
            }
        }
    }

    fn forget(&mut self, id: &AttemptId) {
        self.locals.remove(id);
        let dir = self.data.attempt(id);
        if dir.path().exists()
            && let Err(error) = record::set_forgotten(&dir)
        {
            tracing::warn!(attempt = %id, %error, "an ended attempt is told once more after a restart");
        }
    }

    /// Has probers ask exactly those that are to be asked.
    fn probe(&mut self) {
        for (id, local) in &mut self.locals {
            let Some(attempt) = self.holdings.get(id) else {
                continue;
            };
            let terms = &attempt.assignment().terms;
            let (ready, alive) = match attempt.phase() {
                Phase::Running(_) => (terms.ready, None),
                Phase::Ready | Phase::Unready => (terms.ready, terms.alive),
                Phase::Waiting | Phase::Starting | Phase::Stopping(_) | Phase::Ended(_) => {
                    (None, None)
                }
            };
            let (ready, alive) = (
                ready.filter(|_| !local.exited),
                alive.filter(|_| !local.exited),
            );
            let was_well = attempt.ready_time().is_some();
            let dir = self.data.attempt(id);
            let begin = |kind, terms: Terms, local: &Local| {
                question(&self.config, id, kind, terms, local, &dir).map(|question| {
                    Prober::begin(&self.context.tasks, question, was_well, self.inbox.clone())
                })
            };
            local.ready = match (ready, local.ready.take()) {
                (Some(terms), None) => begin(Kind::Ready, terms, local),
                (Some(_), running) => running,
                (None, _) => None,
            };
            local.alive = match (alive, local.alive.take()) {
                (Some(terms), None) => begin(Kind::Alive, terms, local),
                (Some(_), running) => running,
                (None, _) => None,
            };
        }
    }

    /// Shows everyone what is held, if anything is different.
    fn show(&mut self) {
        let before = Arc::clone(&self.view.borrow());
        let mut attempts = BTreeMap::new();
        for (id, held) in self.holdings.attempts() {
            let Some(local) = self.locals.get(id) else {
                continue;
            };
            if self.books.lack(&held.attempt().assignment().allocation) {
                // Others see what they saw, until its end can be kept.
                let seen = before.attempts.get(id);
                attempts.extend(seen.map(|seen| (id.clone(), Arc::clone(seen))));
                continue;
            }
            let revision = (held.revision(), local.revision);
            let seen = match before.attempts.get(id) {
                Some(seen) if seen.revision == revision && seen.settled == held.is_settled() => {
                    Arc::clone(seen)
                }
                Some(_) | None => {
                    Arc::new(render::seen(held, local, revision, &self.advertise_host))
                }
            };
            attempts.insert(id.clone(), seen);
        }
        let same = |(id, seen): (&AttemptId, &Arc<Seen>)| {
            before
                .attempts
                .get(id)
                .is_some_and(|other| Arc::ptr_eq(seen, other))
        };
        // Both only grow.
        let held_revision = self.holdings.held_revision() + self.books.caught_up();
        let unchanged = before.held_revision == held_revision
            && before.closed == self.holdings.is_closed()
            && before.attempts.len() == attempts.len()
            && attempts.iter().all(same);
        if !unchanged {
            self.view.send_replace(Arc::new(View {
                held: render::held(&self.holdings, &self.books),
                held_revision,
                running: self.holdings.is_running(),
                closed: self.holdings.is_closed(),
                attempts,
            }));
        }
    }
}

/// What of an action stands in the ledger.
fn entry(action: &Action) -> Option<Entry> {
    match action {
        Action::RememberEnded(id) => Some(Entry::Ended(id.clone())),
        Action::RememberToken(gpu, token) => Some(Entry::Token(gpu.clone(), token.clone())),
        Action::Start(_) | Action::Stop(..) | Action::RememberReadiness(_) | Action::Forget(_) => {
            None
        }
    }
}

/// Keeps an assignment whose terms have changed for the next agent, and tells its supervisor what that goes by.
fn keep_terms(
    dir: &AttemptDir,
    before: &wire::Assignment,
    now: &wire::Assignment,
    parsed: &Assignment,
) -> io::Result<()> {
    let told = if before.stop == now.stop {
        Ok(())
    } else {
        dir.set_grace(parsed.terms.stop_grace)
    };
    let terms = (&now.probes, &now.start, &now.stop);
    if (&before.probes, &before.start, &before.stop) == terms {
        return told;
    }
    record::set_assignment(dir, now).and(told)
}

fn begin_minder(
    config: &Config,
    groups: &Groups,
    context: &Context,
    inbox: &Inbox,
    attempt: (&AttemptId, AttemptDir),
    container: Option<Container>,
    task: Task,
) -> Orders {
    minder(config, groups, inbox, attempt, container).begin(context, task)
}

fn minder(
    config: &Config,
    groups: &Groups,
    inbox: &Inbox,
    (id, dir): (&AttemptId, AttemptDir),
    container: Option<Container>,
) -> Minder {
    Minder {
        id: id.clone(),
        dir,
        container,
        groups: groups.clone(),
        supervisor_command: config.supervisor_command.clone(),
        inbox: inbox.clone(),
    }
}

/// Gives every wanted port a real one that is free now.
fn choose_ports(
    config: &Config,
    id: &AttemptId,
    wanted: &[WantedPort],
    taken: &BTreeSet<u16>,
) -> Result<Vec<Port>, String> {
    let mut free = ports::pick(
        &config.ports,
        backoff::seed(id.as_str()),
        wanted.iter().filter(|port| !port.fixed).count(),
        |port| !taken.contains(&port) && is_free(port),
    )
    .into_iter();
    wanted
        .iter()
        .map(|port| {
            let real = if port.fixed {
                let there = !taken.contains(&port.logical) && is_free(port.logical);
                there
                    .then_some(port.logical)
                    .ok_or_else(|| format!("port {} is in use", port.logical))
            } else {
                free.next().ok_or_else(|| "no port is free".to_owned())
            }?;
            Ok(Port {
                logical: port.logical,
                name: port.name.clone(),
                real,
                udp: port.udp,
            })
        })
        .collect()
}

/// Whether nobody on this machine has the port, for TCP or UDP.
fn is_free(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    std::net::TcpListener::bind(address).is_ok() && std::net::UdpSocket::bind(address).is_ok()
}

fn spec_of(
    config: &Config,
    data: &DataDir,
    dir: &AttemptDir,
    assignment: &wire::Assignment,
    ports: &[Port],
) -> Result<Spec, String> {
    let run = plan::run_of(assignment)?;
    let fenced = assignment.on_disconnect() == wire::OnDisconnect::Stop;
    let grace = assignment
        .stop
        .as_ref()
        .and_then(|stop| stop.grace.as_ref());
    let grace = grace.map_or(Duration::from_secs(30), convert::parse_duration);
    let container = plan::container(assignment, ports, &config.docker_socket);
    let (env, working_dir) = match &container {
        None => (
            plan::process_env(assignment, ports, |name| std::env::var(name).ok())?,
            plan::working_dir(assignment).unwrap_or_else(|| dir.work_path()),
        ),
        Some(_) => (
            plan::container_env(assignment, ports)?,
            plan::working_dir(assignment).unwrap_or_default(),
        ),
    };
    Ok(Spec {
        attempt_id: assignment.attempt_id.clone(),
        boot_id: machine::boot_id(),
        launcher_args: launcher_args(config),
        command: run.command.clone(),
        env,
        working_dir,
        accelerators: plan::accelerators(assignment),
        cgroup: None,
        log: config.log,
        stop_grace: grace,
        fence: fenced.then(|| Fence {
            lease: data.lease_path(),
            grace,
        }),
        container,
    })
}

/// What stands before a supervisor's own arguments.
fn launcher_args(config: &Config) -> Vec<String> {
    let args = config.supervisor_command.iter().skip(1);
    args.map(|arg| arg.to_string_lossy().into_owned()).collect()
}

fn question(
    config: &Config,
    id: &AttemptId,
    kind: Kind,
    terms: Terms,
    local: &Local,
    dir: &AttemptDir,
) -> Option<Question> {
    let probe = match kind {
        Kind::Ready => plan::ready_probe(&local.assignment),
        Kind::Alive => plan::alive_probe(&local.assignment),
    }?;
    let env = plan::process_env(&local.assignment, &local.ports, |name| {
        std::env::var(name).ok()
    });
    Some(Question {
        attempt: id.clone(),
        kind,
        target: plan::target(probe, &local.ports).ok()?,
        terms,
        working_dir: plan::working_dir(&local.assignment).unwrap_or_else(|| dir.work_path()),
        env: env.unwrap_or_default(),
        container: plan::container(&local.assignment, &local.ports, &config.docker_socket),
    })
}
