//! Who may call what: every method of every component, in every role, over the wire. The table here
//! is what is wanted, and says nothing of how the components come to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use muster_proto::{
    replicas::v1::{
        ReportReplicasRequest, WatchAssignmentsRequest,
        assignments_service_client::AssignmentsServiceClient,
    },
    types::v1::ErrorReason,
    workers::v1::{
        ActivateWorkerRequest, DrainWorkerRequest, GetWorkerRequest, HeartbeatRequest,
        RegisterWorkerRequest, workers_service_client::WorkersServiceClient,
    },
};
use muster_runtime::status::Details;
use muster_tests::fleet::{self, Process};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use rustix::process::Signal;
use tonic::{
    Code, Request, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

/// The roles of the configuration, and nobody in particular.
const ROLES: [&str; 6] = [
    "anonymous",
    "viewer",
    "operator",
    "admin",
    "component",
    "agent",
];

/// Who looks.
const READ: &[&str] = &["viewer", "operator", "admin", "component"];
/// Who changes things by hand.
const OPERATE: &[&str] = &["operator", "admin"];
/// Who may everything.
const ADMIN: &[&str] = &["admin"];
/// The other components.
const COMPONENT: &[&str] = &["admin", "component"];
/// The programs that stand for machines.
const AGENT: &[&str] = &["admin", "agent"];
/// Everyone who has shown who they are.
const KNOWN: &[&str] = &["viewer", "operator", "admin", "component", "agent"];

/// A service, and its methods by who may call them.
type Service = (
    &'static str,
    &'static [(&'static [&'static str], &'static str)],
);

const OPS: Service = (
    "muster.ops.v1.OpsService",
    &[
        (READ, "GetMaintenance GetStatus ListInstances"),
        (OPERATE, "SetMaintenance"),
        (ADMIN, "StreamBackup"),
    ],
);

const COMPONENTS: [(&str, &[Service]); 4] = [
    (
        "offers-gateway",
        &[
            OPS,
            (
                "muster.offers.v1.OffersService",
                &[
                    (
                        READ,
                        "ListOffers StreamOffers WatchOffers GetOffer ListBackends WatchBackends GetBackend",
                    ),
                    (OPERATE, "RefreshBackend"),
                    (&["operator", "admin", "component"], "ReportOffer"),
                ],
            ),
        ],
    ),
    (
        "worker-registry",
        &[
            OPS,
            (
                "muster.workers.v1.WorkersService",
                &[
                    // A machine that comes for the first time proves itself by its join token.
                    (&["anonymous", "admin", "agent"], "RegisterWorker"),
                    (AGENT, "ActivateWorker Heartbeat"),
                    (KNOWN, "GetWorker GetAllocation GetCredentialKeys"),
                    (
                        READ,
                        "ListWorkers WatchWorkers ListAllocations WatchAllocations ListWorkerEvents WatchWorkerEvents",
                    ),
                    (
                        OPERATE,
                        "UpdateWorker ResumeWorker DisableWorker EnableWorker DeleteWorker ReleaseMassLoss ListJoinTokens",
                    ),
                    (&["operator", "admin", "agent"], "DrainWorker"),
                    (
                        COMPONENT,
                        "ReportDrain Allocate BatchAllocate Release ClaimOwner",
                    ),
                    (ADMIN, "CreateJoinToken RevokeJoinToken"),
                ],
            ),
            (
                "muster.workers.v1.PeerService",
                &[(COMPONENT, "HeardSince Forward WatchObserved")],
            ),
        ],
    ),
    (
        "replica-manager",
        &[
            OPS,
            (
                "muster.replicas.v1.ReplicasService",
                &[
                    (
                        READ,
                        "GetService ListServices WatchServices ListServiceVersions ExplainService GetReplica ListReplicas WatchReplicas ListOrphans ListEvents WatchEvents ReportLoad ListEndpoints WatchEndpoints StreamLogs",
                    ),
                    (
                        OPERATE,
                        "CreateService UpdateService StartService StopService DeleteService ScaleService RestartService RollbackService RestartReplica AdoptOrphan RemoveOrphan",
                    ),
                ],
            ),
            (
                "muster.replicas.v1.AssignmentsService",
                &[(AGENT, "WatchAssignments ReportReplicas")],
            ),
        ],
    ),
    (
        "worker-agent",
        &[
            OPS,
            (
                "muster.agents.v1.AgentsService",
                &[(READ, "StreamLogs GetAgent")],
            ),
        ],
    ),
];

/// The components, each of which knows a token for each role.
struct Guarded {
    folder: tempfile::TempDir,
    running: BTreeMap<&'static str, Process>,
}

impl Guarded {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("auth.toml"), entries(&ROLES[1..])).unwrap();
        let mut guarded = Self {
            folder,
            running: BTreeMap::new(),
        };
        let memory = ["--store=memory:".to_owned()];
        guarded.run("offers-gateway", &[]).await;
        guarded.run("worker-registry", &memory).await;
        guarded.run("replica-manager", &memory).await;
        let data = guarded.folder.path().join("w1").display().to_string();
        let agent = ["--name=w1".to_owned(), format!("--data={data}")];
        guarded.run("worker-agent", &agent).await;
        guarded
    }

    /// Runs a component that reaches no other.
    async fn run(&mut self, name: &'static str, args: &[String]) {
        let at: &Path = self.folder.path();
        let mut all = vec![format!("--config={}", at.join("auth.toml").display())];
        all.extend_from_slice(args);
        let nowhere = "http://127.0.0.1:1".to_owned();
        let environment = [
            ("MUSTER_WORKERS_ADDR", nowhere.as_str()),
            ("MUSTER_REPLICAS_ADDR", nowhere.as_str()),
            ("MUSTER_OFFERS_ADDR", nowhere.as_str()),
        ];
        let program = PathBuf::from(env!("CARGO_BIN_EXE_component"));
        let process =
            fleet::start(&program, at, name, fleet::free_port(), &all, &environment).await;
        self.running.insert(name, process);
    }

    fn channel(&self, name: &str) -> Channel {
        let url = format!("http://{}", self.running[name].address);
        Endpoint::from_shared(url).unwrap().connect_lazy()
    }
}

/// `[[auth]]` for these roles; the token of a role is its name.
fn entries(roles: &[&str]) -> String {
    let mut text = String::new();
    for role in roles {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, role.as_bytes());
        let hash = digest
            .as_ref()
            .iter()
            .fold(String::new(), |mut hash, byte| {
                let _ = write!(hash, "{byte:02x}");
                hash
            });
        let _ = writeln!(
            text,
            "[[auth]]\nname = \"{role}-1\"\nrole = \"{role}\"\ntoken_sha256 = \"{hash}\"\n"
        );
    }
    text
}

fn as_role<T>(role: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if role != "anonymous" {
        let header = MetadataValue::try_from(format!("Bearer {role}")).unwrap();
        request.metadata_mut().insert("authorization", header);
    }
    // For streams that say nothing, and for calls that wait for a component that is not there.
    request.set_timeout(Duration::from_secs(10));
    request
}

/// How the call of `path` with an empty message begins in `role`.
async fn call(channel: &Channel, path: String, role: &str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = path.parse().unwrap();
    let mut answer = client
        .server_streaming(as_role(role, ()), path, codec)
        .await?
        .into_inner();
    // A call that fails before its first message may say so after its headers.
    let first = tokio::time::timeout(Duration::from_millis(1), answer.message());
    match first.await {
        Ok(Err(status)) => Err(status),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

/// Whether the status is the refusal of a role, and not of what was asked.
fn is_refusal(role: &str, status: &Status) -> bool {
    let reason = Details::of(status).reason;
    match role {
        "anonymous" => {
            status.code() == Code::Unauthenticated && status.message().starts_with("no credential")
        }
        _ => status.code() == Code::PermissionDenied && reason == "ROLE_DENIED",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_takes_the_roles_that_it_should_and_no_other() {
    let guarded = Guarded::start().await;
    let mut wrong = Vec::new();
    let mut asked = 0;
    for (component, services) in COMPONENTS {
        let channel = guarded.channel(component);
        let methods = services.iter().flat_map(|(service, methods)| {
            let methods = methods.iter();
            methods.flat_map(move |(allowed, names)| {
                let names = names.split(' ');
                names.map(move |name| (*allowed, format!("/{service}/{name}")))
            })
        });
        for (allowed, path) in methods {
            for role in ROLES {
                let outcome = call(&channel, path.clone(), role).await;
                let refused = outcome
                    .as_ref()
                    .is_err_and(|status| is_refusal(role, status));
                if refused == allowed.contains(&role) {
                    wrong.push(format!("{component} {path} as {role}: {outcome:?}"));
                }
                asked += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{asked} pairs of a method and a role");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_component_shuts_out_at_sighup_who_is_gone_from_its_file() {
    let guarded = Guarded::start().await;
    let method = || "/muster.ops.v1.OpsService/GetMaintenance".to_owned();
    for (component, _) in COMPONENTS {
        let channel = guarded.channel(component);
        call(&channel, method(), "operator").await.unwrap();
    }
    fs::write(
        guarded.folder.path().join("auth.toml"),
        entries(&["viewer"]),
    )
    .unwrap();
    for (component, _) in COMPONENTS {
        let (process, channel) = (&guarded.running[component], guarded.channel(component));
        process.signal(Signal::HUP);
        let taken = "muster_config_reloads_total{outcome=\"taken\"} 1";
        let read = async {
            while !process.get("/metrics").contains(taken) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let read = tokio::time::timeout(Duration::from_secs(60), read).await;
        read.unwrap_or_else(|_| panic!("{component}: {}", process.log()));
        let refused = call(&channel, method(), "operator").await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{component}");
        call(&channel, method(), "viewer").await.unwrap();
    }
}

#[test]
fn the_table_has_every_method_of_the_contract() {
    let files = FileDescriptorSet::decode(muster_proto::DESCRIPTORS).unwrap();
    let mut contract = BTreeSet::new();
    for file in &files.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            // Health is everyone's. Backends are served by others; the managers' peers are not yet.
            let ours = name.starts_with("muster.")
                && name != "muster.backend.v1.BackendService"
                && name != "muster.replicas.v1.PeerService";
            let methods = service.method.iter().filter(|_| ours);
            contract.extend(methods.map(|method| format!("{name}/{}", method.name())));
        }
    }
    let tabled: BTreeSet<String> = COMPONENTS
        .iter()
        .flat_map(|(_, services)| services.iter())
        .flat_map(|(service, methods)| {
            let names = methods.iter().flat_map(|(_, names)| names.split(' '));
            names.map(move |name| format!("{service}/{name}"))
        })
        .collect();
    assert_eq!(tabled, contract);
}

fn not_yourself<T>(outcome: Result<T, Status>, what: &str) {
    let Err(status) = outcome else {
        panic!("{what} was let through");
    };
    let expected = ErrorReason::NotYourself.as_str_name();
    let expected = expected.strip_prefix("ERROR_REASON_").unwrap_or(expected);
    assert_eq!(status.code(), Code::PermissionDenied, "{what}: {status}");
    assert_eq!(Details::of(&status).reason, expected, "{what}: {status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_speaks_only_for_itself() {
    let guarded = Guarded::start().await;
    let other = || "w2".to_owned();
    let mut workers = WorkersServiceClient::new(guarded.channel("worker-registry"));
    // The token is that of `agent-1`, who is no worker called w2.
    let register = RegisterWorkerRequest {
        name: other(),
        ..Default::default()
    };
    not_yourself(
        workers.register_worker(as_role("agent", register)).await,
        "register",
    );
    let activate = ActivateWorkerRequest {
        name: other(),
        ..Default::default()
    };
    not_yourself(
        workers.activate_worker(as_role("agent", activate)).await,
        "activate",
    );
    let beat = HeartbeatRequest {
        name: other(),
        ..Default::default()
    };
    not_yourself(workers.heartbeat(as_role("agent", beat)).await, "heartbeat");
    let get = GetWorkerRequest {
        name: other(),
        ..Default::default()
    };
    not_yourself(workers.get_worker(as_role("agent", get)).await, "get");
    let drain = DrainWorkerRequest {
        name: other(),
        ..Default::default()
    };
    not_yourself(workers.drain_worker(as_role("agent", drain)).await, "drain");

    let mut manager = AssignmentsServiceClient::new(guarded.channel("replica-manager"));
    let watch = WatchAssignmentsRequest {
        worker: other(),
        ..Default::default()
    };
    not_yourself(
        manager.watch_assignments(as_role("agent", watch)).await,
        "watch",
    );
    let report = ReportReplicasRequest {
        worker: other(),
        ..Default::default()
    };
    not_yourself(
        manager.report_replicas(as_role("agent", report)).await,
        "report",
    );
}
