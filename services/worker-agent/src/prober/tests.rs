use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn question(target: Target, limit: Duration) -> Question {
    Question {
        attempt: AttemptId::parse("abc.0.1").unwrap(),
        kind: Kind::Ready,
        target,
        terms: Terms {
            interval: Duration::from_secs(1),
            timeout: limit,
            successes: 1,
            failures: 1,
        },
        working_dir: "/".into(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        container: None,
    }
}

async fn outcome(target: Target) -> Outcome {
    ask(&question(target, Duration::from_millis(500))).await
}

/// A server that answers each connection with some bytes, once it has read something.
async fn server(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tasks = Tasks::new(muster_runtime::shutdown::Shutdown::new());
    tasks.spawn("server", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer).await;
        }
    });
    port
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn http(port: u16) -> Target {
    Target::Http {
        port,
        path: "/health".into(),
    }
}

#[tokio::test]
async fn http_is_well_from_200_to_399() {
    for (answer, well) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..], true),
        (b"HTTP/1.1 204 No Content\r\n\r\n", true),
        (
            b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n",
            true,
        ),
        (
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            false,
        ),
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", false),
        (b"what?\r\n\r\n", false),
        (b"", false),
    ] {
        let found = outcome(http(server(answer).await)).await;
        assert_eq!(
            found.is_ok(),
            well,
            "{:?}: {found:?}",
            String::from_utf8_lossy(answer)
        );
    }
    let found = outcome(http(free_port().await)).await;
    assert!(found.unwrap_err().contains("refused"));
}

#[tokio::test]
async fn a_connection_is_enough_for_tcp() {
    let port = server(b"").await;
    assert_eq!(outcome(Target::Tcp { port }).await, Ok(()));
    assert!(
        outcome(Target::Tcp {
            port: free_port().await
        })
        .await
        .is_err()
    );
}

#[tokio::test]
async fn what_never_answers_fails_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for target in [
        http(port),
        Target::Grpc {
            port,
            service: String::new(),
        },
    ] {
        let begun = Instant::now();
        let found = outcome(target).await;
        assert!(found.unwrap_err().contains("within"));
        assert!(begun.elapsed() < Duration::from_secs(3));
    }
}

#[tokio::test]
async fn grpc_asks_the_health_protocol() {
    let context = muster_runtime::context::Context::for_tests("probed");
    let listeners = muster_runtime::server::Listeners::loopback().await.unwrap();
    let port = listeners.grpc_address().port();
    let server = muster_runtime::server::Server::new(&context);
    context.tasks.spawn("server", async move {
        let _ = server.serve(listeners).await;
    });
    context.health.until_ready().await;
    let grpc = |service: &str| Target::Grpc {
        port,
        service: service.into(),
    };
    assert_eq!(outcome(grpc("")).await, Ok(()));
    assert!(outcome(grpc("no.such.Service")).await.is_err());
    context.health.maintenance(Some("test"));
    assert!(outcome(grpc("")).await.unwrap_err().contains("NOT_SERVING"));
}

#[tokio::test]
async fn a_command_is_well_with_exit_code_0() {
    let shell = |script: &str| Target::Exec {
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
    };
    assert_eq!(outcome(shell("exit 0")).await, Ok(()));
    let failed = outcome(shell("echo first >&2; echo not yet >&2; exit 3"))
        .await
        .unwrap_err();
    assert!(
        failed.contains("exit status: 3") && failed.ends_with("not yet"),
        "{failed}"
    );
    assert!(
        outcome(shell("sleep 60 & sleep 60"))
            .await
            .unwrap_err()
            .contains("did not end")
    );
    let missing = Target::Exec {
        command: vec!["/no/such/program".into()],
    };
    assert!(
        outcome(missing)
            .await
            .unwrap_err()
            .contains("cannot execute")
    );
}

#[tokio::test]
async fn a_command_may_say_any_amount() {
    let said = vec![b'x'; 10 * KEPT];
    let mut all = said.clone();
    all.extend_from_slice(b"\nthe end");
    let kept = end_of(Some(all.as_slice())).await;
    assert_eq!(kept.len(), KEPT);
    assert!(all.ends_with(&kept));
    let script = "head -c 1000000 /dev/zero >&2; echo >&2; echo not yet >&2; exit 3";
    let failed = outcome(Target::Exec {
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
    });
    let failed = failed.await.unwrap_err();
    assert!(failed.ends_with("not yet"), "{failed}");
}

#[tokio::test]
async fn nothing_of_a_command_that_is_given_up_is_left_to_us() {
    // As the first process of a container is.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    for script in ["sleep 60; true", "sleep 60 & exit 3"] {
        let script = format!("echo $$ > {}; {script}", first.display());
        let command = vec!["/bin/sh".into(), "-c".into(), script];
        outcome(Target::Exec { command }).await.unwrap_err();
        let group = std::fs::read_to_string(&first).unwrap();
        let group = Pid::from_raw(group.trim().parse().unwrap()).unwrap();
        let left = waitpgid(group, WaitOptions::NOHANG);
        assert_eq!(left.map(|_| ()), Err(rustix::io::Errno::CHILD));
    }
}

#[tokio::test]
async fn what_an_earlier_process_has_left_is_ended() {
    let spawn = |attempt: &str| {
        let mut command = std::process::Command::new("sleep");
        command.arg("60").env(MARK, attempt).spawn().unwrap()
    };
    let (mut ours, mut other) = (spawn("left.0.1"), spawn("left.1.1"));
    // The kernel lets the parent go on shortly before the child's environment can be read.
    while machine::processes_with("MUSTER_PROBE=left.0.1").is_empty() {}
    end_left(&[AttemptId::parse("left.0.1").unwrap()]);
    assert!(!ours.wait().unwrap().success());
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
}
