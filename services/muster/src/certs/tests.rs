//! What is planned, and what stands in the files.

use std::time::Duration;

use muster_runtime::{clock::Clock, tls};

use super::{
    issue::{Authority, Pair, Validity},
    *,
};

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn everyone_has_one_with_a_name_that_is_theirs_alone() {
    let leaves = plan(
        &words(&["10.0.0.7", "LOCALHOST"]),
        &words(&["w1", "w2", "w1"]),
    );
    let files: Vec<_> = leaves.iter().map(|leaf| leaf.file.as_str()).collect();
    let expected = [
        "offers-gateway",
        "worker-registry",
        "replica-manager",
        "agent-w1",
        "agent-w2",
        "admin",
        "operator",
        "viewer",
    ];
    assert_eq!(files, expected);
    let identities: BTreeSet<_> = leaves.iter().map(|leaf| &leaf.identity).collect();
    assert_eq!(identities.len(), leaves.len());
    assert_eq!(
        leaves[3].names(),
        [
            "w1.agent.muster",
            "w1",
            "localhost",
            "127.0.0.1",
            "::1",
            "10.0.0.7"
        ]
    );
    assert_eq!(leaves[5].names(), ["admin.person.muster"]);
    assert_eq!(plan(&[], &[])[3].file, "agent-worker-agent");
}

#[test]
fn hosts_are_names_or_addresses() {
    for good in ["a", "gpu-1.example.org", "*.example.org", "10.0.0.1", "::1"] {
        assert_eq!(parse_host(good).as_deref(), Ok(good));
    }
    let long = "a".repeat(64);
    for bad in [
        "", ".", "a..b", "*", "a.*", "http://a", "a:7401", "[::1]", "a b", "ä", &long,
    ] {
        parse_host(bad).unwrap_err();
    }
}

fn validity(lasts: Duration) -> Validity {
    Validity {
        now: Clock::system().now(),
        lasts,
    }
}

fn load(authority: &str, pair: &Pair) -> Result<tls::Server, tls::Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, text) in [
        ("ca", authority),
        ("crt", &pair.certificate),
        ("key", &pair.key),
    ] {
        std::fs::write(path(name), text).unwrap();
    }
    tls::Server::load(
        tls::Mode::Required,
        path("crt"),
        path("key"),
        Some(path("ca")),
    )
}

#[test]
fn an_authority_signs_on_from_its_key_alone_however_long_it_is_to_last() {
    for lasts in [Duration::from_secs(1), Duration::MAX] {
        let (_, pair) = Authority::generate(validity(lasts)).unwrap();
        let again = Authority::from_key(&pair.key).unwrap();
        let leaf = again.sign(&plan(&[], &[])[0], validity(lasts)).unwrap();
        load(&pair.certificate, &leaf).unwrap();
        let foreign = Pair {
            key: pair.key.clone(),
            ..leaf
        };
        load(&pair.certificate, &foreign).unwrap_err();
    }
}

#[test]
fn configurations_say_who_is_who_and_where() {
    let leaves = plan(&[], &words(&["w1"]));
    let folder = std::path::Path::new("/certs");
    let text = config::component(folder, &leaves[2], &leaves, "::1");
    let table: toml::Table = text.parse().unwrap();
    assert_eq!(
        table["tls_cert"].as_str(),
        Some("/certs/replica-manager.crt")
    );
    assert_eq!(table["workers_addr"].as_str(), Some("https://[::1]:7401"));
    let entries = muster_runtime::auth::read_entries(table["auth"].clone()).unwrap();
    let roles: Vec<_> = entries
        .iter()
        .map(|entry| (entry.name.as_str(), entry.role.name()))
        .collect();
    let expected = [
        ("offers-gateway", "component"),
        ("worker-registry", "component"),
        ("replica-manager", "component"),
        ("admin", "admin"),
        ("operator", "operator"),
        ("viewer", "viewer"),
        ("agents", "agent"),
    ];
    assert_eq!(roles, expected);
}
