//! What viewers see: everything but the values of an environment, whichever way they ask.

use muster_proto::DESCRIPTORS;
use muster_proto::replicas::v1::*;
use muster_runtime::auth::{Entry, Proof, Role};
use muster_runtime::connect::Channel;
use prost::Message as _;
use prost::bytes::{Buf as _, BufMut as _};
use prost_types::FileDescriptorSet;
use sha2::{Digest as _, Sha256};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

use crate::support::sandbox::{PATIENCE, Sandbox, spec};

const SERVICE: &str = "muster.replicas.v1.ReplicasService";
const SECRET: &str = "s3cr3t-token";

/// Messages as their bytes, whatever they are.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// Everything that a method answers in a role, until `word` is in it or it ends.
async fn answers(
    channel: &Channel,
    role: Role,
    method: &str,
    asked: &[u8],
    word: &str,
) -> Result<Vec<u8>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(asked.to_vec());
    let token = format!("Bearer {}", role.name()).parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    request.set_timeout(PATIENCE);
    let path = format!("/{SERVICE}/{method}").parse().unwrap();
    let answer = client.server_streaming(request, path, Raw).await?;
    let mut messages = answer.into_inner();
    let mut all = Vec::new();
    while !holds(&all, word) {
        match messages.message().await? {
            Some(message) => all.extend(message),
            None => break,
        }
    }
    Ok(all)
}

fn holds(bytes: &[u8], word: &str) -> bool {
    let mut places = bytes.windows(word.len());
    places.any(|place| place == word.as_bytes())
}

/// The methods whose answers have a spec in them.
const WITH_SPEC: [&str; 4] = [
    "GetService",
    "ListServices",
    "WatchServices",
    "ListServiceVersions",
];

/// What a viewer may ask of `chat`; `None` if nothing by this method.
fn question(method: &str) -> Option<Vec<u8>> {
    let chat = || "chat".to_owned();
    Some(match method {
        "ListServices" | "WatchServices" | "ListReplicas" | "WatchReplicas" | "ListOrphans"
        | "ListEvents" | "WatchEvents" => Vec::new(),
        "GetService" => GetServiceRequest {
            name: chat(),
            ..GetServiceRequest::default()
        }
        .encode_to_vec(),
        "ListServiceVersions" => ListServiceVersionsRequest {
            name: chat(),
            ..ListServiceVersionsRequest::default()
        }
        .encode_to_vec(),
        "ExplainService" => ExplainServiceRequest {
            target: Some(explain_service_request::Target::Service(chat())),
            ..ExplainServiceRequest::default()
        }
        .encode_to_vec(),
        "GetReplica" => GetReplicaRequest {
            id: "chat/0".to_owned(),
            ..GetReplicaRequest::default()
        }
        .encode_to_vec(),
        "ReportLoad" => ReportLoadRequest {
            name: chat(),
            reporter: "a viewer".to_owned(),
            ..ReportLoadRequest::default()
        }
        .encode_to_vec(),
        "ListEndpoints" => ListEndpointsRequest {
            service: chat(),
            ..ListEndpointsRequest::default()
        }
        .encode_to_vec(),
        "WatchEndpoints" => WatchEndpointsRequest {
            service: chat(),
            ..WatchEndpointsRequest::default()
        }
        .encode_to_vec(),
        "StreamLogs" => StreamLogsRequest {
            target: chat(),
            ..StreamLogsRequest::default()
        }
        .encode_to_vec(),
        _ => return None,
    })
}

fn methods() -> Vec<String> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let mut services = files.file.iter().flat_map(|file| {
        let services = file.service.iter();
        services.map(|service| (format!("{}.{}", file.package(), service.name()), service))
    });
    let (_, service) = services.find(|(name, _)| name == SERVICE).unwrap();
    let methods = service.method.iter();
    methods.map(|method| method.name().to_owned()).collect()
}

/// From now on callers say who they are; the token of a role is its name.
fn guard(sandbox: &Sandbox) {
    let entry = |role: Role| Entry {
        name: role.name().to_owned(),
        role,
        proof: Proof::Token(Sha256::digest(role.name()).into()),
    };
    let roles = [Role::Viewer, Role::Operator, Role::Admin];
    let entries = roles.into_iter().map(entry).collect();
    sandbox.context.settings.access.replace(entries);
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_see_no_value_of_an_environment() {
    let mut sandbox = Sandbox::start(&[1]).await;
    let mut wanted = spec("chat", 1);
    wanted.run.as_mut().unwrap().env = vec![EnvVar {
        name: "TOKEN".to_owned(),
        source: Some(env_var::Source::Value(SECRET.to_owned())),
    }];
    sandbox.create(wanted).await;
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    guard(&sandbox);
    let channel = sandbox.channel.clone();
    for method in methods() {
        let Some(asked) = question(&method) else {
            let refused = answers(&channel, Role::Viewer, &method, &[], "***").await;
            let code = refused.as_ref().map_err(Status::code);
            assert_eq!(code, Err(Code::PermissionDenied), "{method}: {refused:?}");
            continue;
        };
        let has_spec = WITH_SPEC.contains(&method.as_str());
        for (role, word, other) in [
            (Role::Viewer, "***", SECRET),
            (Role::Operator, SECRET, "***"),
            (Role::Admin, SECRET, "***"),
        ] {
            let until = if has_spec { word } else { "chat" };
            let seen = answers(&channel, role, &method, &asked, until).await;
            let seen = seen.unwrap_or_else(|status| panic!("{method} as {role:?}: {status}"));
            let found = (holds(&seen, word), holds(&seen, other));
            assert_eq!(found, (has_spec, false), "{method} as {role:?}");
        }
    }
    sandbox.stop().await;
}
