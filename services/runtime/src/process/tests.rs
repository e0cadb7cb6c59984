//! What a process may serve, and what it refuses to, by its flags.

use clap::Parser as _;

use super::security::Security;
use crate::args::CommonArgs;
use crate::auth::{Entry, Proof, Role};
use crate::tls::tests::Authority;

#[derive(Debug, clap::Parser)]
struct Flags {
    #[command(flatten)]
    common: CommonArgs,
}

const LOOPBACK: &str = "127.0.0.1:0";
const ANYWHERE: &str = "0.0.0.0:0";

fn check(listen: &str, entries: Vec<Entry>, more: &[&str]) -> Result<Security, String> {
    let words = ["x", "--ops-listen", "0.0.0.0:0", "--listen", listen];
    let flags = Flags::try_parse_from(words.iter().chain(more)).unwrap();
    Security::check(&flags.common, entries)
}

fn alice() -> Vec<Entry> {
    let proof = Proof::Token([7; 32]);
    vec![Entry {
        name: "alice".to_owned(),
        role: Role::Operator,
        proof,
    }]
}

#[test]
fn beyond_loopback_it_takes_tls_and_credentials_or_the_word_insecure() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("server", &["localhost"]);
    let ca = authority.ca();
    let tls = [
        "--tls-cert",
        certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    let required = [&["--tls", "required"], &tls[..]].concat();
    let optional = [&["--tls", "optional"], &tls[..]].concat();
    let with_ca = [&["--tls-client-ca", ca.to_str().unwrap()], &required[..]].concat();

    let plain = check(LOOPBACK, Vec::new(), &[]).unwrap();
    assert!(plain.tls.is_none() && plain.access.is_open());
    check("[::1]:0", Vec::new(), &[]).unwrap();
    check("[::ffff:127.0.0.1]:0", Vec::new(), &[]).unwrap();
    check(ANYWHERE, Vec::new(), &["--insecure"]).unwrap();
    check(LOOPBACK, Vec::new(), &required).unwrap();
    check(ANYWHERE, alice(), &required).unwrap();
    check(ANYWHERE, alice(), &optional).unwrap();
    let verified = check(ANYWHERE, Vec::new(), &with_ca).unwrap();
    assert!(verified.tls.is_some_and(|tls| tls.has_client_ca()) && !verified.access.is_open());

    for (listen, entries, more, words) in [
        (ANYWHERE, Vec::new(), &[][..], "--insecure"),
        ("[::]:0", Vec::new(), &[], "--insecure"),
        ("10.0.0.1:0", alice(), &[], "plaintext"),
        (
            ANYWHERE,
            Vec::new(),
            &required,
            "every caller would be an admin",
        ),
        (LOOPBACK, Vec::new(), &tls, "--tls is off"),
        (
            LOOPBACK,
            Vec::new(),
            &["--tls", "required"],
            "--tls-cert and --tls-key",
        ),
        (
            LOOPBACK,
            Vec::new(),
            &["--tls", "required", "--tls-cert", "/no", "--tls-key", "/no"],
            "/no",
        ),
        (LOOPBACK, Vec::new(), &["--key", "x"], "go together"),
        (LOOPBACK, Vec::new(), &["--cert", "x", "--key", "x"], "--ca"),
        (LOOPBACK, Vec::new(), &["--token-file", "/no"], "/no"),
    ] {
        let refused = check(listen, entries, more).unwrap_err();
        assert!(refused.contains(words), "{listen} {more:?}: {refused}");
    }
}
