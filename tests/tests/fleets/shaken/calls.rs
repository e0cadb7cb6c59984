//! What operators ask for meanwhile: of services each by a hand of its own, which knows what is meant to be,
//! and of workers by one that takes them as they are.

use std::{net::SocketAddr, time::Duration};

use muster_proto::{
    replicas::v1::{
        CreateServiceRequest, DeleteServiceRequest, EnvVar, GetServiceRequest, OnDisconnect,
        RestartReplicaRequest, RestartServiceRequest, RetryPolicy, RollbackServiceRequest,
        ScaleServiceRequest, Service, ServiceSpec, StartServiceRequest, StopServiceRequest,
        UpdatePolicy, UpdateServiceRequest, env_var::Source,
        replicas_service_client::ReplicasServiceClient,
    },
    workers::v1::{
        AfterDeadline, DisableWorkerRequest, DrainWorkerRequest, EnableWorkerRequest,
        ListWorkersRequest, ResumeWorkerRequest, WorkerState,
        workers_service_client::WorkersServiceClient,
    },
};
use muster_tests::fleet::{
    full_replacement, process::channel, retry_every, span, witness::Witness,
};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Request, Status, transport::Channel};

use super::{
    PATIENCE, Story,
    draw::Draw,
    expected::{Expected, Wish},
    processes::TAG,
};

/// How long an operator waits for an answer.
const IN_TIME: Duration = Duration::from_secs(3);

/// Long enough for a call that was given up to have had its effect, if it has one.
const SETTLED: Duration = Duration::from_millis(700);

/// A request that is waited for no longer than an operator would.
pub(super) fn in_time<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(IN_TIME);
    request
}

/// Whether nobody has answered, so that nobody knows what came of it.
pub(super) fn is_away(status: &Status) -> bool {
    // The last two are what the library says of a connection that ends under a call.
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Aborted
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Cancelled
    )
}

/// A service that is asked for this and that.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) expected: Expected,
    pub(super) witness: Witness,
    pub(super) on_disconnect: OnDisconnect,
    retry: Option<RetryPolicy>,
    accelerators: i32,
    manager: SocketAddr,
    draw: Draw,
    story: Story,
}

impl Asked {
    /// One that is not there yet.
    pub(super) fn drawn(name: &str, seed: u64, manager: SocketAddr, story: &Story) -> Self {
        let mut draw = Draw::new(seed, name);
        let millis = draw.weighed(&[(1, None), (1, Some(0)), (2, Some(500)), (1, Some(2000))]);
        let retry = millis.and_then(|millis| retry_every(Duration::from_millis(millis)));
        let asked = Self {
            expected: Expected::nothing(name, retry.is_none()),
            witness: Witness::new(&story.folder, name),
            on_disconnect: *draw.one(&[OnDisconnect::Keep, OnDisconnect::Stop]),
            retry,
            accelerators: draw.weighed(&[(3, 1), (1, 2)]),
            manager,
            draw,
            story: story.clone(),
        };
        story.tell(&format!(
            "{name} has {:?}, retries after {millis:?} ms, takes {}",
            asked.on_disconnect, asked.accelerators
        ));
        asked
    }

    fn client(&self) -> ReplicasServiceClient<Channel> {
        ReplicasServiceClient::new(channel(self.manager))
    }

    fn spec(&mut self, tag: &str, replicas: i32) -> ServiceSpec {
        let name = &self.expected.name;
        let mut spec = self.witness.spec(name, replicas, self.retry.clone());
        spec.on_disconnect = self.on_disconnect.into();
        let (surge, unavailable) = *self.draw.one(&[(1, 0), (1, 1), (2, 0)]);
        spec.update = Some(UpdatePolicy {
            max_surge: Some(surge),
            max_unavailable: Some(unavailable),
            min_ready: span(Duration::from_millis(500)),
            ..UpdatePolicy::default()
        });
        spec.run.as_mut().unwrap().env.push(EnvVar {
            name: TAG.to_owned(),
            source: Some(Source::Value(tag.to_owned())),
        });
        let gpus = &mut spec.resources.as_mut().unwrap().gpu_any_of[0];
        gpus.count.as_mut().unwrap().min = Some(self.accelerators);
        spec
    }

    /// Asks for one thing after the other until a time.
    pub(super) async fn ask_until(&mut self, end: Instant) {
        while Instant::now() < end {
            let wish = self.expected.wish(&mut self.draw);
            self.ask(&wish).await;
            let pause = self.draw.span(50..2000);
            sleep_until(end.min(Instant::now() + pause)).await;
        }
    }

    /// Asks for something, and learns what has come of it.
    pub(super) async fn ask(&mut self, wish: &Wish) {
        let spec = if let Wish::Create { tag, replicas } | Wish::Apply { tag, replicas } = wish {
            Some(self.spec(tag, *replicas))
        } else {
            None
        };
        let begun = Instant::now();
        loop {
            let answer = self.call(wish, spec.clone()).await;
            let name = &self.expected.name;
            let said = match &answer {
                Ok(_) => "granted".to_owned(),
                Err(status) => format!("{:?}: {}", status.code(), status.message()),
            };
            self.story.tell(&format!("{name}: {wish:?}: {said}"));
            match answer {
                Ok(service) => return self.expected.granted(wish, service.as_ref()),
                Err(status) if is_away(&status) => {
                    // What has an id can be asked for again, and is done once.
                    if spec.is_none() || self.draw.chance(0.5) {
                        let there = self.there().await;
                        return self.expected.found(wish, there.as_ref());
                    }
                    assert!(begun.elapsed() < PATIENCE, "no answer: {status}");
                    sleep(Duration::from_millis(100)).await;
                }
                Err(status) => {
                    let right = self.expected.may_refuse(wish, &status);
                    assert!(right, "{wish:?} of {:#?}: {status}", self.expected);
                    return;
                }
            }
        }
    }

    /// The service as it is once nothing that was asked before has an effect any more.
    async fn there(&self) -> Option<Service> {
        let begun = Instant::now();
        let mut settled = false;
        loop {
            let request = GetServiceRequest {
                name: self.expected.name.clone(),
                ..GetServiceRequest::default()
            };
            let answer = self.client().get_service(in_time(request)).await;
            match answer {
                Ok(answer) if settled => return answer.into_inner().service,
                Err(status) if status.code() == Code::NotFound && settled => return None,
                Err(status) if is_away(&status) => settled = false,
                Err(status) if status.code() != Code::NotFound => panic!("{status}"),
                Ok(_) | Err(_) => settled = true,
            }
            assert!(begun.elapsed() < PATIENCE, "the manager does not answer");
            sleep(SETTLED).await;
        }
    }

    async fn call(
        &self,
        wish: &Wish,
        spec: Option<ServiceSpec>,
    ) -> Result<Option<Service>, Status> {
        let name = self.expected.name.clone();
        let mut client = self.client();
        macro_rules! of_service {
            ($method:ident, $request:ident { $($field:ident),* $(,)? }) => {{
                let request = $request { $($field,)* ..Default::default() };
                let answer = client.$method(in_time(request)).await;
                answer.map(|answer| answer.into_inner().service)
            }};
        }
        match wish {
            Wish::Create { tag, .. } => {
                let request_id = tag.clone();
                of_service!(create_service, CreateServiceRequest { spec, request_id })
            }
            Wish::Apply { tag, .. } => {
                let request_id = tag.clone();
                let apply = full_replacement(spec.unwrap_or_default());
                let request = UpdateServiceRequest {
                    request_id,
                    ..apply
                };
                let answer = client.update_service(in_time(request)).await;
                answer.map(|answer| answer.into_inner().service)
            }
            Wish::Scale(replicas) => {
                let replicas = *replicas;
                of_service!(scale_service, ScaleServiceRequest { name, replicas })
            }
            Wish::Restart => of_service!(restart_service, RestartServiceRequest { name }),
            Wish::RestartReplica(ordinal) => {
                let id = format!("{name}/{ordinal}");
                let restart = RestartReplicaRequest {
                    id,
                    ..Default::default()
                };
                client.restart_replica(in_time(restart)).await.map(|_| None)
            }
            Wish::Stop => of_service!(stop_service, StopServiceRequest { name }),
            Wish::Start => of_service!(start_service, StartServiceRequest { name }),
            Wish::Rollback => of_service!(rollback_service, RollbackServiceRequest { name }),
            Wish::Delete => of_service!(delete_service, DeleteServiceRequest { name }),
        }
    }
}

/// What is asked of a worker.
#[derive(Debug, Clone, Copy)]
enum Order {
    Wait(u64),
    Force(u64),
    Resume,
    Disable,
    DisableByForce,
    Enable,
}

/// Asks for this and that of workers until a time.
pub(super) async fn order_until(end: Instant, registry: SocketAddr, seed: u64, story: &Story) {
    let mut draw = Draw::new(seed, "workers");
    loop {
        let pause = draw.span(300..2500);
        sleep_until(end.min(Instant::now() + pause)).await;
        if Instant::now() >= end {
            return;
        }
        let mut client = WorkersServiceClient::new(channel(registry));
        let listed = client
            .list_workers(in_time(ListWorkersRequest::default()))
            .await;
        let workers = match listed {
            Ok(listed) => listed.into_inner().workers,
            Err(status) if is_away(&status) => continue,
            Err(status) => panic!("{status}"),
        };
        let worker = draw.one(&workers);
        let order = drawn_order(&mut draw, worker.state());
        let answer = order_of(&worker.name, order, client).await;
        let said = answer
            .as_ref()
            .map_or_else(|status| format!("{status}"), |()| "done".to_owned());
        let (name, state) = (&worker.name, worker.state());
        story.tell(&format!("{name}, which was {state:?}: {order:?}: {said}"));
        if let Err(status) = answer {
            let refused = status.code() == Code::FailedPrecondition;
            assert!(refused || is_away(&status), "{order:?} of {name}: {status}");
        }
    }
}

fn drawn_order(draw: &mut Draw, state: WorkerState) -> Order {
    let soon = u64::try_from(draw.number(1..5)).unwrap();
    match state {
        WorkerState::Active | WorkerState::Provisioning | WorkerState::Unspecified => {
            draw.weighed(&[
                (4, Order::Wait(soon)),
                (3, Order::Force(soon)),
                (1, Order::Disable),
                (2, Order::DisableByForce),
                (1, Order::Resume),
            ])
        }
        WorkerState::Draining => draw.weighed(&[
            (5, Order::Resume),
            (2, Order::Wait(soon)),
            (2, Order::Force(soon)),
            (1, Order::DisableByForce),
            (1, Order::Enable),
        ]),
        WorkerState::Disabled => draw.weighed(&[(9, Order::Enable), (1, Order::Resume)]),
    }
}

async fn order_of(
    name: &str,
    order: Order,
    mut client: WorkersServiceClient<Channel>,
) -> Result<(), Status> {
    let name = name.to_owned();
    match order {
        Order::Wait(seconds) | Order::Force(seconds) => {
            let then = if matches!(order, Order::Force(_)) {
                AfterDeadline::Force
            } else {
                AfterDeadline::Wait
            };
            let drain = DrainWorkerRequest {
                name,
                deadline: span(Duration::from_secs(seconds)),
                max_parallel: 2,
                after_deadline: then.into(),
                ..Default::default()
            };
            client.drain_worker(in_time(drain)).await.map(drop)
        }
        Order::Resume => resume(client, name).await,
        Order::Disable | Order::DisableByForce => {
            let force = matches!(order, Order::DisableByForce);
            let disable = DisableWorkerRequest {
                name,
                force,
                ..Default::default()
            };
            client.disable_worker(in_time(disable)).await.map(drop)
        }
        Order::Enable => enable(client, name).await,
    }
}

/// Calls a drain off.
pub(super) async fn resume(
    mut client: WorkersServiceClient<Channel>,
    name: String,
) -> Result<(), Status> {
    let resume = ResumeWorkerRequest {
        name,
        ..Default::default()
    };
    client.resume_worker(in_time(resume)).await.map(drop)
}

/// Puts a worker back to use.
pub(super) async fn enable(
    mut client: WorkersServiceClient<Channel>,
    name: String,
) -> Result<(), Status> {
    let enable = EnableWorkerRequest {
        name,
        ..Default::default()
    };
    client.enable_worker(in_time(enable)).await.map(drop)
}
