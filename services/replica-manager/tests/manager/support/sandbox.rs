//! The manager with its played surroundings.

use std::time::Duration;

use muster_proto::replicas::v1::replicas_service_client::ReplicasServiceClient;
use muster_proto::replicas::v1::*;
use muster_runtime::connect::{Channel, Endpoints};
use muster_runtime::context::Context;
use muster_runtime::server::Listeners;
use muster_runtime::shutdown::Cause;
use muster_store::Store;
use replica_manager::Serving;

use super::agent::Agent;
use super::registry::Registry;

pub(crate) struct Sandbox {
    pub(crate) registry: Registry,
    pub(crate) agents: Vec<Agent>,
    pub(crate) client: ReplicasServiceClient<Channel>,
    pub(crate) context: Context,
    pub(crate) channel: Channel,
    pub(crate) serving: Serving,
    pub(crate) store: Store,
    /// How long anything that is awaited may take.
    pub(crate) patience: Duration,
}

/// How long anything that is awaited may take, unless a test is of many.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

impl Sandbox {
    /// Workers w1.. with so many slots each.
    pub(crate) async fn start(slots: &[usize]) -> Self {
        Self::with_store(slots, Store::memory()).await
    }

    pub(crate) async fn with_store(slots: &[usize], store: Store) -> Self {
        let registry = Registry::new();
        let serving = serving(&registry).await;
        let mut sandbox = Self::over(&registry, &serving, store).await;
        for (index, slots) in slots.iter().enumerate() {
            let name = format!("w{}", index + 1);
            sandbox.registry.add_worker(&name, *slots, "");
            sandbox
                .agents
                .push(Agent::start(&name, sandbox.channel.clone()));
        }
        sandbox
    }

    /// A manager over a store, without agents, beside others at the same registry.
    pub(crate) async fn over(registry: &Registry, serving: &Serving, store: Store) -> Self {
        let (context, channel) = launch(serving, &store).await;
        Self {
            registry: registry.clone(),
            agents: Vec::new(),
            client: ReplicasServiceClient::new(channel.clone()),
            context,
            channel,
            serving: serving.clone(),
            store,
            patience: PATIENCE,
        }
    }

    pub(crate) async fn stop(&self) {
        self.context
            .shutdown
            .begin(Cause::asked("the test is over"));
        self.context.shutdown.finished().await;
    }

    pub(crate) async fn create(&mut self, spec: ServiceSpec) -> Service {
        let request = CreateServiceRequest {
            spec: Some(spec),
            ..CreateServiceRequest::default()
        };
        let response = self
            .client
            .create_service(request)
            .await
            .unwrap()
            .into_inner();
        response.service.unwrap()
    }

    pub(crate) async fn scale(&mut self, name: &str, replicas: i32) -> Result<(), tonic::Status> {
        let request = ScaleServiceRequest {
            name: name.to_owned(),
            replicas,
            ..ScaleServiceRequest::default()
        };
        self.client.scale_service(request).await.map(drop)
    }

    pub(crate) async fn service(&mut self, name: &str) -> Service {
        let request = GetServiceRequest {
            name: name.to_owned(),
            ..GetServiceRequest::default()
        };
        self.client
            .get_service(request)
            .await
            .unwrap()
            .into_inner()
            .service
            .unwrap()
    }

    pub(crate) async fn replicas(&mut self) -> Vec<Replica> {
        let request = ListReplicasRequest {
            page_size: 1000,
            ..ListReplicasRequest::default()
        };
        self.client
            .list_replicas(request)
            .await
            .unwrap()
            .into_inner()
            .replicas
    }

    pub(crate) async fn endpoints(&mut self, name: &str) -> Vec<Endpoint> {
        let request = ListEndpointsRequest {
            service: name.to_owned(),
            ..ListEndpointsRequest::default()
        };
        self.client
            .list_endpoints(request)
            .await
            .unwrap()
            .into_inner()
            .endpoints
    }

    pub(crate) async fn events(&mut self) -> Vec<String> {
        let request = ListEventsRequest {
            page_size: 1000,
            ..ListEventsRequest::default()
        };
        let events = self
            .client
            .list_events(request)
            .await
            .unwrap()
            .into_inner()
            .events;
        events
            .iter()
            .map(|event| format!("{} {}", event.kind, event.subject))
            .collect()
    }

    /// Waits until the service is in this phase.
    pub(crate) async fn until_phase(&mut self, name: &str, phase: ServicePhase) -> Service {
        let mut last = None;
        let deadline = tokio::time::Instant::now() + self.patience;
        while tokio::time::Instant::now() < deadline {
            let service = self.service(name).await;
            if service.status.as_ref().unwrap().phase == i32::from(phase) {
                return service;
            }
            last = service.status;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{name} is not {phase:?}: {last:?}");
    }

    /// Waits until a test of the replicas holds.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        test: impl Fn(&[Replica]) -> bool,
    ) -> Vec<Replica> {
        let deadline = tokio::time::Instant::now() + self.patience;
        loop {
            let replicas = self.replicas().await;
            if test(&replicas) {
                return replicas;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "not {what}: {replicas:#?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn agent(&self, worker: &str) -> &Agent {
        self.agents
            .iter()
            .find(|agent| agent.worker == worker)
            .unwrap()
    }
}

/// How a manager serves at a registry, with short times.
pub(crate) async fn serving(registry: &Registry) -> Serving {
    let endpoints = registry.serve().await;
    let nowhere: Endpoints = "http://127.0.0.1:1".parse().unwrap();
    let mut serving = Serving::new(endpoints, nowhere);
    serving.terms.leave_first = Duration::from_millis(50);
    serving.report_interval = Duration::from_millis(200);
    serving
}

/// Starts a manager over a store.
pub(crate) async fn launch(serving: &Serving, store: &Store) -> (Context, Channel) {
    let context = Context::for_tests("replica-manager");
    let listeners = Listeners::loopback().await.unwrap();
    let address = listeners.grpc_address();
    let running =
        replica_manager::serve(serving.clone(), context.clone(), store.clone(), listeners);
    context.tasks.spawn("manager", async move {
        running.await.unwrap();
    });
    context.health.until_ready().await;
    let endpoints: Endpoints = format!("http://{address}").parse().unwrap();
    (context.clone(), context.connector.channel(&endpoints))
}

/// A process with a retry at once.
pub(crate) fn spec(name: &str, replicas: i32) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        replicas: Some(ReplicaCount {
            min: Some(replicas),
            max: Some(replicas),
        }),
        run: Some(RunSpec {
            runtime: Some(run_spec::Runtime::Process(ProcessRuntime {})),
            command: vec!["serve".to_owned()],
            ..RunSpec::default()
        }),
        update: Some(UpdatePolicy {
            min_ready: Some(prost_types::Duration {
                seconds: 0,
                nanos: 50_000_000,
            }),
            ..UpdatePolicy::default()
        }),
        ..ServiceSpec::default()
    }
}

pub(crate) fn at_once() -> RetryPolicy {
    RetryPolicy {
        interval: Some(prost_types::Duration::default()),
        ..RetryPolicy::default()
    }
}
