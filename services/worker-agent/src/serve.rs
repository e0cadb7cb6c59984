//! Puts the agent together: its folder, its loops, its server, its end.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use muster_proto::agents::v1::agents_service_server::AgentsServiceServer;
use muster_proto::replicas::v1::assignments_service_client::AssignmentsServiceClient;
use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_runtime::args::Reached;
use muster_runtime::connect::{Connector, Credential};
use muster_runtime::context::Context;
use muster_runtime::health::Tier;
use muster_runtime::operations::{File, Operations};
use muster_runtime::server::{Listeners, Server};
use tokio::sync::{mpsc, watch};

use crate::accelerators::Lookout;
use crate::agent::Agent;
use crate::cgroup::Groups;
use crate::checks::Activation;
use crate::config::Config;
use crate::data_dir::{DataDir, Identity};
use crate::grpc::agents::{Agents, METHODS};
use crate::inventory;
use crate::janitor::Janitor;
use crate::machine::nvidia::Nvidia;
use crate::manager::{Reporter, Watcher};
use crate::measures::Measures;
use crate::registry::Registry;
use crate::registry::lease_file::LeaseFile;
use crate::sampler::{Gpus, Sampler};
use crate::shared::Shared;
use crate::standing::Standing;
use crate::terminate::Terminate;

/// Calls that may be made twice with the effect of once, besides those whose names say so.
const IDEMPOTENT: [&str; 4] = [
    "RegisterWorker",
    "ActivateWorker",
    "ReportReplicas",
    "DrainWorker",
];

/// Serves until shutdown: finds again what runs, registers, and runs what is assigned. Several
/// agents may live in one process, each with a folder and listeners of its own.
///
/// The future is boxed, so that what it runs is compiled with this crate, and not once more in each program.
pub fn serve(
    config: Config,
    context: Context,
    listeners: Listeners,
) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(async move {
        let data = DataDir::open(&config.data, &config.name).context("the data directory")?;
        keep_name(&data, &config.name).context("the data directory")?;
        // What runs here needs an agent also on a disk that takes nothing.
        if let Err(error) = context.keep_reports(data.path()) {
            tracing::warn!(%error, "how this run ends will not be told to the next");
        }
        let (data, config) = (Arc::new(data), Arc::new(config));
        let reached = reached(&context, listeners.grpc_address());
        let measures = Measures::new(&context.metrics);
        let groups = Groups::open(&config.cgroup_parent, &config.name, &data);
        let (lookout, looks) = Lookout::open(&config).await;
        let host = &reached.host;
        let agent = Agent::open(&config, &context, &data, &groups, host, &measures, looks)
            .await
            .context("the data directory")?;
        let gpus = lookout.iter().flat_map(Lookout::gpus).cloned().collect();
        let nvidia = Nvidia::new(&config.nvidia_library);
        let shared = Shared {
            standing: Standing::new(inventory::read(&config, gpus)),
            view: agent.view(),
            inbox: agent.inbox(),
            measures,
            config,
            context,
            data,
            groups,
        };
        let context = &shared.context;
        context.tasks.critical("agent", agent.run());
        if let Some(lookout) = lookout {
            let check = context.health.check("accelerators", Tier::Auxiliary);
            let looking = lookout.run(shared.clone(), nvidia.clone(), check);
            context.tasks.critical("accelerators", looking);
        }
        let sampler = Sampler {
            shared: shared.clone(),
            gpus: Gpus::new(nvidia),
        };
        context.tasks.critical("samples", sampler.run());
        let janitor = Janitor {
            shared: shared.clone(),
        };
        context.tasks.critical("janitor", janitor.run());
        talk(&shared, reached).context("the credential")?;
        let operations = Operations::open(context, File::in_folder(shared.data.path())).await?;
        Server::new(context)
            .operations(&operations)
            .methods(METHODS)
            .service(AgentsServiceServer::new(Agents {
                shared: shared.clone(),
            }))
            .serve(listeners)
            .await?;
        shared.groups.close(shared.data).await;
        Ok(())
    })
}

/// Where others reach what is bound, which they ask for the output of replicas.
fn reached(context: &Context, bound: SocketAddr) -> Reached {
    let reached = Reached::of(context.settings.advertise.as_ref(), bound);
    if reached.is_out_of_reach(bound) {
        tracing::warn!(
            advertised = %reached.address,
            %bound,
            "the output of replicas can be read on this machine alone: --listen is of it alone"
        );
    }
    reached
}

/// Starts the loops that talk to the registry and the manager.
fn talk(shared: &Shared, reached: Reached) -> anyhow::Result<()> {
    let Shared {
        config, context, ..
    } = shared;
    let credential = Credential::none();
    if let Some(token) = shared.data.credential()? {
        credential.set(&token)?;
    }
    let connector = connector(context, credential.clone());
    let workers = WorkersServiceClient::new(connector.channel(&config.workers));
    let assignments = AssignmentsServiceClient::new(connector.channel(&config.replicas));
    let (leave, leaving) = mpsc::channel(1);
    let connections = watch::Sender::new(0);
    let check = |name| context.health.check(name, Tier::Auxiliary);

    Terminate {
        shared: shared.clone(),
        client: workers.clone(),
        leave,
    }
    .add_step();
    let reporter = Reporter {
        shared: shared.clone(),
        client: assignments.clone(),
        connections: connections.subscribe(),
    };
    let watcher = Watcher {
        shared: shared.clone(),
        client: assignments,
        check: check("replica-manager"),
        connections,
    };
    let activation = Activation {
        shared: shared.clone(),
        client: workers.clone(),
        check: check("start-up"),
        claims: Arc::default(),
    };
    let registry = Registry {
        shared: shared.clone(),
        client: workers,
        credential,
        presented: true,
        check: check("worker-registry"),
        reached,
        lease: LeaseFile::new(shared.data.lease_path()),
    };
    context.tasks.critical("registry", registry.run(leaving));
    context.tasks.critical("assignments", watcher.run());
    context.tasks.critical("reports", reporter.run());
    context.tasks.critical("activation", activation.run());
    Ok(())
}

/// Marks a new folder as this worker's.
fn keep_name(data: &DataDir, name: &str) -> std::io::Result<()> {
    let identity = data.identity()?;
    if identity.name.is_empty() {
        data.set_identity(&Identity {
            name: name.to_owned(),
            ..identity
        })?;
    }
    Ok(())
}

fn connector(context: &Context, credential: Credential) -> Connector {
    let mut options = context.connector.options().clone();
    for method in IDEMPOTENT {
        options.idempotent = options.idempotent.and(method);
    }
    context
        .connector
        .clone()
        .with_options(options)
        .with_credential(credential)
}
