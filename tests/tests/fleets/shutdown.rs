//! The end of a process under load: what was answered is kept, what is open is told, and what hangs
//! holds nothing up.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use muster_proto::replicas::v1::{
    CreateServiceRequest, GetServiceRequest, ListServicesRequest, WatchServicesRequest,
    replicas_service_client::ReplicasServiceClient,
};
use muster_runtime::status::Details;
use muster_tests::fleet::{self, Process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// The budget that the process is given, and more than it may need.
const BUDGET: &str = "--shutdown-timeout=10s";

async fn start(folder: &Path) -> Process {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_component"));
    let args = [
        format!("--store=embedded:{}", folder.join("manager").display()),
        "--workers-addr=http://127.0.0.1:1".to_owned(),
        "--offers-addr=http://127.0.0.1:1".to_owned(),
        BUDGET.to_owned(),
    ];
    let address = fleet::free_port();
    fleet::start(&program, folder, "replica-manager", address, &args, &[]).await
}

fn client(process: &Process) -> ReplicasServiceClient<Channel> {
    let url = format!("http://{}", process.address);
    ReplicasServiceClient::new(Endpoint::from_shared(url).unwrap().connect_lazy())
}

/// Creates services until told to stop or refused, and gives the names of those answered OK and the
/// refusal.
async fn create(
    mut client: ReplicasServiceClient<Channel>,
    prefix: String,
    end: Arc<AtomicBool>,
) -> (Vec<String>, Option<Status>) {
    let mut created = Vec::new();
    for number in 0.. {
        if end.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("{prefix}-{number}");
        let request = CreateServiceRequest {
            spec: Some(fleet::sleeping(&name, 1, None)),
            request_id: name.clone(),
            ..Default::default()
        };
        match client.create_service(request).await {
            Ok(_) => created.push(name),
            Err(status) => return (created, Some(status)),
        }
    }
    (created, None)
}

/// How a watch of everything ends.
async fn watch(mut client: ReplicasServiceClient<Channel>) -> Status {
    let answer = client.watch_services(WatchServicesRequest::default()).await;
    let mut stream = answer.unwrap().into_inner();
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the watch ended without a status"),
            Err(status) => return status,
        }
    }
}

/// A peer that has begun HTTP/2 and reads nothing that it is sent.
async fn hanging_peer(process: &Process) -> TcpStream {
    let mut stream = TcpStream::connect(process.address).await.unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing_that_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let process = start(folder.path()).await;
    let mut idle = TcpStream::connect(process.address).await.unwrap();
    let _hanging = hanging_peer(&process).await;
    let end = Arc::new(AtomicBool::new(false));
    let creating: Vec<_> = (0..4)
        .map(|task| {
            let (client, end) = (client(&process), Arc::clone(&end));
            tokio::task::spawn(create(client, format!("s{task}"), end))
        })
        .collect();
    let watching: Vec<_> = (0..3)
        .map(|_| tokio::task::spawn(watch(client(&process))))
        .collect();
    // In the middle of the load.
    while count(&process).await < 20 {
        sleep(Duration::from_millis(10)).await;
    }
    let status = timeout(PATIENCE, process.terminate()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", logs(folder.path()));
    end.store(true, Ordering::Relaxed);

    let mut created = Vec::new();
    for task in creating {
        let (names, refusal) = timeout(PATIENCE, task).await.unwrap().unwrap();
        created.extend(names);
        if let Some(refusal) = refusal {
            // These are tonic's own words for a connection that closes before a call or under it.
            let says = |words| format!("{refusal:?}").contains(words);
            let code = refusal.code();
            assert!(
                matches!(code, Code::Unavailable | Code::Cancelled)
                    || code == Code::Internal && says("GoAway(b\"\", NO_ERROR, Remote)")
                    // Of a connection that came to be while the server went.
                    || code == Code::Unknown && says("Kind(ConnectionReset)"),
                "{refusal:?}"
            );
        }
    }
    for task in watching {
        let ended = timeout(PATIENCE, task).await.unwrap().unwrap();
        assert_eq!(ended.code(), Code::Unavailable, "{ended}");
        let delay = Details::of(&ended).retry_delay;
        assert!(delay.is_some(), "no delay: {ended}");
    }
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, idle.read_to_end(&mut rest)).await;
    let _ = read.expect("the idle connection is closed");

    let again = start(folder.path()).await;
    the_next_start_has(&created, &again).await;
    // A crash is told as such.
    drop(again);
    let last = start(folder.path()).await;
    assert!(
        last.get("/metrics")
            .contains("muster_last_shutdown_clean 0")
    );
}

/// Everything that was answered OK, and how the last run has ended.
async fn the_next_start_has(created: &[String], again: &Process) {
    for name in created {
        let request = GetServiceRequest {
            name: name.clone(),
            ..Default::default()
        };
        let found = client(again).get_service(request).await;
        assert!(
            found.is_ok(),
            "{name} was answered OK and is gone: {found:?}"
        );
    }
    assert!(created.len() >= 20);
    let metrics = again.get("/metrics");
    assert!(
        metrics.contains("muster_last_shutdown_clean{} 1")
            || metrics.contains("muster_last_shutdown_clean 1"),
        "{metrics}"
    );
    for step in ["connections", "tasks", "store"] {
        let line = format!("step=\"{step}\",outcome=\"ok\"");
        assert!(metrics.contains(&line), "{step} in {metrics}");
    }
}

/// What the processes that keep their state here have logged.
fn logs(folder: &Path) -> String {
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|end| end == "log"));
    logs.map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

/// How many services there are.
async fn count(process: &Process) -> usize {
    let answer = client(process)
        .list_services(ListServicesRequest::default())
        .await;
    answer.map_or(0, |answer| answer.into_inner().services.len())
}
