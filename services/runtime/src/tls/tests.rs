//! Real handshakes with certificates made for each test.

use std::fs;
use std::path::Path;

use muster_proto::health::v1::HealthCheckRequest;
use muster_proto::health::v1::health_client::HealthClient;
use muster_proto::ops::v1::GetStatusRequest;
use muster_proto::ops::v1::ListInstancesRequest;
use muster_proto::ops::v1::ops_service_client::OpsServiceClient;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tonic::{Code, Status};

use super::*;
use crate::auth::{Access, read_entries};
use crate::clock::Clock;
use crate::connect::{Channel, Connector, Options};
use crate::health::{Found, Health, Tier};
use crate::layers::tests::Running;
use crate::server::Settings;

/// An authority that signs certificates into a folder.
pub(crate) struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The files of a certificate for `names`.
    pub(crate) fn sign(&self, file: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        self.sign_as(file, names, |_| {})
    }

    /// The same, past its time.
    fn sign_expired(&self, file: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        self.sign_as(file, names, |params| {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        })
    }

    fn sign_as(
        &self,
        file: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |kind: &str| self.folder.path().join(format!("{file}.{kind}"));
        fs::write(path("crt"), certificate.pem()).unwrap();
        fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("crt"), path("key"))
    }

    fn server(&self, mode: Mode, client_ca: Option<PathBuf>) -> Server {
        let (certificate, key) = self.sign("server", &["localhost"]);
        Server::load(mode, certificate, key, client_ca).unwrap()
    }

    fn client(&self, identity: Option<(PathBuf, PathBuf)>) -> Client {
        Client::load(Some(self.ca()), identity, None).unwrap()
    }
}

fn settings(tls: Server, access: Access) -> Settings {
    Settings {
        tls: Some(tls),
        access,
        ..Settings::default()
    }
}

/// A server with `settings`, which its own client cannot reach in plaintext.
async fn start(settings: Settings) -> Running {
    Running::start_lazily(settings).await
}

fn dial(running: &Running, client: &Client) -> Channel {
    let url = running.url.replace("http://127.0.0.1", "https://localhost");
    client
        .equip(Connector::new(Options::default()))
        .channel(&url.parse().unwrap())
}

async fn caller(channel: Channel) -> Result<String, Status> {
    let answer = OpsServiceClient::new(channel)
        .get_status(GetStatusRequest {})
        .await?;
    Ok(answer.into_inner().component)
}

#[tokio::test]
async fn required_takes_tls_only() {
    let authority = Authority::new();
    let mut running = start(settings(
        authority.server(Mode::Required, None),
        Access::default(),
    ))
    .await;
    let secure = dial(&running, &authority.client(None));
    assert_eq!(caller(secure).await.unwrap(), "admin:local");
    running
        .client
        .get_status(GetStatusRequest {})
        .await
        .unwrap_err();
    let stranger = dial(&running, &Authority::new().client(None));
    assert_eq!(
        caller(stranger).await.unwrap_err().code(),
        Code::Unavailable
    );
}

#[tokio::test]
async fn optional_takes_both_on_one_port() {
    let authority = Authority::new();
    let mut running = start(settings(
        authority.server(Mode::Optional, None),
        Access::default(),
    ))
    .await;
    running
        .client
        .get_status(GetStatusRequest {})
        .await
        .unwrap();
    caller(dial(&running, &authority.client(None)))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_client_certificate_is_who_calls_and_health_needs_none() {
    let (servers, people) = (Authority::new(), Authority::new());
    let entries = "[[auth]]\nname = \"alice\"\nrole = \"operator\"\nsan = \"alice.example.org\"";
    let mut table: toml::Table = entries.parse().unwrap();
    let entries = read_entries(table.remove("auth").unwrap()).unwrap();
    let tls = servers.server(Mode::Required, Some(people.ca()));
    assert!(tls.has_client_ca());
    let running = start(settings(tls, Access::new(entries, true, false))).await;

    let alice = servers.client(Some(people.sign("alice", &["alice.example.org"])));
    assert_eq!(
        caller(dial(&running, &alice)).await.unwrap(),
        "operator:alice"
    );

    let nobody = dial(&running, &servers.client(None));
    assert_eq!(
        caller(nobody.clone()).await.unwrap(),
        "anonymous:",
        "the method lets anyone in"
    );
    let refused = OpsServiceClient::new(nobody.clone())
        .list_instances(ListInstancesRequest {})
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    HealthClient::new(nobody)
        .check(HealthCheckRequest::default())
        .await
        .unwrap();

    let stranger = servers.client(Some(people.sign("bob", &["bob.example.org"])));
    let stranger = dial(&running, &stranger);
    let refused = OpsServiceClient::new(stranger)
        .list_instances(ListInstancesRequest {})
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("bob.example.org"), "{refused}");

    let forged = servers.client(Some(Authority::new().sign("alice", &["alice.example.org"])));
    let forged = dial(&running, &forged);
    let refused = caller(forged.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "whatever is called");
    let health = HealthClient::new(forged)
        .check(HealthCheckRequest::default())
        .await;
    assert_eq!(health.unwrap_err().code(), Code::Unauthenticated);
}

fn health() -> Health {
    Health::new(Clock::system())
}

fn certificate_check(health: &Health) -> Found {
    let report = health.report();
    report
        .checks
        .iter()
        .find(|check| check.name == "certificates")
        .unwrap()
        .found
}

#[tokio::test(start_paused = true)]
async fn changed_files_are_read_again_and_broken_ones_left() {
    let authority = Authority::new();
    let server = authority.server(Mode::Required, None);
    let health = health();
    let check = health.check("certificates", Tier::Auxiliary);
    let _following = crate::task::spawn(server.clone().follow(check));
    let first = server.current();
    tokio::time::sleep(2 * LOOK_EVERY).await;
    assert!(
        Arc::ptr_eq(&first, &server.current()),
        "nothing has changed"
    );

    // A longer name, so that the size tells the change even within one tick of the file's clock.
    let (certificate, _) = authority.sign("server", &["localhost", "another.example.org"]);
    tokio::time::sleep(2 * LOOK_EVERY).await;
    let second = server.current();
    assert!(!Arc::ptr_eq(&first, &second));

    fs::write(&certificate, "half a certificate").unwrap();
    tokio::time::sleep(2 * LOOK_EVERY).await;
    assert!(Arc::ptr_eq(&second, &server.current()));
    assert_eq!(certificate_check(&health), Found::Failed);
    assert!(health.report().degraded);

    authority.sign("server", &["localhost"]);
    tokio::time::sleep(2 * LOOK_EVERY).await;
    assert!(!Arc::ptr_eq(&second, &server.current()));
    assert_eq!(certificate_check(&health), Found::Ok);
}

/// Puts `text` in a file that looks as unchanged as one whose owner was changed.
fn replace_unseen(path: &Path, text: &str) {
    let before = fs::metadata(path).unwrap();
    assert_eq!(before.len(), u64::try_from(text.len()).unwrap());
    fs::write(path, text).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_used_is_read_until_it_can() {
    let authority = Authority::new();
    let server = authority.server(Mode::Required, None);
    let token = authority.folder.path().join("token");
    fs::write(&token, "first").unwrap();
    let client = Client::load(Some(authority.ca()), None, Some(token.clone())).unwrap();
    let health = health();
    let check = health.check("certificates", Tier::Auxiliary);
    let _following = crate::task::spawn(server.clone().follow(check));
    let _both = crate::task::spawn(client.clone().follow());
    tokio::time::sleep(2 * LOOK_EVERY).await;
    let first = server.current();

    let (certificate, _) = authority.sign("server", &["localhost", "another.example.org"]);
    let good = fs::read_to_string(&certificate).unwrap();
    fs::write(&certificate, " ".repeat(good.len())).unwrap();
    fs::write(&token, " ".repeat(20)).unwrap();
    tokio::time::sleep(2 * LOOK_EVERY).await;
    assert_eq!(certificate_check(&health), Found::Failed);

    replace_unseen(&certificate, &good);
    replace_unseen(&token, "the-second-of-tokens");
    tokio::time::sleep(2 * LOOK_EVERY).await;
    assert_eq!(certificate_check(&health), Found::Ok);
    assert!(!Arc::ptr_eq(&first, &server.current()));
    let shown = client.credential().unwrap();
    assert_eq!(shown, "Bearer the-second-of-tokens");
}

#[tokio::test(start_paused = true)]
async fn what_changed_between_the_start_and_the_first_look_is_read() {
    let authority = Authority::new();
    let server = authority.server(Mode::Required, None);
    let first = server.current();
    // The store is opened meanwhile, which may take its time.
    authority.sign("server", &["localhost", "another.example.org"]);
    let check = health().check("certificates", Tier::Auxiliary);
    let _following = crate::task::spawn(server.clone().follow(check));
    tokio::time::sleep(2 * LOOK_EVERY).await;
    assert!(!Arc::ptr_eq(&first, &server.current()));
}

#[test]
fn files_that_cannot_be_used_are_refused_by_name() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("server", &["localhost"]);
    let other = authority.sign("other", &["localhost"]).1;
    let load = |certificate: &Path, key: &Path, ca: Option<PathBuf>| {
        Server::load(Mode::Required, certificate.to_owned(), key.to_owned(), ca)
            .unwrap_err()
            .to_string()
    };
    assert!(load(Path::new("/nowhere.crt"), &key, None).contains("/nowhere.crt"));
    assert!(load(&key, &key, None).contains("no certificate"));
    assert!(load(&certificate, &certificate, None).contains("no private key"));
    load(&certificate, &other, None);
    assert!(load(&certificate, &key, Some(key.clone())).contains("no certificate"));
}

#[tokio::test]
async fn a_token_file_is_what_calls_show() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "looks\n").unwrap();
    let client = Client::load(None, None, Some(file.clone())).unwrap();
    let running = crate::layers::tests::guarded().await;
    let channel = client
        .equip(Connector::new(Options::default()))
        .channel(&running.url.parse().unwrap());
    assert_eq!(caller(channel).await.unwrap(), "viewer:v");
    fs::write(&file, "\n").unwrap();
    assert!(
        Client::load(None, None, Some(file))
            .unwrap_err()
            .to_string()
            .contains("no token")
    );
}

/// What a caller of `running` is told by `client` at `url`.
async fn told(client: &Client, url: &str) -> String {
    let connector = client.equip(Connector::new(Options::default()));
    let channel = connector.channel(&url.parse().unwrap());
    caller(channel).await.unwrap_err().message().to_owned()
}

#[tokio::test]
async fn each_mistake_is_told_in_words_that_say_what_to_do() {
    let authority = Authority::new();
    let tls = authority.server(Mode::Required, Some(authority.ca()));
    let running = start(settings(tls, Access::new(Vec::new(), true, false))).await;
    let secure = running.url.replace("http://127.0.0.1", "https://localhost");
    let port = running.url.rsplit_once(':').unwrap().1;

    let plain = Client::load(None, None, None).unwrap();
    let words = told(&plain, &running.url).await;
    assert!(
        words.contains("TLS only") && words.contains("https://"),
        "{words}"
    );

    let words = told(&plain, &secure).await;
    assert!(words.contains("--ca"), "{words}");

    let words = told(
        &authority.client(None),
        &format!("https://127.0.0.1:{port}"),
    )
    .await;
    assert!(
        words.contains("not valid for name") && words.contains("localhost"),
        "{words}"
    );

    let words = told(&Authority::new().client(None), &secure).await;
    assert!(words.contains("--ca"), "{words}");

    let expired = authority.client(Some(authority.sign_expired("old", &["localhost"])));
    let words = told(&expired, &secure).await;
    assert!(words.contains("expired"), "{words}");

    let forged = authority.client(Some(Authority::new().sign("alice", &["alice"])));
    let words = told(&forged, &secure).await;
    assert!(words.contains("certificate"), "{words}");

    let stranger = start(Settings::default()).await;
    let secure = stranger
        .url
        .replace("http://127.0.0.1", "https://localhost");
    let words = told(&authority.client(None), &secure).await;
    assert!(words.contains("http://"), "{words}");
}

#[tokio::test]
async fn an_expired_server_is_told_as_such() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign_expired("server", &["localhost"]);
    let tls = Server::load(Mode::Required, certificate, key, None).unwrap();
    let running = start(settings(tls, Access::default())).await;
    let secure = running.url.replace("http://127.0.0.1", "https://localhost");
    let words = told(&authority.client(None), &secure).await;
    assert!(words.contains("expired"), "{words}");
}

#[tokio::test]
async fn a_connection_outlives_the_certificate_that_it_was_opened_with() {
    let authority = Authority::new();
    let tls = authority.server(Mode::Required, None);
    let running = start(settings(tls.clone(), Access::default())).await;
    let old = dial(&running, &authority.client(None));
    caller(old.clone()).await.unwrap();
    // What stands in the files now, the first client does not believe.
    let other = Authority::new();
    let (certificate, key) = other.sign("server", &["localhost"]);
    fs::copy(certificate, authority.folder.path().join("server.crt")).unwrap();
    fs::copy(key, authority.folder.path().join("server.key")).unwrap();
    tls.reload(&health().check("certificates", Tier::Auxiliary));
    caller(old).await.expect("the connection goes on");
    caller(dial(&running, &other.client(None))).await.unwrap();
    let refused = caller(dial(&running, &authority.client(None))).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
}

#[test]
fn there_is_one_implementation_of_cryptography() {
    // With two, rustls panics at the first handshake of a process that chose none.
    let chosen = rustls::ClientConfig::builder();
    let ours = provider();
    assert_eq!(
        format!("{:?}", chosen.crypto_provider().key_provider),
        format!("{:?}", ours.key_provider)
    );
}
