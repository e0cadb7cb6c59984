//! Clients that follow a watch over the whole time, however often it ends, going on at their last token: what
//! they have in the end is what a list says.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use muster_proto::{
    replicas::v1::{
        ListReplicasRequest, ListReplicasResponse, ListServicesRequest, ListServicesResponse,
        Replica, Service, WatchReplicasRequest, WatchReplicasResponse, WatchServicesRequest,
        WatchServicesResponse, replica_change, replicas_service_client::ReplicasServiceClient,
        service_change,
    },
    workers::v1::{
        Allocation, ListAllocationsRequest, ListAllocationsResponse, ListWorkersRequest,
        ListWorkersResponse, WatchAllocationsRequest, WatchAllocationsResponse,
        WatchWorkersRequest, WatchWorkersResponse, Worker, allocation_change, worker_change,
        workers_service_client::WorkersServiceClient,
    },
};
use muster_tests::fleet::process::{channel, channel_for_streams};
use tokio::{task::JoinHandle, time::sleep};
use tonic::{Code, Status, Streaming};

use super::calls::{in_time, is_away};

/// A watch that ended is opened again after this.
const AGAIN: Duration = Duration::from_millis(50);

/// A change of one thing.
#[derive(Debug)]
pub(super) enum Change<T> {
    Put(T),
    Deleted(T),
}

/// What can be listed and watched.
pub(super) trait Followed: Clone + Debug + PartialEq + Send + 'static {
    type Answer: Send;

    fn open(
        at: SocketAddr,
        resume_token: String,
    ) -> impl Future<Output = Result<Streaming<Self::Answer>, Status>> + Send;

    /// The changes, and the token if there is one.
    fn read(answer: Self::Answer) -> (Vec<Change<Self>>, String);

    fn list(at: SocketAddr) -> impl Future<Output = Result<Vec<Self>, Status>> + Send;

    fn key(&self) -> String;

    /// Without what changes all the time.
    fn steady(self) -> Self {
        self
    }
}

/// What a follower has.
#[derive(Debug)]
struct Held<T> {
    items: BTreeMap<String, T>,
    /// Everything that it was ever told of.
    seen: Vec<T>,
    /// How often it had to begin anew, and how often it went on.
    begun: u32,
    resumed: u32,
    /// Errors that are none of somebody being away.
    wrong: Vec<String>,
}

/// A follower, until it is dropped.
#[derive(Debug)]
pub(super) struct Mirror<T> {
    at: SocketAddr,
    held: Arc<Mutex<Held<T>>>,
    task: JoinHandle<()>,
}

impl<T> Drop for Mirror<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T: Followed> Mirror<T> {
    pub(super) fn of(at: SocketAddr) -> Self {
        let held = Arc::new(Mutex::new(Held {
            items: BTreeMap::new(),
            seen: Vec::new(),
            begun: 0,
            resumed: 0,
            wrong: Vec::new(),
        }));
        let task = tokio::spawn(follow(at, Arc::clone(&held)));
        Self { at, held, task }
    }

    /// Everything that it was ever told of.
    pub(super) fn seen(&self) -> Vec<T> {
        self.held.lock().unwrap().seen.clone()
    }

    /// What it was told that should not be, and what it has otherwise than a list has it.
    pub(super) async fn wrong(&self) -> Vec<String> {
        let listed = match T::list(self.at).await {
            Ok(listed) => listed,
            Err(status) => return vec![format!("cannot list: {status}")],
        };
        let listed = listed.into_iter().map(|one| (one.key(), one.steady()));
        let listed: BTreeMap<_, _> = listed.collect();
        let held = self.held.lock().unwrap();
        let mut wrong = held.wrong.clone();
        let items = held.items.iter();
        let items: BTreeMap<_, _> = items
            .map(|(key, one)| (key.clone(), one.clone().steady()))
            .collect();
        for key in listed.keys().chain(items.keys()) {
            if listed.get(key) != items.get(key) {
                let (there, here) = (listed.get(key), items.get(key));
                wrong.push(format!("a watch has {here:#?}, a list {there:#?}"));
            }
        }
        wrong
    }

    pub(super) fn tally(&self) -> String {
        let held = self.held.lock().unwrap();
        let (seen, begun, resumed) = (held.seen.len(), held.begun, held.resumed);
        format!("{seen} changes, begun {begun} times, resumed {resumed} times")
    }
}

async fn follow<T: Followed>(at: SocketAddr, held: Arc<Mutex<Held<T>>>) {
    let mut token = String::new();
    loop {
        match T::open(at, token.clone()).await {
            Ok(mut stream) => {
                {
                    let mut held = held.lock().unwrap();
                    if token.is_empty() {
                        held.begun += 1;
                        held.items.clear();
                    } else {
                        held.resumed += 1;
                    }
                }
                loop {
                    match stream.message().await {
                        Ok(Some(answer)) => take(&held, &mut token, answer),
                        Ok(None) => break,
                        Err(status) => {
                            ended(&held, &mut token, &status);
                            break;
                        }
                    }
                }
            }
            Err(status) => ended(&held, &mut token, &status),
        }
        sleep(AGAIN).await;
    }
}

fn take<T: Followed>(held: &Mutex<Held<T>>, token: &mut String, answer: T::Answer) {
    let (changes, resume_token) = T::read(answer);
    let mut held = held.lock().unwrap();
    for change in changes {
        match change {
            Change::Put(one) => {
                held.seen.push(one.clone());
                held.items.insert(one.key(), one);
            }
            Change::Deleted(one) => {
                held.items.remove(&one.key());
            }
        }
    }
    if !resume_token.is_empty() {
        *token = resume_token;
    }
}

fn ended<T>(held: &Mutex<Held<T>>, token: &mut String, status: &Status) {
    if status.code() == Code::OutOfRange {
        token.clear();
    } else if !is_away(status) {
        held.lock().unwrap().wrong.push(format!("{status}"));
    }
}

/// How one kind of thing is listed and watched.
macro_rules! followed {
    ($item:ident, $client:ident, $key:expr, $steady:expr,
     $list:ident, $listing:ident, $listed:ident, $items:ident,
     $watch:ident, $watching:ident, $watched:ident, $change:ident $(, $observed:ident)?) => {
        impl Followed for $item {
            type Answer = $watched;

            async fn open(at: SocketAddr, resume_token: String) -> Result<Streaming<$watched>, Status> {
                let request = $watching { resume_token, ..Default::default() };
                let mut client = $client::new(channel_for_streams(at));
                Ok(client.$watch(request).await?.into_inner())
            }

            fn read(answer: $watched) -> (Vec<Change<Self>>, String) {
                let changes = answer.changes.into_iter().filter_map(|change| {
                    Some(match change.change? {
                        $change::Change::Put(one) => Change::Put(one),
                        $($change::Change::$observed(one) => Change::Put(one),)?
                        $change::Change::Deleted(one) => Change::Deleted(one),
                    })
                });
                (changes.collect(), answer.resume_token)
            }

            async fn list(at: SocketAddr) -> Result<Vec<Self>, Status> {
                let request = in_time($listing { page_size: 1000, ..Default::default() });
                let answer: $listed = $client::new(channel(at)).$list(request).await?.into_inner();
                Ok(answer.$items)
            }

            fn key(&self) -> String {
                let key: fn(&Self) -> String = $key;
                key(self)
            }

            fn steady(self) -> Self {
                let steady: fn(Self) -> Self = $steady;
                steady(self)
            }
        }
    };
}

followed!(
    Service,
    ReplicasServiceClient,
    |one| one.uid.clone(),
    |one| one,
    list_services,
    ListServicesRequest,
    ListServicesResponse,
    services,
    watch_services,
    WatchServicesRequest,
    WatchServicesResponse,
    service_change
);
followed!(
    Replica,
    ReplicasServiceClient,
    |one| format!("{} {}", one.service_uid, one.id),
    |one| one,
    list_replicas,
    ListReplicasRequest,
    ListReplicasResponse,
    replicas,
    watch_replicas,
    WatchReplicasRequest,
    WatchReplicasResponse,
    replica_change
);
followed!(
    Worker,
    WorkersServiceClient,
    |one| one.name.clone(),
    |one| Worker {
        heartbeat_time: None,
        ..one
    },
    list_workers,
    ListWorkersRequest,
    ListWorkersResponse,
    workers,
    watch_workers,
    WatchWorkersRequest,
    WatchWorkersResponse,
    worker_change,
    Observed
);
followed!(
    Allocation,
    WorkersServiceClient,
    |one| one.id.clone(),
    |one| one,
    list_allocations,
    ListAllocationsRequest,
    ListAllocationsResponse,
    allocations,
    watch_allocations,
    WatchAllocationsRequest,
    WatchAllocationsResponse,
    allocation_change
);
