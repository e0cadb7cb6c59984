//! `muster backup` and `muster restore` as processes: what is copied comes back,
//! nothing that is there is replaced, and half a backup is none.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use muster_proto::{
    ops::v1::{
        GetMaintenanceRequest, GetMaintenanceResponse, GetStatusRequest, GetStatusResponse,
        ListInstancesRequest, ListInstancesResponse, SetMaintenanceRequest, SetMaintenanceResponse,
        StreamBackupRequest, StreamBackupResponse,
        ops_service_server::{OpsService, OpsServiceServer},
    },
    workers::v1::{CreateJoinTokenRequest, workers_service_client::WorkersServiceClient},
};
use muster_runtime::{context::Context, server::Listeners, shutdown::Cause};
use muster_store::{Options, Spec, Store};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};
use worker_registry::Config;

/// Runs the command line against a registry there.
async fn muster(url: &str, words: &[&str]) -> Output {
    muster_reads(url, words, Stdio::null()).await
}

/// The same with a standard input.
async fn muster_reads(url: &str, words: &[&str], input: impl Into<Stdio>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.args(["--workers-addr", url]).args(words);
    command.stdin(input);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

#[track_caller]
fn ended(output: &Output, code: i32, words: &str) {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8(said).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words), "{said}");
}

/// A registry with something in it, and where it is.
async fn registry(store: &Store) -> (Context, String) {
    let context = Context::for_tests("worker-registry");
    let listeners = Listeners::loopback().await.unwrap();
    let url = format!("http://{}", listeners.grpc_address());
    let serving =
        worker_registry::serve(Config::default(), context.clone(), store.clone(), listeners);
    let _serving = context
        .tasks
        .spawn("registry", async move { serving.await.unwrap() });
    context.health.until_ready().await;
    let mut client = WorkersServiceClient::connect(url.clone()).await.unwrap();
    for worker in ["w1", "w2"] {
        let request = CreateJoinTokenRequest {
            worker_name: worker.to_owned(),
            ..CreateJoinTokenRequest::default()
        };
        client.create_join_token(request).await.unwrap();
    }
    (context, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_backed_up_is_restored_in_a_later_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (file, spec) = (path("backup"), format!("embedded:{}", path("new.db")));
    let store = Store::memory();
    let (context, url) = registry(&store).await;

    let copied = muster(&url, &["backup", "worker-registry", &file]).await;
    ended(&copied, 0, "worker-registry as of revision ");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o077, 0, "others may read it");

    let first = fs::read(&file).unwrap();
    let again = muster(&url, &["backup", "worker-registry", &file]).await;
    ended(&again, 2, "exists already");
    assert_eq!(fs::read(&file).unwrap(), first, "it was replaced unasked");
    let forced = muster(
        &url,
        &["-o", "json", "backup", "worker-registry", &file, "--force"],
    )
    .await;
    ended(&forced, 0, "\"component\": \"worker-registry\"");

    let restored = muster(&url, &["restore", &file, "--store", &spec]).await;
    ended(&restored, 0, "in a new epoch");
    let over = muster(&url, &["restore", &file, "--store", &spec]).await;
    ended(&over, 1, "exists already");

    let opened = Store::open(&spec.parse::<Spec>().unwrap(), Options::default())
        .await
        .unwrap();
    let (old, new) = (
        store.list("").await.unwrap(),
        opened.list("").await.unwrap(),
    );
    let records = |listing: &muster_store::Listing| -> Vec<_> {
        // Each opening begins a term of its own.
        let each = listing
            .records
            .iter()
            .filter(|record| &*record.key != muster_store::TERM_KEY);
        each.map(|record| (record.key.to_string(), record.value.clone()))
            .collect()
    };
    assert!(old.records.len() >= 2);
    assert_eq!(records(&old), records(&new));
    assert!(opened.epoch() > store.epoch());
    opened.close().await;
    context.shutdown.begin(Cause::asked("the test is over"));
    context.shutdown.finished().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_goes_through_a_pipe_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let store = Store::memory();
    let (context, url) = registry(&store).await;

    let words = ["-o", "json", "backup", "worker-registry", "-"];
    let copied = muster(&url, &words).await;
    assert_eq!(copied.status.code(), Some(0), "{copied:?}");
    let said = String::from_utf8(copied.stderr).unwrap();
    let bytes = format!("\"bytes\": \"{}\"", copied.stdout.len());
    assert!(said.contains(&bytes), "{said}");

    // A pipe, and not a file in its place.
    let (input, mut fed) = std::io::pipe().unwrap();
    let feeding = std::thread::spawn(move || fed.write_all(&copied.stdout));
    let spec = format!("embedded:{}", path("new.db"));
    let restored = muster_reads(&url, &["restore", "-", "--store", &spec], input).await;
    ended(&restored, 0, "in a new epoch");
    feeding.join().unwrap().unwrap();
    let nothing = format!("embedded:{}", path("other.db"));
    let refused = muster(&url, &["restore", "-", "--store", &nothing]).await;
    ended(&refused, 1, "it is cut short");
    let names = fs::read_dir(folder.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["new.db"]);
    context.shutdown.begin(Cause::asked("the test is over"));
    context.shutdown.finished().await;
}

#[tokio::test]
async fn what_cannot_be_restored_says_why_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(
        path("text"),
        "this is no backup, though it is long enough to be one for a while",
    )
    .unwrap();
    let spec = format!("embedded:{}", path("new.db"));
    for (words, code, said) in [
        (
            ["restore", &path("missing"), "--store", &spec],
            1,
            "cannot be read",
        ),
        (
            ["restore", &path("text"), "--store", &spec],
            1,
            "not a backup of ours",
        ),
        (
            ["restore", &path("text"), "--store", "memory:"],
            2,
            "embedded:PATH",
        ),
        (
            ["restore", &path("text"), "--store", "nonsense"],
            2,
            "names no store",
        ),
    ] {
        ended(&muster("http://127.0.0.1:1", &words).await, code, said);
    }
    assert!(!Path::new(&path("new.db")).exists());
}

/// A component whose backup ends in some wrong way.
#[derive(Clone, Copy)]
enum Backing {
    CutShort,
    Altered,
    Refused,
}

type Parts = tokio_stream::Iter<std::vec::IntoIter<Result<StreamBackupResponse, Status>>>;

#[tonic::async_trait]
impl OpsService for Backing {
    async fn set_maintenance(
        &self,
        _: Request<SetMaintenanceRequest>,
    ) -> Result<Response<SetMaintenanceResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_maintenance(
        &self,
        _: Request<GetMaintenanceRequest>,
    ) -> Result<Response<GetMaintenanceResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_instances(
        &self,
        _: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type StreamBackupStream = Parts;

    async fn stream_backup(
        &self,
        _: Request<StreamBackupRequest>,
    ) -> Result<Response<Parts>, Status> {
        let data = StreamBackupResponse {
            data: b"half".to_vec(),
            epoch: "e".to_owned(),
            revision: 1,
            ..StreamBackupResponse::default()
        };
        let wrong = StreamBackupResponse {
            sha256: vec![0; 32],
            ..StreamBackupResponse::default()
        };
        let parts = match self {
            Self::CutShort => vec![Ok(data)],
            Self::Altered => vec![Ok(data), Ok(wrong)],
            Self::Refused => return Err(Status::permission_denied("only admins may")),
        };
        Ok(Response::new(tokio_stream::iter(parts)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_backup_is_none() {
    for (backing, said) in [
        (Backing::CutShort, "ended before the backup did"),
        (Backing::Altered, "its checksum differs"),
        (Backing::Refused, "only admins may"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder().add_service(OpsServiceServer::new(backing));
        let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("backup").display().to_string();
        let both = async {
            for to in [&*file, "-"] {
                let output = muster(&url, &["backup", "worker-registry", to]).await;
                ended(&output, 1, said);
            }
        };
        tokio::select! {
            () = both => {}
            _ = serving => panic!("the server ended"),
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{said}");
    }
}

#[tokio::test]
async fn a_component_that_is_not_there_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup").display().to_string();
    let url = "http://127.0.0.1:1";
    let unknown = muster(url, &["backup", "worker-registri", &file]).await;
    ended(&unknown, 2, "did you mean");
    let away = muster(url, &["backup", "worker-registry", &file]).await;
    ended(&away, 3, "does not answer");
    let nowhere = muster(url, &["backup", "worker-registry", "/no/such/folder/x"]).await;
    ended(&nowhere, 1, "/no/such/folder/x");
}

#[tokio::test]
async fn the_version_names_the_commit_that_was_built() {
    let output = muster("http://127.0.0.1:1", &["--version"]).await;
    let said = String::from_utf8(output.stdout).unwrap();
    let mut words = said.split_whitespace();
    assert_eq!(words.next(), Some("muster"));
    assert_eq!(words.next(), Some(env!("CARGO_PKG_VERSION")));
    let head = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let head = head.ok().filter(|head| head.status.success());
    if option_env!("MUSTER_COMMIT").is_none() {
        let head = head.map(|head| String::from_utf8(head.stdout).unwrap());
        let wanted = head.map(|head| format!("({})", head.trim()));
        assert_eq!(words.next(), wanted.as_deref());
    }
}
