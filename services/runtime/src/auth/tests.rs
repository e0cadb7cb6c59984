use super::*;

const LOOPBACK: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
const REMOTE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)));

fn entries(text: &str) -> Result<Vec<Entry>, Rejected> {
    let mut table: toml::Table = text.parse().unwrap();
    read_entries(table.remove("auth").unwrap())
}

fn access() -> Access {
    let token: String = Sha256::digest(b"secret")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let text = format!(
        r#"
        [[auth]]
        name = "alice"
        role = "operator"
        token_sha256 = "{token}"
        [[auth]]
        name = "planner"
        role = "component"
        san = "planner.example.org"
        [[auth]]
        name = "machines"
        role = "agent"
        san = "*.machines.example.org"
        "#
    );
    Access::new(entries(&text).unwrap(), true, false)
}

fn with_token(access: &Access, token: &str) -> String {
    match access.with_token(token) {
        Ok(principal) => principal.id().to_owned(),
        Err(status) => status.code().to_string(),
    }
}

fn without(access: &Access, peer: Option<IpAddr>, san: Option<&str>) -> String {
    let sans: Vec<String> = san.into_iter().map(str::to_owned).collect();
    access.without_token(peer, &sans).id().to_owned()
}

#[test]
fn tokens_and_certificates_tell_who_calls() {
    let access = access();
    assert_eq!(with_token(&access, "secret"), "operator:alice");
    for (san, expected) in [
        ("Planner.example.org", "component:planner"),
        ("m1.machines.example.org", "agent:m1.machines.example.org"),
        ("a.b.machines.example.org", "anonymous:"),
        ("stranger", "anonymous:"),
        ("spiffe://m1.machines.example.org", "anonymous:"),
        ("me@m1.machines.example.org", "anonymous:"),
    ] {
        assert_eq!(without(&access, REMOTE, Some(san)), expected, "{san}");
    }
    let bad = access.with_token("guess").unwrap_err();
    assert_eq!(bad.code(), Code::Unauthenticated);
    assert_eq!(without(&access, LOOPBACK, None), "anonymous:");
}

#[test]
fn a_uri_is_the_same_only_to_the_letter() {
    let text = r#"
        [[auth]]
        name = "root"
        role = "admin"
        san = "spiffe://example.org/team/root"
        "#;
    let access = Access::new(entries(text).unwrap(), true, false);
    let exact = "spiffe://example.org/team/root";
    assert_eq!(without(&access, REMOTE, Some(exact)), "admin:root");
    for other in [
        "spiffe://example.org/team/Root",
        "spiffe://example.org/TEAM/root",
    ] {
        assert_eq!(without(&access, REMOTE, Some(other)), "anonymous:");
    }
}

#[test]
fn without_any_credentials_configured_loopback_is_admin() {
    let open = Access::new(Vec::new(), false, false);
    assert_eq!(without(&open, LOOPBACK, None), "admin:local");
    let mapped = Some("::ffff:127.0.0.1".parse().unwrap());
    assert_eq!(without(&open, mapped, None), "admin:local");
    assert_eq!(without(&open, REMOTE, None), "anonymous:");
    let insecure = Access::new(Vec::new(), false, true);
    assert_eq!(without(&insecure, REMOTE, None), "admin:local");
    let with_ca = Access::new(Vec::new(), true, true);
    assert_eq!(without(&with_ca, LOOPBACK, None), "anonymous:");
}

#[test]
fn a_component_knows_tokens_of_its_own() {
    struct Own;
    impl Verify for Own {
        fn verify(&self, token: &str) -> Option<Principal> {
            let name = token.strip_prefix("own-")?;
            Some(Principal::new(Role::Agent, name))
        }
    }
    let access = Access::new(Vec::new(), false, false).with_verifier(Arc::new(Own));
    assert_eq!(with_token(&access, "own-m1"), "agent:m1");
    access.with_token("foreign").unwrap_err();
}

#[test]
fn roles_are_sets_with_admins_in_each() {
    for roles in [
        Roles::READ,
        Roles::OPERATE,
        Roles::AGENT,
        Roles::COMPONENT,
        Roles::ANYONE,
    ] {
        assert!(roles.has(Role::Admin));
    }
    assert!(Roles::READ.has(Role::Viewer) && !Roles::OPERATE.has(Role::Viewer));
    assert!(!Roles::KNOWN.has(Role::Anonymous) && Roles::ANYONE.has(Role::Anonymous));
    assert!(!Roles::READ.has(Role::Agent));
}

#[test]
fn entries_that_make_no_sense_are_refused_in_words() {
    let hash = "a".repeat(64);
    for (entry, words) in [
        (r#"name = "a"
            role = "king"
            san = "x""#.to_owned(), "viewer, operator, admin, component, agent"),
        (r#"name = "a"
            role = "admin""#.to_owned(), "one of san and token_sha256"),
        (format!("name = \"a\"\nrole = \"admin\"\nsan = \"x\"\ntoken_sha256 = \"{hash}\""), "one of"),
        ("name = \"a\"\nrole = \"admin\"\ntoken_sha256 = \"abc\"".to_owned(), "64 hexadecimal"),
        ("name = \"\"\nrole = \"admin\"\nsan = \"x\"".to_owned(), "not empty"),
        ("name = \"a\"\nrole = \"admin\"\nsan = \"x\"\ncolour = 1".to_owned(), "colour"),
        ("name = \"a\"\nrole = \"admin\"\nsan = \"x\"\n[[auth]]\nname = \"b\"\nrole = \"viewer\"\nsan = \"x\"".to_owned(), "same proof"),
    ] {
        let error = entries(&format!("[[auth]]\n{entry}")).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn an_id_told_by_another_instance_is_read_back() {
    for role in Role::ALL {
        let principal = Principal::new(role, "a:b");
        assert_eq!(Principal::parse(principal.id()), Some(principal));
    }
    for text in ["", "admin", "god:alice", ":x"] {
        assert_eq!(Principal::parse(text), None, "{text}");
    }
}
