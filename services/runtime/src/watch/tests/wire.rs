//! The bytes that leave, against those that tonic would have made.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http_body_util::BodyExt as _;
use muster_proto::workers::v1::{
    WatchWorkersRequest, WatchWorkersResponse, Worker, WorkerChange, worker_change,
};
use tonic::body::Body;
use tonic_prost::ProstCodec;

use super::*;

fn worker(name: &str, generation: i64) -> Worker {
    Worker {
        name: name.to_owned(),
        generation,
        ..Worker::default()
    }
}

fn render(event: &Event<Worker>) -> Option<WorkerChange> {
    let worker = Worker::clone(event.resource());
    let change = match event {
        Event::Put(_) => worker_change::Change::Put(worker),
        Event::Deleted(_) => worker_change::Change::Deleted(worker),
        Event::Observed(_) => worker_change::Change::Observed(worker),
    };
    (event.resource().name != "hidden").then_some(WorkerChange {
        change: Some(change),
    })
}

type Answers = BoxStream<'static, Result<WatchWorkersResponse, Status>>;

/// A handler, as generated servers call one.
struct Handler(Hub<Worker>);

impl tonic::server::ServerStreamingService<WatchWorkersRequest> for Handler {
    type Response = WatchWorkersResponse;
    type ResponseStream = Answers;
    type Future = BoxFuture<'static, Result<tonic::Response<Answers>, Status>>;

    fn call(&mut self, request: tonic::Request<WatchWorkersRequest>) -> Self::Future {
        let watch = self
            .0
            .watch(&request.into_inner().resume_token, Filter::all());
        Box::pin(async move { Ok(respond(watch?, render)) })
    }
}

async fn call(hub: &Hub<Worker>, resume_token: &str) -> http::Response<Body> {
    let asked = WatchWorkersRequest {
        resume_token: resume_token.to_owned(),
        ..Default::default()
    };
    let body = prost::Message::encode_to_vec(&asked);
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&body);
    let body = http_body_util::Full::new(bytes::Bytes::from(frame));
    let request = http::Request::builder()
        .header("content-type", "application/grpc")
        .body(body.map_err(|never: Infallible| match never {}))
        .unwrap();
    let codec = ProstCodec::<WatchWorkersResponse, WatchWorkersRequest>::default();
    tonic::server::Grpc::new(codec)
        .server_streaming(Handler(hub.clone()), request)
        .await
}

/// Everything that the response carries until its end.
async fn drain(response: http::Response<Body>) -> (Vec<u8>, http::HeaderMap) {
    let headers = response.headers().clone();
    let collected = response.into_body().collect().await.unwrap();
    let mut trailers = collected.trailers().cloned().unwrap_or_default();
    trailers.extend(headers);
    (collected.to_bytes().to_vec(), trailers)
}

fn busy_hub() -> Hub<Worker> {
    let state = [("a".into(), Arc::new(worker("a", 1)))];
    let hub = Hub::new(
        EPOCH,
        1,
        state,
        Options {
            chunk: 3,
            ..Options::default()
        },
    );
    hub.publish(
        2,
        ["b", "hidden", "c"].map(|name| Update::put(name, worker(name, 2))),
    );
    hub.publish(3, [Update::delete("b")]);
    hub.observe("a", |worker| {
        Some(Worker {
            fenced: true,
            ..worker.clone()
        })
    });
    hub
}

/// Changes longer than a piece, and some that fill pieces together.
fn publish_large(hub: &Hub<Worker>) {
    let reasons = [100_000, 30_000, 40_000, 70_000, 5].map(|size| "x".repeat(size));
    let updates = reasons.map(|state_reason| {
        let name = format!("large-{}", state_reason.len());
        Update::put(
            name.as_str(),
            Worker {
                state_reason,
                ..worker(&name, 4)
            },
        )
    });
    hub.publish(4, updates);
}

#[tokio::test(start_paused = true)]
async fn the_bytes_are_those_that_tonic_would_have_made() {
    for token in [String::new(), token(1), token(2), token(3), token(4)] {
        let hub = busy_hub();
        publish_large(&hub);
        let (plain, handed) = (call(&hub, &token).await, call(&hub, &token).await);
        let handed = hand_over(handed);
        let close = async {
            sleep(Duration::from_secs(40)).await; // time for a bookmark
            hub.close();
        };
        let (plain, handed, ()) = tokio::join!(drain(plain), drain(handed), close);
        assert!(plain.0.len() > 30, "{} bytes", plain.0.len());
        assert_eq!(plain.0, handed.0);
        // The number of a watcher decides when it is to come back; all else is the same.
        let ends = [&plain.1, &handed.1].map(|end| {
            assert_eq!(end["content-type"], "application/grpc");
            let mut details = Details::of(&Status::from_header_map(end).unwrap());
            details.retry_delay = None;
            details
        });
        assert_eq!(ends[0], ends[1]);
        assert_eq!(ends[0].code, Code::Unavailable);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_left_as_it_is() {
    let refused = hand_over(call(&busy_hub(), "nonsense").await);
    assert_eq!(refused.headers()["grpc-status"], "3");
}

#[tokio::test(start_paused = true)]
async fn without_a_server_the_messages_come_decoded() {
    let hub = busy_hub();
    let watch = hub.watch(&token(1), Filter::all()).unwrap();
    let mut answers: Answers = respond(watch, render).into_inner();
    let mut told = Vec::new();
    while told.len() < 4 {
        let answer = answers.next().await.unwrap().unwrap();
        told.extend(
            answer
                .changes
                .into_iter()
                .filter_map(|change| change.change),
        );
        assert_eq!(
            answer.synced,
            !answer.resume_token.is_empty() && told.len() == 4
        );
    }
    assert_eq!(
        told,
        [
            worker_change::Change::Put(worker("b", 2)),
            worker_change::Change::Put(worker("c", 2)),
            worker_change::Change::Deleted(worker("b", 2)),
            worker_change::Change::Observed(Worker {
                fenced: true,
                ..worker("a", 1)
            }),
        ]
    );
    hub.close();
    assert_eq!(
        answers.next().await.unwrap().unwrap_err().code(),
        Code::Unavailable
    );
    assert!(answers.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_change_is_rendered_once_for_all_watchers() {
    let state = [("z".into(), Arc::new(worker("z", 0)))];
    let hub: Hub<Worker> = Hub::new(EPOCH, 0, state, Options::default());
    let rendered = Arc::new(AtomicUsize::new(0));
    let mut watches: Vec<_> = (0..50)
        .map(|_| {
            let count = Arc::clone(&rendered);
            let answers: Answers = respond(hub.watch("", Filter::all()).unwrap(), move |event| {
                count.fetch_add(1, Ordering::Relaxed);
                render(event)
            })
            .into_inner();
            answers
        })
        .collect();
    hub.publish(1, [Update::put("a", worker("a", 1))]);
    hub.publish(
        2,
        [
            Update::put("a", worker("a", 2)),
            Update::put("b", worker("b", 2)),
        ],
    );
    hub.observe("b", |worker| {
        Some(Worker {
            fenced: true,
            ..worker.clone()
        })
    });
    for watch in &mut watches {
        let mut told = 0;
        while told < 5 {
            told += watch.next().await.unwrap().unwrap().changes.len();
        }
    }
    assert_eq!(rendered.load(Ordering::Relaxed), 5);
}

#[tokio::test(start_paused = true)]
async fn the_state_is_rendered_once_for_those_that_begin_with_it_in_turn() {
    let state = (0..50).map(|n| (format!("{n}").into(), Arc::new(worker("w", n))));
    let hub: Hub<Worker> = Hub::new(EPOCH, 0, state, Options::default());
    let rendered = Arc::new(AtomicUsize::new(0));
    let begin_with_state = || {
        let count = Arc::clone(&rendered);
        let watch = hub.watch("", Filter::all()).unwrap();
        let mut answers: Answers = respond(watch, move |event| {
            count.fetch_add(1, Ordering::Relaxed);
            render(event)
        })
        .into_inner();
        async move { answers.next().await.unwrap().unwrap().changes.len() }
    };
    for _ in 0..10 {
        assert_eq!(begin_with_state().await, 50);
    }
    assert_eq!(rendered.load(Ordering::Relaxed), 50);
    advance(Duration::from_secs(2)).await;
    hub.publish(1, [Update::put("0", worker("w", 7))]);
    assert_eq!(begin_with_state().await, 50);
    assert_eq!(rendered.load(Ordering::Relaxed), 100);
}
