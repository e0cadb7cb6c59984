//! The whole stack in one process: the three components and some agents, each
//! with surroundings of its own, over the same calls as between machines. It
//! decides where they listen and keep their state; never what they do.

mod part;

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use muster_model::requirements::GpuRequest;
use muster_runtime::{
    connect::{Connector, Endpoints, Options as Dialling},
    server::Listeners,
};
use muster_store::{Options as StoreOptions, Spec, Store};
use tokio::time::Instant;

use self::part::Part;
use crate::{
    args::Format,
    failure::Failure,
    session::{Addresses, Component, Session},
};

/// How long a caller of the gateway waits for one backend, unless it says so itself.
const BACKEND_TIMEOUT: Duration = Duration::from_secs(3);

/// How long it may say at most.
const MAX_BACKEND_TIMEOUT: Duration = Duration::from_secs(30);

/// What a stack is made of.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Where state is kept.
    pub(crate) data: PathBuf,
    /// How many workers there are.
    pub(crate) workers: u16,
    /// Declared, simulated GPUs of each; none is what the machine has, for the first.
    pub(crate) gpus: Option<GpuRequest>,
    /// Makes each DIR/*/vms.csv a backend.
    pub(crate) catalog: Option<PathBuf>,
    /// Where they listen.
    pub(crate) ports: Ports,
    /// What supervises a replica; none is this very program.
    pub(crate) supervisor: Option<Vec<OsString>>,
}

/// Where the parts of a stack listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// On the ports that the documentation names; agents after the first on free ones.
    Documented,
    /// On free ports, so that a stack disturbs no other.
    Free,
}

/// A running stack.
pub(crate) struct Stack {
    gateway: Part,
    registry: Part,
    manager: Part,
    agents: Vec<Part>,
}

impl Stack {
    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(options: &Options) -> Result<Self, Failure> {
        let registry = registry(options).await?;
        let gateway = gateway(options, &registry).await?;
        let manager = manager(options, &gateway, &registry).await?;
        let mut stack = Self {
            gateway,
            registry,
            manager,
            agents: Vec::new(),
        };
        for number in 1..=options.workers {
            stack
                .agents
                .push(agent(options, number, &stack.registry, &stack.manager).await?);
        }
        for part in stack.parts() {
            part.ready().await?;
        }
        Ok(stack)
    }

    /// The parts, in the order in which they are stopped: nobody outlives whom it calls.
    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.agents
            .iter()
            .chain([&self.manager, &self.gateway, &self.registry])
    }

    /// A session with this stack.
    pub(crate) fn session(&self, format: Format) -> Result<Session, Failure> {
        let addresses = Addresses {
            gateway: self.gateway.endpoints()?,
            registry: self.registry.endpoints()?,
            manager: self.manager.endpoints()?,
        };
        Ok(Session::new(
            addresses,
            Connector::new(Dialling::default()),
            format,
        ))
    }

    /// Where each part is: its name, its gRPC and its ops address.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr, Option<SocketAddr>)> {
        let components = [&self.gateway, &self.registry, &self.manager];
        components
            .into_iter()
            .chain(&self.agents)
            .map(|part| (part.name(), part.grpc(), part.ops()))
    }

    /// Ends when a part has failed, with what it said.
    pub(crate) async fn failed(&self) -> Failure {
        let ends = self.parts().map(|part| Box::pin(part.failed()));
        futures_util::future::select_all(ends).await.0
    }

    /// Stops everything, agents first, and says how long it took. A part that did
    /// not end well is a failure, and stops none of the others.
    pub(crate) async fn stop(&self) -> Result<Duration, Failure> {
        let began = Instant::now();
        let mut unwell = Vec::new();
        futures_util::future::join_all(self.agents.iter().map(Part::stop))
            .await
            .into_iter()
            .for_each(|stopped| unwell.extend(stopped.err()));
        for part in [&self.manager, &self.gateway, &self.registry] {
            unwell.extend(part.stop().await.err());
        }
        match unwell.into_iter().next() {
            None => Ok(began.elapsed()),
            Some(failure) => Err(failure),
        }
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

async fn listeners(ports: Ports, name: &str, grpc: u16) -> Result<Listeners, Failure> {
    let (grpc, ops) = match ports {
        Ports::Documented => (address(grpc), address(grpc + 10)),
        Ports::Free => (address(0), address(0)),
    };
    Listeners::bind(grpc, Some(ops)).await.map_err(|error| {
        Failure::Failed(format!(
            "{name} cannot listen on {grpc} and {ops}: {error}; is a stack running already?"
        ))
    })
}

async fn open_store(name: &str, spec: &Spec, options: StoreOptions) -> Result<Store, Failure> {
    let opened = Store::open(spec, options).await;
    opened.map_err(|error| Failure::Failed(format!("{name}: {error}")))
}

fn make_folder(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)
        .map_err(|error| Failure::Failed(format!("{}: {error}", folder.display())))
}

/// A component's own file in the folder of the stack.
fn store_file(data: &Path, name: &str) -> Result<Spec, Failure> {
    let folder = data.join(name);
    make_folder(&folder)?;
    Ok(Spec::Embedded(folder.join("store.db")))
}

async fn registry(options: &Options) -> Result<Part, Failure> {
    let name = Component::Registry.name();
    let spec = store_file(&options.data, name)?;
    let listeners = listeners(options.ports, name, 7401).await?;
    let config = worker_registry::Config {
        insecure_join: true,
        ..Default::default()
    };
    let options = worker_registry::store_options(&spec, &config);
    let store = open_store(name, &spec, options).await?;
    let (context, at) = part::surroundings(name, &listeners);
    part::close_with(&context, store.clone());
    let serving = worker_registry::serve(config, context.clone(), store, listeners);
    Ok(Part::start(name.to_owned(), context, at, serving))
}

async fn gateway(options: &Options, registry: &Part) -> Result<Part, Failure> {
    let name = Component::Gateway.name();
    let listeners = listeners(options.ports, name, 7400).await?;
    let args = offers_gateway::config::Args {
        store: None,
        data: Some(options.data.join(name)),
        catalog: options.catalog.clone(),
        workers_addr: Some(registry.endpoints()?),
        backend_timeout: BACKEND_TIMEOUT,
        max_backend_timeout: MAX_BACKEND_TIMEOUT,
    };
    let config = offers_gateway::Config::new(args).map_err(Failure::Usage)?;
    make_folder(&options.data.join(name))?;
    let store = open_store(name, &config.store, StoreOptions::default()).await?;
    let (context, at) = part::surroundings(name, &listeners);
    part::close_with(&context, store.clone());
    let serving = offers_gateway::serve(config, None, context.clone(), store, listeners);
    Ok(Part::start(name.to_owned(), context, at, serving))
}

async fn manager(options: &Options, gateway: &Part, registry: &Part) -> Result<Part, Failure> {
    let name = Component::Manager.name();
    let listeners = listeners(options.ports, name, 7402).await?;
    let spec = store_file(&options.data, name)?;
    let store = open_store(name, &spec, StoreOptions::default()).await?;
    let config = replica_manager::Serving::new(registry.endpoints()?, gateway.endpoints()?);
    let (context, at) = part::surroundings(name, &listeners);
    part::close_with(&context, store.clone());
    let (surroundings, serving) = (context.clone(), config);
    let serving =
        async move { Ok(replica_manager::serve(serving, surroundings, store, listeners).await?) };
    Ok(Part::start(name.to_owned(), context, at, serving))
}

/// The declared GPUs of a worker; none is what the machine has, which is offered once.
fn declared_gpus(declared: Option<&GpuRequest>, worker: u16) -> Option<GpuRequest> {
    match declared {
        Some(declared) => Some(declared.clone()),
        None if worker == 1 => None,
        None => Some(GpuRequest::default()),
    }
}

async fn agent(
    options: &Options,
    number: u16,
    registry: &Part,
    manager: &Part,
) -> Result<Part, Failure> {
    let name = format!("w{number}");
    let ports = if number == 1 {
        options.ports
    } else {
        Ports::Free
    };
    let listeners = listeners(ports, &name, 7403).await?;
    let (workers, replicas): (Endpoints, Endpoints) = (registry.endpoints()?, manager.endpoints()?);
    let data = options.data.join("workers").join(&name);
    let mut config = worker_agent::config::Config::new(&name, data, workers, replicas);
    config.simulated_gpus = declared_gpus(options.gpus.as_ref(), number);
    if let Some(supervisor) = &options.supervisor {
        config.supervisor_command = supervisor.clone();
    }
    let (context, at) = part::surroundings("worker-agent", &listeners);
    let serving = worker_agent::serve(config, context.clone(), listeners);
    Ok(Part::start(name, context, at, serving))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_has_is_offered_by_the_first_worker() {
        assert_eq!(declared_gpus(None, 1), None);
        let none = GpuRequest::default();
        assert_eq!(declared_gpus(None, 2), Some(none));
        let declared = muster_model::gpu_syntax::parse("H100:8").unwrap();
        for worker in [1, 2] {
            let gpus = declared_gpus(Some(&declared), worker);
            assert_eq!(gpus.as_ref(), Some(&declared));
        }
    }
}
