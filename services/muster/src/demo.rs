//! `muster demo`: the product's story, told on a real stack of its own. Each
//! step shows what it promises, measures it, and fails the demo if it does not
//! come out.

mod service;
mod step;

use std::time::Duration;

use muster_model::gpu_syntax;
use muster_proto::{
    agents::v1::{GetAgentRequest, agents_service_client::AgentsServiceClient},
    offers::v1::ListOffersRequest,
    replicas::v1::{Replica, ReplicaPhase, ServicePhase},
    types::v1::{GpuRequest, Requirements},
    workers::v1::{DrainWorkerRequest, WorkerFilter, WorkerState},
};
use muster_runtime::signals::{Hangup, Signals};
use rustix::process::{Pid, Signal, kill_process};

use self::{
    service::Observed,
    step::{Step, millis},
};
use crate::{
    args::Format,
    commands::{live, offers, ps, services, workers},
    failure::Failure,
    session::{Component, Session},
    stack::{Options, Ports, Stack},
};

/// A service that is restarted when it fails: three replicas, close together, so
/// that one worker holds them all.
const CHAT: &str = r#"
name: chat
replicas: 3
run:
  command: "echo serving on port $PORT; exec sleep 3600"
  ports: [8000]
resources: {gpu: "H100:1"}
placement: {spread: none}
retry: {max_duration: 1h, interval: 1s}
update: {min_ready: 1s}
stop: {grace: 2s}
"#;

/// A service without `retry`: its first failure ends it.
const BATCH: &str = r#"
name: batch
replicas: 2
run:
  command: "echo loading the model; exec sleep 3600"
stop: {grace: 2s}
"#;

/// How long a step may wait for what it shows.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells the story. Interrupted, it removes what it began; a second time, it ends at once.
pub(crate) async fn run() -> Result<(), Failure> {
    let mut signals = Signals::listen(Hangup::Ends)?;
    let folder = tempfile::tempdir()?;
    let mut step = Step::new("Start three services and three workers, on an embedded store");
    let gpus = gpu_syntax::parse("H100:8").map_err(|error| Failure::Failed(error.to_string()))?;
    let options = Options {
        data: folder.path().to_owned(),
        workers: 3,
        gpus: Some(gpus),
        catalog: None,
        ports: Ports::Free,
        supervisor: None,
    };
    let stack = Stack::start(&options).await?;
    let session = stack.session(Format::Table)?;
    let told = tokio::select! {
        told = Box::pin(tell(&session, &mut step)) => told,
        signal = signals.next() => Err(Failure::Interrupted(format!("the demo was ended by {signal}"))),
    };
    if let Err(failure) = &told {
        let interrupted = matches!(failure, Failure::Interrupted(_));
        step.say(match interrupted {
            true => "interrupted; what was begun is removed",
            false => "the step above did not come out; what was begun is removed",
        });
    }
    let end = async {
        if told.is_err() {
            clear_away(&session).await;
        }
        stack.stop().await
    };
    let stopped = tokio::select! {
        stopped = end => stopped,
        signal = signals.next() => return Err(Failure::Interrupted(format!("ended at once by {signal}"))),
    };
    told?;
    step.next("Stop everything");
    step.say(&format!(
        "every component ended within its budget, after {}",
        millis(stopped?)
    ));
    step.end();
    Ok(())
}

/// Removes what a story that broke off has left running.
async fn clear_away(session: &Session) {
    for name in ["chat", "batch"] {
        // It may not have been applied, or be on its way out already.
        let _ = service::remove(session, name, PATIENCE).await;
    }
}

async fn tell(session: &Session, step: &mut Step) -> Result<(), Failure> {
    active_workers(session, 3).await?;
    step.say(&format!(
        "serving, with three ACTIVE workers of 8 simulated GPUs each, after {}",
        step.took()
    ));

    step.next("Find the ten cheapest machines with an H100");
    cheapest(session, step).await?;

    step.next("Apply a service of three replicas that are restarted when they fail");
    let chat = service::apply(session, CHAT).await?;
    step.spec(CHAT);
    service::until(session, &chat, ServicePhase::Healthy, PATIENCE).await?;
    step.say(&format!("HEALTHY, 3 of 3 ready, after {}", step.took()));
    table(session, "chat").await?;

    step.next("Kill a replica's process");
    kill_and_recover(session, step, &chat).await?;

    step.next("Drain the worker that holds most");
    drain(session, step, &chat).await?;

    step.next("Apply a service without `retry`, and kill one of its replicas");
    Box::pin(fail_fast(session, step)).await?;

    step.next("Remove both services");
    for service in [&chat.name, "batch"] {
        service::remove(session, service, PATIENCE).await?;
    }
    step.say(&format!(
        "their processes have ended, after {}",
        step.took()
    ));
    Ok(())
}

async fn active_workers(session: &Session, wanted: usize) -> Result<(), Failure> {
    let watched = workers::Workers {
        filter: WorkerFilter::default(),
    };
    let mut active = std::collections::BTreeSet::new();
    let watch = live::follow(session, &watched, |changes| {
        for (name, worker) in changes {
            if worker.is_some_and(|worker| worker.state() == WorkerState::Active) {
                active.insert(name);
            }
        }
        Ok(if active.len() >= wanted {
            live::Flow::Done
        } else {
            live::Flow::GoOn
        })
    });
    step::within(PATIENCE, "three workers did not become ACTIVE", watch).await
}

async fn cheapest(session: &Session, step: &Step) -> Result<(), Failure> {
    let needs = Requirements {
        gpu_any_of: vec![GpuRequest {
            names: vec!["H100".to_owned()],
            ..GpuRequest::default()
        }],
        ..Requirements::default()
    };
    let request = ListOffersRequest {
        filter: Some(muster_proto::offers::v1::OfferFilter {
            requirements: Some(needs),
            ..Default::default()
        }),
        page_size: 10,
        ..ListOffersRequest::default()
    };
    let answer = session
        .call(Component::Gateway, session.offers().list_offers(request))
        .await?;
    let asked = step.took();
    step::check(
        answer.offers.len() == 10,
        "fewer than ten offers of an H100 were found",
    )?;
    session.print_table(&offers::offers_table(&answer.offers, false))?;
    step.say(&format!(
        "10 of {} offers, answered in {asked}; by backend:",
        answer.total_size
    ));
    for report in &answer.backends {
        let words = offers::trouble(report).unwrap_or_else(|| {
            format!(
                "{}: {} of {} offers match",
                report.backend, report.offers_matched, report.offers_total
            )
        });
        step.say(&format!("  {words}"));
    }
    Ok(())
}

async fn table(session: &Session, service: &str) -> Result<(), Failure> {
    let replicas = ps::list(session, vec![service.to_owned()]).await?.replicas;
    session.print_table(&ps::table(session, &mut replicas.iter()))
}

/// Kills the process of a ready replica with SIGKILL, as a crash would end it.
async fn kill(session: &Session, service: &str) -> Result<String, Failure> {
    let replicas = ps::list(session, vec![service.to_owned()]).await?.replicas;
    let ready = |replica: &&Replica| replica.phase() == ReplicaPhase::Ready;
    let none = || Failure::Failed(format!("{service} has no ready replica to kill"));
    let victim = replicas.iter().find(ready).ok_or_else(none)?;
    let attempt = victim.attempt.clone().unwrap_or_default();
    let worker = workers::get(session, &attempt.worker)
        .await?
        .worker
        .unwrap_or_default();
    let channel = session.channel_to(&worker.agent_address)?;
    let agent = AgentsServiceClient::new(channel)
        .get_agent(GetAgentRequest {})
        .await?
        .into_inner();
    let running = agent
        .attempts
        .iter()
        .find(|running| running.attempt_id == attempt.id);
    let pid = running
        .and_then(|running| Pid::from_raw(running.pid))
        .ok_or_else(none)?;
    kill_process(pid, Signal::KILL).map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(format!(
        "{}, process {} on {}",
        victim.id,
        pid.as_raw_nonzero(),
        worker.name
    ))
}

async fn kill_and_recover(session: &Session, step: &Step, chat: &Observed) -> Result<(), Failure> {
    let degraded = service::until(session, chat, ServicePhase::Degraded, PATIENCE);
    let (seen, killed) = tokio::join!(degraded, async {
        // The watch is open before the kill, so that nothing is missed.
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill(session, &chat.name).await
    });
    step.say(&format!("killed {}", killed?));
    step.say(&format!("DEGRADED: {}", seen?.reason));
    let healthy = service::until(session, chat, ServicePhase::Healthy, PATIENCE).await?;
    step.say(&format!(
        "HEALTHY again after {}, {}",
        step.took(),
        healthy.words()
    ));
    step.say("its siblings were not touched, and its next attempt came after `interval`: 1 s");
    table(session, &chat.name).await
}

async fn drain(session: &Session, step: &Step, chat: &Observed) -> Result<(), Failure> {
    let replicas = ps::list(session, vec![chat.name.clone()]).await?.replicas;
    let mut held = std::collections::BTreeMap::<String, usize>::new();
    for replica in &replicas {
        *held
            .entry(replica.attempt.clone().unwrap_or_default().worker)
            .or_default() += 1;
    }
    let most = held.into_iter().max_by_key(|(_, held)| *held);
    let (worker, held) = most.ok_or_else(|| Failure::Failed("chat runs nowhere".to_owned()))?;
    step.say(&format!("{worker} holds {held} of 3 replicas"));
    let request = DrainWorkerRequest {
        name: worker.clone(),
        reason: "the demo wants it empty".to_owned(),
        ..DrainWorkerRequest::default()
    };
    let least = service::least_ready(session, chat);
    let drained = async {
        session
            .call(Component::Registry, session.workers().drain_worker(request))
            .await?;
        until_disabled(session, step, &worker).await
    };
    let (drained, least) = step::first(drained, least).await;
    drained?;
    step.say(&format!(
        "DISABLED after {}; never fewer than {least} replicas were ready",
        step.took()
    ));
    step::check(least >= 3, "the drain took ready replicas below three")?;
    table(session, &chat.name).await
}

async fn until_disabled(session: &Session, step: &Step, name: &str) -> Result<(), Failure> {
    let filter = WorkerFilter {
        names: vec![name.to_owned()],
        ..WorkerFilter::default()
    };
    let watched = workers::Workers { filter };
    let mut left = i32::MAX;
    let watch = live::follow(session, &watched, |changes| {
        for worker in changes.into_iter().filter_map(|(_, worker)| worker) {
            let holds = worker.usage.unwrap_or_default().allocations;
            if holds < left {
                left = holds;
                step.say(&format!(
                    "{name} is {}, {left} left",
                    workers::state(&worker)
                ));
            }
            if worker.state() == WorkerState::Disabled {
                return Ok(live::Flow::Done);
            }
        }
        Ok(live::Flow::GoOn)
    });
    step::within(PATIENCE, &format!("{name} was not DISABLED in time"), watch).await
}

async fn fail_fast(session: &Session, step: &Step) -> Result<(), Failure> {
    let batch = service::apply(session, BATCH).await?;
    step.spec(BATCH);
    service::until(session, &batch, ServicePhase::Healthy, PATIENCE).await?;
    let killed = kill(session, &batch.name).await?;
    step.say(&format!("killed {killed}"));
    let failed = service::until(session, &batch, ServicePhase::Failed, PATIENCE).await?;
    step.say("FAILED, because:");
    for line in failed.reason.lines() {
        step.say(&format!("  {line}"));
    }
    step::check(
        failed.reason.contains("batch/"),
        "the reason does not name the replica",
    )?;
    let service = services::get(session, &batch.name).await?;
    session.print(&format!("on failure: {}\n", services::mode(&service)))
}
