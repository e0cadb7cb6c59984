//! The real process behind a proxy, which serves it, or does whatever can go wrong.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use muster_proto::offers::v1 as pb;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio_rustls::rustls;

use crate::reload::{Process, command, until};
use crate::support::{ids, write_catalog};

const LIST: &str = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region\n\
                    big,H100,8,96,1900,20,eu\n";

/// Who may use the proxy, and the same as it is sent.
const USER: &str = "me:s3cret";
const SENT: &str = "Basic bWU6czNjcmV0";

/// What a proxy does with who asks it.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// It passes on what is asked, which is answered with a list.
    Serves,
    /// It says this, and ends the connection.
    Says(&'static str),
    /// It says this, and then more without an end.
    Floods(&'static str),
    /// It says nothing.
    Hangs,
}

/// A proxy on a free port, and all servers that it leads to.
struct Proxy {
    address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    /// What came: heads of requests, also of those in tunnels.
    heads: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
}

impl Proxy {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tls = tls(folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            manner: Arc::new(Mutex::new(Manner::Serves)),
            heads: Arc::default(),
            folder,
        };
        let (manner, heads) = (Arc::clone(&proxy.manner), Arc::clone(&proxy.heads));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (manner, heads) = (*manner.lock().unwrap(), Arc::clone(&heads));
                let (stream, tls) = (stream.unwrap(), Arc::clone(&tls));
                // Whoever asks may go whenever it likes.
                thread::spawn(move || drop(serve(&stream, manner, &heads, tls)));
            }
        });
        proxy
    }

    /// As the variables of the environment have it.
    fn named(&self) -> String {
        format!("http://{USER}@{}", self.address)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The gateway behind it, with a backend `steady` that needs nobody, and these.
    fn gateway(&self, backends: &str) -> Command {
        let steady = self.folder.path().join("steady.csv");
        write_catalog(&steady, "small,,,2,4,0.1,,eu\n");
        let config = self.folder.path().join("gateway.toml");
        let steady =
            format!("[[backend]]\nname = \"steady\"\nkind = \"catalog\"\npath = {steady:?}\n");
        std::fs::write(&config, format!("{steady}{backends}")).unwrap();
        let mut command = command(&config);
        command
            .env("SSL_CERT_FILE", self.folder.path().join("ca.pem"))
            .env("HTTPS_PROXY", self.named())
            .env("http_proxy", self.named());
        command
    }
}

/// The certificate of every server, signed by an authority whose own is put into `folder`.
fn tls(folder: &Path) -> Arc<rustls::ServerConfig> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["*.example.org".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into());
    Arc::new(config.unwrap())
}

fn serve(
    mut stream: &TcpStream,
    manner: Manner,
    heads: &Mutex<Vec<String>>,
    tls: Arc<rustls::ServerConfig>,
) -> io::Result<()> {
    let head = head(&mut stream)?;
    heads.lock().unwrap().push(head.clone());
    match manner {
        Manner::Serves if head.starts_with("CONNECT ") => {
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            let connection = rustls::ServerConnection::new(tls).unwrap();
            let mut inside = rustls::StreamOwned::new(connection, stream);
            let asked = self::head(&mut inside)?;
            heads.lock().unwrap().push(asked);
            answer(&mut inside)?;
            inside.conn.send_close_notify();
            inside.flush()
        }
        Manner::Serves => answer(&mut stream),
        Manner::Says(words) => {
            stream.write_all(words.as_bytes())?;
            stream.shutdown(Shutdown::Both)
        }
        Manner::Floods(words) => {
            stream.write_all(words.as_bytes())?;
            loop {
                stream.write_all(&[b'x'; 1000])?;
            }
        }
        // Until who asked has had enough.
        Manner::Hangs => stream.read(&mut [0]).map(drop),
    }
}

/// What a request begins with, up to its empty line.
fn head(from: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8(head).unwrap())
}

fn answer(to: &mut impl Write) -> io::Result<()> {
    let length = LIST.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    to.write_all(format!("{head}{LIST}").as_bytes())?;
    to.flush()
}

fn list(name: &str, url: &str) -> String {
    format!(
        "[[backend]]\nname = {name:?}\nkind = \"catalog\"\nurl = {url:?}\n\
         attempt_timeout = \"2s\"\nrefresh_timeout = \"2s\"\n"
    )
}

/// One whose address wants TLS, and one whose does not.
fn both() -> String {
    list("secure", "https://secure.example.org/vms.csv")
        + &list("plain", "http://plain.example.org/vms.csv")
}

const STEADY: &str = "steady/eu/small/ondemand";

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_asked_by_way_of_the_proxy_that_the_environment_names() {
    let proxy = Proxy::start();
    let past = list("past", "http://nowhere.invalid/vms.csv");
    let here = format!("http://{}/vms.csv", proxy.address);
    let mut command = proxy.gateway(&(both() + &past + &list("here", &here)));
    command.env("NO_PROXY", "other.example.org,.invalid");
    let process = Process::run(command).await;
    for name in ["here", "plain", "secure"] {
        // A busy machine may use up its time.
        let read = async || refreshed(&process, name).await.ok();
        until(name, read).await;
    }
    let answer = process.offers().await;
    let mut ids = ids(&answer.offers);
    ids.sort_unstable();
    let expected = ["here", "plain", "secure"].map(|name| format!("{name}/eu/big/ondemand"));
    assert_eq!(ids[..3], expected);
    assert_eq!(ids[3..], [STEADY]);
    let heads = proxy.heads();
    let one = |start: &str| {
        let mut found = heads.iter().filter(|head| head.starts_with(start));
        found
            .next()
            .unwrap_or_else(|| panic!("no {start} in {heads:?}"))
    };
    let proves = |head: &str| head.to_ascii_lowercase().contains("proxy-authorization");
    let tunnel = one("CONNECT secure.example.org:443 HTTP/1.1\r\n");
    assert!(tunnel.contains(SENT), "{tunnel}");
    let plain = one("GET http://plain.example.org/vms.csv HTTP/1.1\r\n");
    assert!(plain.contains(SENT), "{plain}");
    let inside = heads
        .iter()
        .filter(|head| head.starts_with("GET /vms.csv "));
    let (secure, here): (Vec<_>, Vec<_>) =
        inside.partition(|head| head.contains("host: secure.example.org\r\n"));
    assert!(!secure.is_empty() && !here.is_empty(), "{heads:?}");
    for head in secure.into_iter().chain(here) {
        assert!(
            !proves(head),
            "who may use the proxy is told to it alone: {head}"
        );
    }
    assert!(
        !heads.iter().any(|head| head.contains("nowhere")),
        "{heads:?}"
    );
}

async fn refreshed(process: &Process, name: &str) -> Result<(), String> {
    let request = pb::RefreshBackendRequest {
        name: name.to_owned(),
        force: true,
    };
    let refreshed = process.client.clone().refresh_backend(request).await;
    refreshed
        .map(drop)
        .map_err(|status| status.message().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_does_wrong_is_told_by_its_name_and_costs_nobody_else() {
    let proxy = Proxy::start();
    let process = Process::run(proxy.gateway(&both())).await;
    for (manner, secure, plain) in [
        (
            Manner::Says("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
            "tunnel error: unsuccessful",
            "(403)",
        ),
        (
            Manner::Says("HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n"),
            "proxy authorization required",
            "answers 407",
        ),
        (
            Manner::Says("220 mail.example.org is ready\r\n\r\n"),
            "tunnel error: unsuccessful",
            "ended the connection",
        ),
        (
            Manner::Says(""),
            "tunnel error: unexpected",
            "ended the connection",
        ),
        (
            Manner::Floods("HTTP/1.1 200 OK\r\nx: "),
            "headers too long",
            "ended the connection",
        ),
        (Manner::Hangs, "no answer from", "no answer from"),
    ] {
        *proxy.manner.lock().unwrap() = manner;
        for (name, words) in [("secure", secure), ("plain", plain)] {
            let told = refreshed(&process, name).await.unwrap_err();
            let by_way = format!("(by way of the proxy http://{})", proxy.address);
            assert!(
                told.contains(words) && told.contains(&by_way),
                "{manner:?}: {told}"
            );
        }
        let offers = process.offers().await.offers;
        assert!(ids(&offers).contains(&STEADY), "{manner:?}: {offers:?}");
    }
    *proxy.manner.lock().unwrap() = Manner::Serves;
    for name in ["secure", "plain"] {
        refreshed(&process, name).await.unwrap();
    }
    let log = process.log.lock().unwrap().join("\n");
    for seen in [log, process.metrics()] {
        for secret in ["s3cret", &SENT["Basic ".len()..]] {
            assert!(!seen.contains(secret), "{seen}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_not_there_or_cannot_be_used_fails_its_own_backends_alone() {
    let proxy = Proxy::start();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{USER}@{}", nobody.local_addr().unwrap());
    drop(nobody);
    let mut command = proxy.gateway(&both());
    command.env("HTTPS_PROXY", &gone);
    command.env("http_proxy", format!("socks5://{USER}@localhost:1080"));
    let shown = PathBuf::from(command.get_program());
    let process = Process::run(command).await;
    let told = refreshed(&process, "secure").await.unwrap_err();
    let name = gone.replace(&format!("{USER}@"), "");
    assert!(
        told.contains("cannot connect to secure.example.org") && told.contains(&name),
        "{told}"
    );
    let told = refreshed(&process, "plain").await.unwrap_err();
    assert!(
        told.contains("http_proxy") && told.contains("socks5") && !told.contains("s3cret"),
        "{told}"
    );
    assert_eq!(ids(&process.offers().await.offers), [STEADY]);
    let log = process.log.lock().unwrap().join("\n");
    assert!(!log.contains("s3cret"), "{log}");
    assert!(proxy.heads().is_empty(), "nothing else is tried");
    let printed = Command::new(shown)
        .arg("--print-config")
        .env("HTTPS_PROXY", gone)
        .output();
    let printed = String::from_utf8(printed.unwrap().stdout).unwrap();
    assert!(
        printed.contains("listen") && !printed.contains("s3cret"),
        "{printed}"
    );
}
