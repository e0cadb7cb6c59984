//! What is asked for by which words, as Go's flags have it.

use super::*;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn options(line: &str) -> Options {
    match parse(words(line)) {
        Ok(Asked::Check(options)) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

fn refused(line: &str) -> Refused {
    parse(words(line)).expect_err(line)
}

#[test]
fn defaults_are_those_of_grpc_health_probe() {
    let found = options("-addr :7401");
    let wanted = Options {
        addr: ":7401".to_owned(),
        service: String::new(),
        user_agent: "grpc_health_probe".to_owned(),
        connect_timeout: Duration::from_secs(1),
        rpc_timeout: Duration::from_secs(1),
        headers: Vec::new(),
        tls: None,
        gzip: false,
        verbose: false,
    };
    assert_eq!(found, wanted);
}

#[test]
fn a_flag_has_one_dash_or_two_and_its_value_beside_or_behind() {
    let wanted = options("-addr a:1 -service s -connect-timeout 500ms -rpc-timeout 1m30s -v -gzip");
    for line in [
        "--addr a:1 --service=s --connect-timeout=500ms --rpc-timeout 90s --v --gzip",
        "-addr=a:1 -service=s -connect-timeout=.5s -rpc-timeout=1m30s -v=true -gzip=1",
        "-addr=b:2 -addr a:1 -service s -connect-timeout 500ms -rpc-timeout 1.5m -v -gzip=F -gzip=t",
        "-addr a:1 -service s -connect-timeout 500ms -rpc-timeout 90s -v -gzip stops -tls",
        "-addr a:1 -service s -connect-timeout 500ms -rpc-timeout 90s -v -gzip -- -nonsense",
    ] {
        assert_eq!(options(line), wanted, "{line}");
    }
    assert_eq!(wanted.connect_timeout, Duration::from_millis(500));
    assert_eq!(wanted.rpc_timeout, Duration::from_secs(90));
}

#[test]
fn a_value_may_hold_equals_signs_and_begin_with_a_dash() {
    let found = options("-addr a:1 -service=a=b -user-agent -x");
    assert_eq!(found.service, "a=b");
    assert_eq!(found.user_agent, "-x");
}

#[test]
fn headers_are_collected() {
    let words = [
        "-addr",
        "a:1",
        "-rpc-header",
        "X-Key:  a: b",
        "-rpc-header=two:2",
    ];
    let Ok(Asked::Check(found)) = parse(words.map(str::to_owned)) else {
        panic!("refused");
    };
    let wanted = [("x-key", "a: b"), ("two", "2")];
    assert_eq!(
        found.headers,
        wanted.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[test]
fn tls_says_whom_to_believe_and_who_asks() {
    let tls = |line: &str| options(line).tls.expect(line);
    assert_eq!(tls("-addr a:1 -tls"), Tls::default());
    assert_eq!(tls("-addr a:1 -tls -tls-no-verify").verify, Verify::Nobody);
    let all = tls(
        "-addr a:1 -tls -tls-ca-cert ca -tls-client-cert c -tls-client-key k -tls-server-name n",
    );
    assert_eq!(all.verify, Verify::Authorities("ca".into()));
    assert_eq!(all.identity, Some(("c".into(), "k".into())));
    assert_eq!(all.server_name.as_deref(), Some("n"));
    assert_eq!(options("-addr a:1 -tls -tls=false").tls, None);
}

#[test]
fn flags_that_do_not_go_together_are_named() {
    for (line, message) in [
        ("", "error: -addr not specified"),
        ("-addr=", "error: -addr not specified"),
        ("stray -addr a:1", "error: -addr not specified"),
        (
            "-addr a:1 -connect-timeout 0",
            "error: -connect-timeout must be greater than zero (specified: 0s)",
        ),
        (
            "-addr a:1 -rpc-timeout -90s",
            "error: -rpc-timeout must be greater than zero (specified: -1m30s)",
        ),
        (
            "-addr a:1 -tls-no-verify",
            "error: specified -tls-no-verify without specifying -tls",
        ),
        (
            "-addr a:1 -tls-ca-cert f",
            "error: specified -tls-ca-cert without specifying -tls",
        ),
        (
            "-addr a:1 -tls-client-cert f",
            "error: specified -tls-client-cert without specifying -tls",
        ),
        (
            "-addr a:1 -tls-server-name f",
            "error: specified -tls-server-name without specifying -tls",
        ),
        (
            "-addr a:1 -tls -tls-client-cert f",
            "error: specified -tls-client-cert without specifying -tls-client-key",
        ),
        (
            "-addr a:1 -tls -tls-client-key f",
            "error: specified -tls-client-key without specifying -tls-client-cert",
        ),
        (
            "-addr a:1 -tls -tls-no-verify -tls-ca-cert f",
            "error: cannot specify -tls-ca-cert with -tls-no-verify (CA cert would not be used)",
        ),
        (
            "-addr a:1 -tls -tls-no-verify -tls-server-name f",
            "error: cannot specify -tls-server-name with -tls-no-verify (server name would not be used)",
        ),
        (
            "-addr a:1 -spiffe",
            "error: -spiffe is not supported by this probe",
        ),
        (
            "-addr a:1 -alts",
            "error: -alts is not supported by this probe",
        ),
    ] {
        let found = refused(line);
        assert_eq!(found.message, message, "{line}");
        assert!(!found.usage, "{line}");
    }
}

#[test]
fn words_that_are_no_flags_get_the_usage() {
    for (line, message) in [
        ("-nonsense", "flag provided but not defined: -nonsense"),
        ("-addr", "flag needs an argument: -addr"),
        ("---addr a:1", "bad flag syntax: ---addr"),
        ("-=x", "bad flag syntax: -=x"),
        (
            "-tls=maybe",
            "invalid boolean value \"maybe\" for -tls: parse error",
        ),
        (
            "-rpc-timeout 5",
            "invalid value \"5\" for flag -rpc-timeout: parse error",
        ),
        (
            "-rpc-header x",
            "invalid value \"x\" for flag -rpc-header: invalid RPC header, expected 'name: value', got x",
        ),
        ("-h", ""),
        ("--help", ""),
    ] {
        let found = refused(line);
        assert_eq!(found.message, message, "{line}");
        assert!(found.usage, "{line}");
    }
    let usage = usage();
    for (name, _, _) in FLAGS {
        assert!(usage.contains(&format!("  -{name}")), "{name}");
    }
}

#[test]
fn the_version_is_asked_for_without_an_address() {
    assert_eq!(parse(words("-version")), Ok(Asked::Version));
}
