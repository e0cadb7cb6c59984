//! A container engine on this machine, asked through its socket (the Docker Engine API, which
//! podman speaks too). It decides nothing; every call is one connection, and whoever waits for an
//! answer decides for how long.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::attempt_dir::Container;

mod frames;

pub(crate) use frames::{Frames, Output};

/// The most that an answer may bring, but for streams, in bytes.
const ANSWER_BYTES: usize = 4 << 20;

/// Marks what is ours, with the attempt's id.
pub(crate) const LABEL: &str = "dev.muster.attempt";

/// Why the engine did not do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no engine, or it is down.
    #[error("no container engine answers at {socket}: {error}")]
    Unreachable {
        /// Where it was looked for.
        socket: String,
        /// What is wrong.
        #[source]
        error: io::Error,
    },
    /// It says no.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// In the engine's words.
        message: String,
    },
    /// The connection broke, or the answer cannot be read.
    #[error("the container engine does not answer well: {0}")]
    Broken(String),
}

impl Error {
    /// Whether the engine says that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }

    fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::CONFLICT)
    }
}

/// How a container is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct State {
    /// It runs.
    pub(crate) running: bool,
    /// Its first process on this machine; 0 is none.
    pub(crate) pid: i32,
    /// How it ended.
    pub(crate) exit_code: i32,
    /// The kernel killed it for using too much memory.
    #[serde(rename = "OOMKilled")]
    pub(crate) oom_killed: bool,
    /// Why it could not start.
    pub(crate) error: String,
}

/// The engine behind a socket. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    socket: PathBuf,
}

/// An answer whose body still comes. Its connection ends when it is dropped.
pub(crate) struct Streamed {
    pub(crate) body: Incoming,
    connection: JoinSet<()>,
}

impl Engine {
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// What the engine says of itself.
    pub(crate) async fn version(&self) -> Result<String, Error> {
        let answer = self.get("/version").await?;
        Ok(answer["Version"]
            .as_str()
            .unwrap_or("of an unknown version")
            .to_owned())
    }

    /// Whether an image is here.
    pub(crate) async fn has_image(&self, image: &str) -> Result<bool, Error> {
        match self.get(&format!("/images/{}/json", encode(image))).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Brings an image here.
    pub(crate) async fn pull(&self, image: &str) -> Result<(), Error> {
        let (name, tag) = split_tag(image);
        let path = format!(
            "/images/create?fromImage={}&tag={}",
            encode(name),
            encode(tag)
        );
        let streamed = self.stream(Method::POST, &path, None).await?;
        let told = streamed.lines().await?;
        // The status is sent before it is known whether the image can be had.
        let failed = told.iter().find_map(|line| line["error"].as_str());
        failed.map_or(Ok(()), |why| {
            Err(Error::Refused {
                status: StatusCode::NOT_FOUND,
                message: why.to_owned(),
            })
        })
    }

    /// Makes a container, in place of a leftover of the same name; its id comes back.
    pub(crate) async fn create(&self, name: &str, body: &Value) -> Result<String, Error> {
        let path = format!("/containers/create?name={}", encode(name));
        let created = match self.post(&path, Some(body)).await {
            Err(error) if error.is_conflict() => {
                self.remove(name).await?;
                self.post(&path, Some(body)).await?
            }
            other => other?,
        };
        let id = created["Id"].as_str();
        id.map(str::to_owned)
            .ok_or_else(|| Error::Broken("a container without an id".to_owned()))
    }

    pub(crate) async fn start(&self, id: &str) -> Result<(), Error> {
        self.post(&format!("/containers/{id}/start"), None)
            .await
            .map(|_| ())
    }

    /// Sends a signal by its name. A container that has ended is no error.
    pub(crate) async fn kill(&self, id: &str, signal: &str) -> Result<(), Error> {
        match self
            .post(&format!("/containers/{id}/kill?signal={signal}"), None)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits until a container does not run.
    pub(crate) async fn wait(&self, id: &str) -> Result<(), Error> {
        self.post(&format!("/containers/{id}/wait"), None)
            .await
            .map(|_| ())
    }

    /// How a container is.
    pub(crate) async fn state(&self, id: &str) -> Result<State, Error> {
        let mut answer = self.get(&format!("/containers/{id}/json")).await?;
        serde_json::from_value(answer["State"].take())
            .map_err(|error| Error::Broken(error.to_string()))
    }

    /// The output of a container, from a time in seconds since the Unix epoch, as it comes: each piece with the time
    /// when it was written before it.
    pub(crate) async fn logs(&self, id: &str, since: u64) -> Result<Streamed, Error> {
        let path =
            format!("/containers/{id}/logs?follow=1&stdout=1&stderr=1&timestamps=1&since={since}");
        self.stream(Method::GET, &path, None).await
    }

    /// Removes a container, running or not. One that is gone is no error.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), Error> {
        let path = format!("/containers/{}?force=1&v=1", encode(id));
        match self.call(Method::DELETE, &path, None).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The containers that are ours or another agent's, running or not: their ids and attempts.
    pub(crate) async fn of_attempts(&self) -> Result<Vec<(String, String)>, Error> {
        let filters = json!({"label": [LABEL]}).to_string();
        let path = format!("/containers/json?all=1&filters={}", encode(&filters));
        let found = self.get(&path).await?;
        let word = |value: &Value| value.as_str().map(str::to_owned);
        let containers = found.as_array().into_iter().flatten();
        Ok(containers
            .filter_map(|one| word(&one["Id"]).zip(word(&one["Labels"][LABEL])))
            .collect())
    }

    /// Runs a command in a container; its exit code, and what it wrote to standard error, at most
    /// 64 KiB of it.
    pub(crate) async fn execute(
        &self,
        id: &str,
        command: &[String],
    ) -> Result<(i64, String), Error> {
        let body = json!({"Cmd": command, "AttachStdout": true, "AttachStderr": true});
        let made = self
            .post(&format!("/containers/{}/exec", encode(id)), Some(&body))
            .await?;
        let exec = made["Id"]
            .as_str()
            .ok_or_else(|| Error::Broken("an exec without an id".to_owned()))?;
        let body = json!({"Detach": false, "Tty": false});
        let streamed = self
            .stream(Method::POST, &format!("/exec/{exec}/start"), Some(&body))
            .await?;
        let said = streamed.standard_error(64 * 1024).await?;
        let state = self.get(&format!("/exec/{exec}/json")).await?;
        Ok((state["ExitCode"].as_i64().unwrap_or(-1), said))
    }

    async fn get(&self, path: &str) -> Result<Value, Error> {
        self.call(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        self.call(Method::POST, path, body).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let streamed = self.stream(method, path, body).await?;
        let bytes = streamed.whole().await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| Error::Broken(error.to_string()))
    }

    /// Sends a request; the answer's body comes as it is read.
    async fn stream(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Streamed, Error> {
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|error| Error::Unreachable {
                    socket: self.socket.display().to_string(),
                    error,
                })?;
        let broken = |error: hyper::Error| Error::Broken(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            // Its failure is seen by whoever reads the answer.
            let _ = connection.await;
        });
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "engine")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Error::Broken(error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let streamed = Streamed {
            body: answer.into_body(),
            connection: connections,
        };
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(streamed);
        }
        let bytes = streamed.whole().await.unwrap_or_default();
        Err(refusal(status, &bytes))
    }
}

impl Streamed {
    async fn whole(self) -> Result<Bytes, Error> {
        let Self { body, connection } = self;
        let collected = Limited::new(body, ANSWER_BYTES).collect().await;
        drop(connection);
        collected
            .map(|all| all.to_bytes())
            .map_err(|error| Error::Broken(error.to_string()))
    }

    /// JSON values, one a line, to the end; what is told beyond some thousand is dropped.
    async fn lines(mut self) -> Result<Vec<Value>, Error> {
        let (mut left, mut values) = (Vec::new(), Vec::new());
        while let Some(bytes) = self.next().await? {
            left.extend_from_slice(&bytes);
            while let Some(end) = left.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = left.drain(..=end).collect();
                values.extend(
                    serde_json::from_slice::<Value>(&line)
                        .ok()
                        .filter(is_notable),
                );
            }
            if left.len() > ANSWER_BYTES || values.len() > 1000 {
                return Err(Error::Broken("an answer without an end".to_owned()));
            }
        }
        values.extend(serde_json::from_slice(&left).ok());
        Ok(values)
    }

    async fn standard_error(mut self, most: usize) -> Result<String, Error> {
        let (mut frames, mut said) = (Frames::default(), Vec::new());
        while let Some(bytes) = self.next().await? {
            frames.add(&bytes);
            while let Some((output, text)) = frames.take() {
                if output == Output::Err && said.len() < most {
                    said.extend_from_slice(&text);
                }
            }
        }
        said.truncate(most);
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// The next bytes of the body; nothing at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| Error::Broken(error.to_string()))?;
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// Progress is not: it comes by the thousand.
fn is_notable(value: &Value) -> bool {
    value.get("error").is_some()
}

fn refusal(status: StatusCode, body: &[u8]) -> Error {
    let told: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = match told["message"].as_str() {
        Some(message) => message.to_owned(),
        None => format!("status {status}"),
    };
    Error::Refused { status, message }
}

/// What is to be created of a container's spec.
pub(crate) fn body(
    attempt: &str,
    container: &Container,
    command: &[String],
    env: &[(String, String)],
    working_dir: &Path,
) -> Value {
    let env: Vec<String> = env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let port = |(inside, _, protocol): &(u16, u16, String)| format!("{inside}/{protocol}");
    let exposed: Value = container
        .ports
        .iter()
        .map(|one| (port(one), json!({})))
        .collect();
    let published: Value = container
        .ports
        .iter()
        .map(|one| (port(one), json!([{"HostPort": one.1.to_string()}])))
        .collect();
    let mounts: Vec<Value> = container.mounts.iter().map(mount).collect();
    let mut body = json!({
        "Image": container.image,
        "Env": env,
        "Labels": {LABEL: attempt},
        "ExposedPorts": exposed,
        "HostConfig": {
            "PortBindings": published,
            "Mounts": mounts,
            "Init": true,
            "NanoCpus": container.cpu_milli.saturating_mul(1_000_000),
            "Memory": container.memory_bytes,
            "MemorySwap": container.memory_bytes,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "8m", "max-file": "2"}},
        },
    });
    if !command.is_empty() {
        body["Cmd"] = json!(command);
    }
    if !working_dir.as_os_str().is_empty() {
        body["WorkingDir"] = json!(working_dir);
    }
    if !container.gpu_uuids.is_empty() {
        body["HostConfig"]["DeviceRequests"] = json!([{
            "Driver": "nvidia",
            "DeviceIDs": container.gpu_uuids,
            "Capabilities": [["gpu"]],
        }]);
    }
    body
}

fn mount(mount: &crate::attempt_dir::Mount) -> Value {
    json!({
        "Type": "bind",
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.read_only,
    })
}

/// An image's name, and its tag: "latest" if none is given, and none with a digest.
fn split_tag(image: &str) -> (&str, &str) {
    if image.contains('@') {
        return (image, "");
    }
    match image.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        Some(_) | None => (image, "latest"),
    }
}

/// A text as it may stand in a path's segment or a query's value.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt_dir::Mount;

    #[test]
    fn an_image_has_one_tag() {
        for (image, expected) in [
            ("alpine", ("alpine", "latest")),
            ("alpine:3.20", ("alpine", "3.20")),
            ("registry:5000/a/b", ("registry:5000/a/b", "latest")),
            ("registry:5000/a/b:1", ("registry:5000/a/b", "1")),
            ("alpine@sha256:abc", ("alpine@sha256:abc", "")),
        ] {
            assert_eq!(split_tag(image), expected);
        }
        assert_eq!(encode("a/b:1?x=y z&"), "a/b:1%3Fx%3Dy%20z%26");
    }

    #[test]
    fn a_container_is_limited_labelled_and_published() {
        let container = Container {
            socket: "/s".into(),
            name: "muster-abc.0.1".into(),
            image: "image".into(),
            ports: vec![(8000, 20_001, "tcp".into())],
            mounts: vec![Mount {
                source: "/models".into(),
                target: "/m".into(),
                read_only: true,
            }],
            gpu_uuids: vec!["GPU-1".into()],
            cpu_milli: 1500,
            memory_bytes: 64 << 20,
        };
        let env = [("A".to_owned(), "1=2".to_owned())];
        let body = body(
            "abc.0.1",
            &container,
            &["serve".to_owned()],
            &env,
            Path::new("/w"),
        );
        let host = &body["HostConfig"];
        assert_eq!(body["Labels"][LABEL], "abc.0.1");
        assert_eq!(body["Env"], json!(["A=1=2"]));
        assert_eq!(body["Cmd"], json!(["serve"]));
        assert_eq!(body["WorkingDir"], "/w");
        assert_eq!(host["PortBindings"]["8000/tcp"][0]["HostPort"], "20001");
        assert_eq!(host["NanoCpus"], 1_500_000_000_i64);
        assert_eq!(host["Memory"], 64 << 20);
        assert_eq!(host["Mounts"][0]["ReadOnly"], true);
        assert_eq!(host["DeviceRequests"][0]["DeviceIDs"], json!(["GPU-1"]));
        let plain = Container {
            gpu_uuids: vec![],
            ..container
        };
        let body = super::body("abc.0.1", &plain, &[], &[], Path::new(""));
        assert!(body.get("Cmd").is_none() && body.get("WorkingDir").is_none());
        assert!(body["HostConfig"].get("DeviceRequests").is_none());
    }
}
