//! A container engine made by hand: it speaks as much of the Docker Engine API as the agent does,
//! and its containers are processes of this machine.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use muster_runtime::task::Tasks;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use worker_agent::machine;

type Body = BoxBody<Bytes, Infallible>;

/// A connection that ends without an answer.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("broken")
    }
}

impl std::error::Error for Broken {}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) images: Vec<String>,
    /// Images that can be pulled.
    pub(crate) registry: Vec<String>,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) removed: Vec<String>,
    /// What runs does not show whose it is.
    pub(crate) hides: bool,
    /// It goes away in the middle of the next start, whose container runs.
    pub(crate) breaks: bool,
    /// It does not say how a container is.
    pub(crate) mute: bool,
    /// Nobody finds it, and what it was telling breaks off.
    away: bool,
    execs: BTreeMap<String, (Vec<String>, Option<i32>)>,
}

#[derive(Default)]
pub(crate) struct Container {
    pub(crate) body: Value,
    pub(crate) pid: i32,
    pub(crate) exit: Option<i32>,
    output: Vec<Entry>,
}

/// A piece of output: a line, or what there was of one.
#[derive(Clone)]
struct Entry {
    time: SystemTime,
    stream: u8,
    text: Vec<u8>,
}

impl Entry {
    /// As it is sent, on request with its time before it.
    fn frame(&self, is_stamped: bool) -> Vec<u8> {
        let stamp = if is_stamped {
            format!("{} ", prost_types::Timestamp::from(self.time))
        } else {
            String::new()
        };
        frame(self.stream, &[stamp.as_bytes(), &self.text].concat())
    }
}

#[derive(Clone)]
pub(crate) struct Engine {
    state: Arc<Mutex<State>>,
    tasks: Tasks,
    pub(crate) socket: PathBuf,
}

impl Engine {
    pub(crate) fn start(tasks: &Tasks, folder: &Path) -> Self {
        let engine = Self {
            state: Arc::default(),
            tasks: tasks.clone(),
            socket: folder.join("engine.sock"),
        };
        let listener = UnixListener::bind(&engine.socket).unwrap();
        let accepting = engine.clone();
        tasks.spawn("engine", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let engine = accepting.clone();
                let service = hyper::service::service_fn(move |request| {
                    let engine = engine.clone();
                    async move { engine.serve(request).await.ok_or(Broken) }
                });
                let io = TokioIo::new(stream);
                accepting.tasks.spawn("engine connection", async move {
                    let serving =
                        hyper::server::conn::http1::Builder::new().serve_connection(io, service);
                    let _ = serving.await;
                });
            }
        });
        engine
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Nobody finds it any more.
    pub(crate) fn leave(&self) {
        self.state().away = true;
        std::fs::rename(&self.socket, self.socket.with_extension("away")).unwrap();
    }

    pub(crate) fn come_back(&self) {
        self.state().away = false;
        std::fs::rename(self.socket.with_extension("away"), &self.socket).unwrap();
    }

    /// The answer; nothing if the connection breaks.
    async fn serve(&self, request: Request<Incoming>) -> Option<Response<Body>> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        Some(match (&method, parts.as_slice()) {
            (&Method::GET, ["version"]) => ok(&json!({"Version": "hand-made"})),
            (&Method::GET, ["images", image @ .., "json"]) => {
                let image = image.join("/");
                if self.state().images.contains(&image) {
                    ok(&json!({"Id": image}))
                } else {
                    refused(StatusCode::NOT_FOUND, &format!("No such image: {image}"))
                }
            }
            (&Method::POST, ["images", "create"]) => self.pull(&query),
            (&Method::POST, ["containers", "create"]) => self.create(&query, body),
            (&Method::GET, ["containers", "json"]) => self.list(),
            (&Method::POST, ["containers", id, "start"]) => {
                let started = self.start_container(id);
                let breaks = self.state().breaks;
                if breaks {
                    self.leave();
                    return None;
                }
                started
            }
            (&Method::POST, ["containers", id, "kill"]) => self.kill(id, &query),
            (&Method::POST, ["containers", id, "wait"]) => self.wait(id).await,
            (&Method::GET, ["containers", id, "json"]) => {
                while self.state().mute {
                    sleep(Duration::from_millis(5)).await;
                }
                self.inspect(id)
            }
            (&Method::GET, ["containers", id, "logs"]) => self.logs(id, &query),
            (&Method::DELETE, ["containers", id]) => self.remove(id),
            (&Method::POST, ["containers", _, "exec"]) => {
                let command: Vec<String> = serde_json::from_value(body["Cmd"].clone()).unwrap();
                let mut state = self.state();
                let id = format!("exec-{}", state.execs.len());
                state.execs.insert(id.clone(), (command, None));
                ok(&json!({"Id": id}))
            }
            (&Method::POST, ["exec", id, "start"]) => self.execute(id).await,
            (&Method::GET, ["exec", id, "json"]) => {
                ok(&json!({"ExitCode": self.state().execs[*id].1}))
            }
            _ => refused(StatusCode::NOT_IMPLEMENTED, &format!("{method} {path}")),
        })
    }

    fn list(&self) -> Response<Body> {
        let state = self.state();
        let each = |(id, container): (&String, &Container)| json!({"Id": id, "Labels": container.body["Labels"]});
        ok(&state.containers.iter().map(each).collect())
    }

    fn pull(&self, query: &str) -> Response<Body> {
        let image = format!("{}:{}", value(query, "fromImage"), value(query, "tag"));
        let mut state = self.state();
        let progress = "{\"status\":\"Pulling\"}\r\n".repeat(3);
        if state.registry.contains(&image) {
            state.images.push(image);
            return whole(StatusCode::OK, progress);
        }
        whole(
            StatusCode::OK,
            format!(
                "{progress}{}",
                json!({"error": format!("pull access denied for {image}")})
            ),
        )
    }

    fn create(&self, query: &str, body: Value) -> Response<Body> {
        let name = value(query, "name");
        let mut state = self.state();
        let image = body["Image"].as_str().unwrap();
        let tagged = if image.contains(':') {
            image.to_owned()
        } else {
            format!("{image}:latest")
        };
        if !state.images.contains(&tagged) && !state.images.contains(&image.to_owned()) {
            return refused(StatusCode::NOT_FOUND, &format!("No such image: {image}"));
        }
        if state.containers.contains_key(&name) {
            return refused(StatusCode::CONFLICT, "the name is in use");
        }
        let container = Container {
            body,
            pid: 0,
            exit: None,
            output: vec![],
        };
        state.containers.insert(name.clone(), container);
        ok(&json!({"Id": name}))
    }

    fn start_container(&self, id: &str) -> Response<Body> {
        let body = self.state().containers[id].body.clone();
        let command: Vec<String> = serde_json::from_value(body["Cmd"].clone()).unwrap_or_default();
        let mut env: Vec<String> = serde_json::from_value(body["Env"].clone()).unwrap();
        if self.state().hides {
            env.clear();
        }
        let Some((program, args)) = command.split_first() else {
            return refused(StatusCode::BAD_REQUEST, "No command specified");
        };
        let child = Command::new(program)
            .args(args)
            .env_clear()
            .envs(env.iter().map(|one| one.split_once('=').unwrap()))
            .env("PATH", "/usr/bin:/bin")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(child) = child else {
            let message = format!("exec: {program:?}: executable file not found in $PATH: unknown");
            return refused(StatusCode::BAD_REQUEST, &message);
        };
        self.watch(id, child);
        whole(StatusCode::NO_CONTENT, String::new())
    }

    fn watch(&self, id: &str, mut child: Child) {
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        self.state().containers.get_mut(id).unwrap().pid = pid;
        let out = self.tasks.spawn(
            "output",
            read(self.clone(), id.to_owned(), 1, child.stdout.take().unwrap()),
        );
        let err = self.tasks.spawn(
            "output",
            read(self.clone(), id.to_owned(), 2, child.stderr.take().unwrap()),
        );
        let (engine, id) = (self.clone(), id.to_owned());
        self.tasks.spawn("container", async move {
            let status = child.wait().await.unwrap();
            // Whatever is left of a container ends with its first process.
            let _ = kill_process_group(Pid::from_raw(pid).unwrap(), Signal::KILL);
            let _ = (out.await, err.await);
            use std::os::unix::process::ExitStatusExt as _;
            let code = status.code().or(status.signal().map(|signal| 128 + signal));
            if let Some(container) = engine.state().containers.get_mut(&id) {
                container.exit = code;
            }
        });
    }

    fn kill(&self, id: &str, query: &str) -> Response<Body> {
        let state = self.state();
        let Some(container) = state.containers.get(id) else {
            return refused(StatusCode::NOT_FOUND, "no such container");
        };
        if container.pid == 0 || container.exit.is_some() {
            return refused(StatusCode::CONFLICT, "it does not run");
        }
        let signal = if value(query, "signal") == "SIGKILL" {
            Signal::KILL
        } else {
            Signal::TERM
        };
        let _ = kill_process_group(Pid::from_raw(container.pid).unwrap(), signal);
        whole(StatusCode::NO_CONTENT, String::new())
    }

    async fn wait(&self, id: &str) -> Response<Body> {
        loop {
            match self
                .state()
                .containers
                .get(id)
                .map(|container| container.exit)
            {
                None => return refused(StatusCode::NOT_FOUND, "no such container"),
                Some(Some(code)) => return ok(&json!({"StatusCode": code})),
                Some(None) => {}
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn inspect(&self, id: &str) -> Response<Body> {
        let state = self.state();
        let Some(container) = state.containers.get(id) else {
            return refused(StatusCode::NOT_FOUND, "no such container");
        };
        ok(&json!({"State": {
            "Running": container.pid != 0 && container.exit.is_none(),
            "Pid": container.pid,
            "ExitCode": container.exit.unwrap_or(0),
            "OOMKilled": container.exit == Some(99),
            "Error": "",
        }}))
    }

    fn logs(&self, id: &str, query: &str) -> Response<Body> {
        let (sender, receiver) = mpsc::channel(16);
        let (engine, id) = (self.clone(), id.to_owned());
        let since = SystemTime::UNIX_EPOCH
            + Duration::from_secs(value(query, "since").parse().unwrap_or(0));
        let is_stamped = value(query, "timestamps") == "1";
        self.tasks.spawn("logs", async move {
            let mut sent = 0;
            loop {
                let (entries, over) = {
                    let state = engine.state();
                    let container = state.containers.get(&id);
                    let Some(container) = container.filter(|_| !state.away) else {
                        return;
                    };
                    (container.output[sent..].to_vec(), container.exit.is_some())
                };
                sent += entries.len();
                let asked_for = entries.iter().filter(|entry| entry.time >= since);
                let bytes: Vec<u8> = asked_for
                    .flat_map(|entry| entry.frame(is_stamped))
                    .collect();
                // In pieces that have nothing to do with frames.
                for piece in bytes.chunks(7) {
                    let frame = Frame::data(Bytes::copy_from_slice(piece));
                    if sender.send(Ok::<_, Infallible>(frame)).await.is_err() {
                        return;
                    }
                }
                if over {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        Response::new(BodyExt::boxed(StreamBody::new(ReceiverStream::new(
            receiver,
        ))))
    }

    fn remove(&self, id: &str) -> Response<Body> {
        let mut state = self.state();
        let Some(container) = state.containers.remove(id) else {
            return refused(StatusCode::NOT_FOUND, "no such container");
        };
        if container.pid != 0 && container.exit.is_none() {
            let _ = kill_process_group(Pid::from_raw(container.pid).unwrap(), Signal::KILL);
        }
        state.removed.push(id.to_owned());
        whole(StatusCode::NO_CONTENT, String::new())
    }

    async fn execute(&self, id: &str) -> Response<Body> {
        let command = self.state().execs[id].0.clone();
        let output = Command::new(&command[0])
            .args(&command[1..])
            .output()
            .await
            .unwrap();
        self.state().execs.get_mut(id).unwrap().1 = output.status.code();
        let bytes = [frame(1, &output.stdout), frame(2, &output.stderr)].concat();
        Response::new(Full::new(Bytes::from(bytes)).boxed())
    }
}

async fn read(engine: Engine, id: String, stream: u8, mut pipe: impl AsyncRead + Unpin) {
    let mut buffer = [0; 4096];
    while let Ok(1..) = pipe.read(&mut buffer).await.inspect(|read| {
        if let Some(container) = engine.state().containers.get_mut(&id) {
            let lines = buffer[..*read].split_inclusive(|byte| *byte == b'\n');
            container.output.extend(lines.map(|text| Entry {
                time: machine::wall_time(),
                stream,
                text: text.to_vec(),
            }));
        }
    }) {}
}

fn frame(stream: u8, text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[stream, 0, 0, 0][..], &length, text].concat()
}

fn value(query: &str, name: &str) -> String {
    let pair = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    pair.unwrap_or_default().to_owned()
}

fn ok(body: &Value) -> Response<Body> {
    whole(StatusCode::OK, body.to_string())
}

fn refused(status: StatusCode, message: &str) -> Response<Body> {
    whole(status, json!({"message": message}).to_string())
}

fn whole(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = status;
    response
}
