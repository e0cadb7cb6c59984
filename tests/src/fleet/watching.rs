//! Watches that miss nothing while a test does something else: what they saw is asserted on at the end.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use muster_proto::replicas::v1::{
    Endpoint, ServiceFilter, ServicePhase, ServiceStatus, WatchEndpointsRequest,
    WatchServicesRequest, endpoint_change, replicas_service_client::ReplicasServiceClient,
    service_change,
};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{channel_for_streams, own};

/// What is seen of something until it is stopped.
#[derive(Debug)]
pub struct Seen<T> {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Vec<T>>,
    so_far: Arc<Mutex<Vec<T>>>,
}

impl<T: Send + 'static> Seen<T> {
    /// Everything that was seen, in order.
    pub async fn stop(self) -> Vec<T> {
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }

    /// `watch` writes down what it sees, and is cut off in the end.
    fn by<W, F>(watch: W) -> Self
    where
        W: FnOnce(Arc<Mutex<Vec<T>>>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let seen = Arc::<Mutex<Vec<T>>>::default();
        let so_far = Arc::clone(&seen);
        let watching = watch(Arc::clone(&seen));
        let task = own(async move {
            tokio::select! {
                _ = stopped => {}
                () = watching => {}
            }
            std::mem::take(&mut *seen.lock().unwrap())
        });
        Self { stop, task, so_far }
    }
}

impl Seen<ServiceStatus> {
    /// Every status of a service, from the current one on.
    pub fn statuses(manager: SocketAddr, service: &str) -> Self {
        let names = vec![service.to_owned()];
        Self::by(|seen| async move {
            let mut client = ReplicasServiceClient::new(channel_for_streams(manager));
            loop {
                let filter = ServiceFilter {
                    names: names.clone(),
                    ..ServiceFilter::default()
                };
                let request = WatchServicesRequest {
                    filter: Some(filter),
                    ..WatchServicesRequest::default()
                };
                if let Ok(stream) = client.watch_services(request).await {
                    let mut stream = stream.into_inner();
                    while let Ok(Some(message)) = stream.message().await {
                        for change in message.changes {
                            if let Some(service_change::Change::Put(service)) = change.change {
                                seen.lock().unwrap().extend(service.status);
                            }
                        }
                    }
                }
                sleep(AGAIN).await;
            }
        })
    }

    /// The phases that were seen, each once in a row.
    pub async fn phases(self) -> Vec<ServicePhase> {
        phases(&self.stop().await)
    }

    /// The same, once they are the `expected` ones, for which a watch may need a moment longer than whoever
    /// asks; or what they are instead after `patience`.
    pub async fn phases_like(
        self,
        expected: &[ServicePhase],
        patience: Duration,
    ) -> Vec<ServicePhase> {
        let end = Instant::now() + patience;
        while phases(&self.so_far.lock().unwrap()) != expected && Instant::now() < end {
            sleep(AGAIN).await;
        }
        self.phases().await
    }

    /// The least number of ready replicas that was seen.
    pub async fn least_ready(self) -> i32 {
        let statuses = self.stop().await;
        let ready = statuses.iter().map(|status| status.counts.unwrap().ready);
        ready.min().unwrap_or(i32::MAX)
    }
}

fn phases(statuses: &[ServiceStatus]) -> Vec<ServicePhase> {
    let mut phases: Vec<_> = statuses.iter().map(ServiceStatus::phase).collect();
    phases.dedup();
    phases
}

impl Seen<BTreeMap<String, Endpoint>> {
    /// The endpoints of a service by attempt, after each change of them.
    pub fn endpoints(manager: SocketAddr, service: &str) -> Self {
        let service = service.to_owned();
        Self::by(|seen| async move {
            let mut client = ReplicasServiceClient::new(channel_for_streams(manager));
            loop {
                let request = WatchEndpointsRequest {
                    service: service.clone(),
                    ..WatchEndpointsRequest::default()
                };
                let mut current = BTreeMap::new();
                if let Ok(stream) = client.watch_endpoints(request).await {
                    let mut stream = stream.into_inner();
                    while let Ok(Some(message)) = stream.message().await {
                        for change in message.changes {
                            match change.change {
                                Some(endpoint_change::Change::Put(endpoint)) => {
                                    current.insert(endpoint.attempt_id.clone(), endpoint);
                                }
                                Some(endpoint_change::Change::Deleted(endpoint)) => {
                                    current.remove(&endpoint.attempt_id);
                                }
                                None => {}
                            }
                        }
                        // Changes of one revision come together; between is no state of anything.
                        if message.synced && !message.resume_token.is_empty() {
                            seen.lock().unwrap().push(current.clone());
                        }
                    }
                }
                sleep(AGAIN).await;
            }
        })
    }

    /// Whether at any time two attempts of one replica were among the endpoints.
    pub async fn were_never_two_of_one(self) {
        for endpoints in self.stop().await {
            let mut replicas: Vec<_> = endpoints.values().map(|e| &e.replica).collect();
            let all = replicas.len();
            replicas.sort();
            replicas.dedup();
            assert_eq!(replicas.len(), all, "two of one: {endpoints:#?}");
        }
    }
}

/// A watch that ended is opened again after this.
const AGAIN: Duration = Duration::from_millis(50);
