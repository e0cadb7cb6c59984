//! The probe as a process, against real servers: every exit code, in plaintext,
//! over TLS and with client certificates, by either of its names.

mod server;

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use server::{Authority, Running};

/// A probe's exit code and what it said.
struct Ended {
    code: i32,
    said: String,
}

fn ended(output: &Output) -> Ended {
    assert!(output.stdout.is_empty(), "it speaks on stderr");
    Ended {
        code: output.status.code().unwrap(),
        said: String::from_utf8(output.stderr.clone())
            .unwrap()
            .trim()
            .to_owned(),
    }
}

/// Runs `muster health --probe` with an address and more flags.
fn probe(addr: &str, flags: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command
        .args(["health", "--probe", "-addr", addr])
        .args(flags);
    ended(&command.output().unwrap())
}

/// Flags that leave a loaded machine time.
const PATIENT: [&str; 4] = ["-connect-timeout", "30s", "-rpc-timeout", "1m0s"];

fn patient(addr: &str, flags: &[&str]) -> Ended {
    probe(addr, &[&PATIENT, flags].concat())
}

#[track_caller]
fn expect(ended: &Ended, code: i32, said: &str) {
    assert!(
        ended.code == code && ended.said.contains(said),
        "{}: {}",
        ended.code,
        ended.said
    );
}

#[test]
fn a_serving_server_is_0_and_one_that_is_not_is_4() {
    let server = Running::plain();
    let found = patient(&server.addr, &[]);
    assert_eq!((found.code, found.said.as_str()), (0, "status: SERVING"));
    expect(
        &patient(&server.addr, &["-service", "well"]),
        0,
        "status: SERVING",
    );
    let unwell = patient(&server.addr, &["-service=unwell"]);
    assert_eq!(
        unwell.said,
        "service unhealthy (responded with \"NOT_SERVING\")"
    );
    assert_eq!(unwell.code, 4);
    let strange = patient(&server.addr, &["-service", "strange"]);
    expect(&strange, 4, "responded with \"UNKNOWN\"");
}

#[test]
fn flags_that_make_no_sense_are_1() {
    expect(&probe("", &[]), 1, "error: -addr not specified");
    expect(
        &probe("a:1", &["-rpc-timeout", "0"]),
        1,
        "greater than zero",
    );
    let unknown = probe("a:1", &["-nonsense"]);
    expect(&unknown, 1, "flag provided but not defined: -nonsense");
    expect(&unknown, 1, "Usage:");
    expect(&probe("a:1", &["-h"]), 1, "-tls-server-name");
    let missing = probe("a:1", &["-tls", "-tls-ca-cert", "/nowhere.pem"]);
    expect(
        &missing,
        1,
        "failed to initialize tls credentials. error=/nowhere.pem",
    );
    expect(
        &probe("a:1", &["-rpc-header", "a b: c"]),
        1,
        "cannot stand in a header",
    );
}

#[test]
fn nobody_there_is_2() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    // It listens, and says nothing.
    let silent = probe(&addr, &["-connect-timeout", "200ms"]);
    let words = format!("timeout: failed to connect service \"{addr}\" within 200ms");
    expect(&silent, 2, &words);
    drop(listener);
    let closed = probe(&addr, &["-connect-timeout", "200ms"]);
    expect(&closed, 2, "refused");
    expect(&probe("a", &[]), 2, "missing port in address");
    expect(
        &probe("unix:/nowhere.sock", &["-connect-timeout", "50ms"]),
        2,
        "No such file",
    );
}

#[test]
fn a_server_that_speaks_no_http2_is_2() {
    let server = server::speaking("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    let found = probe(&server, &["-connect-timeout", "300ms"]);
    expect(&found, 2, "timeout: failed to connect service");
}

#[test]
fn a_failed_call_is_3() {
    let server = Running::plain();
    let unknown = patient(&server.addr, &["-service", "nobody"]);
    expect(
        &unknown,
        3,
        "error: health rpc failed: rpc error: code = NotFound desc = ",
    );
    expect(
        &patient(&server.addr, &["-service", "broken"]),
        3,
        "code = Internal desc = broken",
    );
    let slow = probe(
        &server.addr,
        &[
            "-connect-timeout",
            "30s",
            "-rpc-timeout",
            "150ms",
            "-service",
            "slow",
        ],
    );
    expect(
        &slow,
        3,
        "timeout: health rpc did not complete within 150ms",
    );
    let other = Running::without_health();
    expect(
        &patient(&other.addr, &[]),
        3,
        "does not implement the grpc health protocol",
    );
}

#[test]
fn what_is_sent_is_what_the_flags_say() {
    let server = Running::plain();
    let flags = [
        "-service",
        "echo",
        "-user-agent",
        "my-probe/1",
        "-rpc-header",
        "X-Key: secret",
        "-rpc-header",
        "x-raw-bin:raw",
    ];
    let said = patient(&server.addr, &flags).said;
    for part in [
        "agent=my-probe/1",
        "x-key=secret",
        "x-raw-bin=raw",
        "grpc-timeout=60",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("gzip"), "{said}");
    let said = patient(&server.addr, &["-service", "echo", "-gzip"]).said;
    for part in [
        "agent=grpc_health_probe",
        "encoding=gzip",
        "authority=127.0.0.1:",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    expect(&patient(&server.addr, &["-gzip"]), 0, "status: SERVING");
}

#[test]
fn what_it_does_is_said_on_request() {
    let server = Running::plain();
    let found = patient(&server.addr, &["-v", "-rpc-header", "x-key: secret"]);
    for part in [
        &format!("> addr={} conn_timeout=30s rpc_timeout=1m0s", server.addr),
        "> tls=false",
        "> headers: x-key",
        "establishing connection",
        "connection established (took ",
        "time elapsed: connect=",
        "status: SERVING",
    ] {
        expect(&found, 0, part);
    }
    assert!(!found.said.contains("secret"), "{}", found.said);
}

#[test]
fn tls_is_verified_as_the_flags_say() {
    let authority = Authority::new();
    let server = Running::tls(&authority, &["server.example"], None);
    let ca = authority.file();
    let named = [
        "-tls",
        "-tls-ca-cert",
        &ca,
        "-tls-server-name",
        "server.example",
    ];
    expect(&patient(&server.addr, &named), 0, "status: SERVING");
    expect(
        &patient(&server.addr, &["-tls", "-tls-no-verify"]),
        0,
        "status: SERVING",
    );

    let quick = ["-connect-timeout", "1s", "-tls"];
    let refused = |flags: &[&str]| probe(&server.addr, &[&quick, flags].concat());
    expect(&refused(&["-tls-ca-cert", &ca]), 2, "not valid for name");
    let stranger = Authority::new();
    let other = stranger.file();
    let wrong = ["-tls-ca-cert", &other, "-tls-server-name", "server.example"];
    expect(&refused(&wrong), 2, "certificate");
    // In plaintext there is no connection at all.
    expect(
        &probe(&server.addr, &["-connect-timeout", "300ms"]),
        2,
        "timeout",
    );
}

#[test]
fn a_client_certificate_is_presented() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let server = Running::tls(&servers, &["localhost"], Some(&clients));
    let ca = servers.file();
    let (certificate, key) = clients.sign("probe", &["probe.example"]);
    let tls = ["-tls", "-tls-ca-cert", &ca, "-tls-server-name", "localhost"];
    let identity = ["-tls-client-cert", &certificate, "-tls-client-key", &key];
    expect(
        &patient(&server.addr, &[&tls[..], &identity].concat()),
        0,
        "status: SERVING",
    );
    expect(
        &probe(
            &server.addr,
            &[&["-connect-timeout", "1s"], &tls[..]].concat(),
        ),
        2,
        "",
    );
    let swapped = ["-tls-client-cert", &key, "-tls-client-key", &certificate];
    let swapped = patient(&server.addr, &[&tls[..], &swapped].concat());
    expect(&swapped, 1, "failed to load tls client cert/key pair");
}

#[test]
fn called_by_its_name_it_is_the_probe() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("grpc_health_probe");
    std::os::unix::fs::symlink(Path::new(env!("CARGO_BIN_EXE_muster")), &name).unwrap();
    let run = |flags: &[&str]| Command::new(&name).args(flags).output().unwrap();
    let server = Running::plain();
    let well = ended(&run(&[&["-addr", &server.addr], &PATIENT[..]].concat()));
    expect(&well, 0, "status: SERVING");
    let unwell = [&["-addr", &server.addr, "-service", "unwell"], &PATIENT[..]].concat();
    expect(&ended(&run(&unwell)), 4, "NOT_SERVING");
    expect(&ended(&run(&["health"])), 1, "-addr not specified");
    let version = run(&["-version"]);
    assert!(version.status.success());
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_socket_in_the_file_system_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("health.sock");
    let _server = Running::unix(&path);
    let addr = format!("unix://{}", path.display());
    expect(&patient(&addr, &["-service", "well"]), 0, "status: SERVING");
}
