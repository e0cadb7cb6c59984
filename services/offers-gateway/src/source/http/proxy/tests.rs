use super::*;

/// What is on the way to `url` where these variables are set; what cannot be used is told.
fn way(variables: &[(&str, &str)], url: &str) -> String {
    let proxies = Proxies::read(|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    });
    match proxies.to(&url.parse().unwrap()) {
        Ok(None) => "direct".to_owned(),
        Ok(Some(proxy)) => proxy.to_string(),
        Err(failure) => failure.fault.message,
    }
}

const SECURE: &str = "https://api.example.org/v1";
const PLAIN: &str = "http://list.example.org/vms.csv";

#[test]
fn each_variable_is_for_its_addresses_and_the_first_that_is_not_empty_counts() {
    let (a, b) = ("http://a.example.org:3128", "http://b.example.org:3128");
    for (variables, secure, plain) in [
        (&[][..], "direct", "direct"),
        (&[("HTTPS_PROXY", a)], a, "direct"),
        (&[("http_proxy", a)], "direct", a),
        (&[("all_proxy", a)], a, a),
        (&[("ALL_PROXY", a), ("https_proxy", b)], b, a),
        (&[("HTTPS_PROXY", a), ("https_proxy", b)], a, "direct"),
        (&[("HTTPS_PROXY", ""), ("https_proxy", b)], b, "direct"),
        (&[("HTTPS_PROXY", ""), ("ALL_PROXY", a)], a, a),
    ] {
        assert_eq!(way(variables, SECURE), secure, "{variables:?}");
        assert_eq!(way(variables, PLAIN), plain, "{variables:?}");
    }
    let bare = [("ALL_PROXY", "a.example.org:3128")];
    assert_eq!(way(&bare, SECURE), a, "http:// is what is meant");
    let ipv6 = [("ALL_PROXY", "http://[fd00::1]:3128/")];
    assert_eq!(way(&ipv6, SECURE), "http://[fd00::1]:3128");
}

#[test]
fn what_no_proxy_names_and_what_is_here_is_asked_directly() {
    let named = |no: &'static str| [("ALL_PROXY", "http://a.example.org:3128"), ("no_proxy", no)];
    for (no, url, direct) in [
        ("", SECURE, false),
        ("*", SECURE, true),
        ("example.org", SECURE, true),
        (".example.org", SECURE, true),
        (" other.org , API.example.org ", SECURE, true),
        ("pi.example.org", SECURE, false),
        ("10.0.0.0/8", "http://10.1.2.3:8080/", true),
        ("10.0.0.0/8", "http://11.1.2.3/", false),
        ("fd00::1", "https://[fd00::1]/", true),
        ("", "http://localhost:9/", true),
        ("", "https://LOCALHOST/", true),
        ("", "http://127.0.0.2:9/", true),
        ("", "http://[::1]:9/", true),
        ("", "http://[::ffff:127.0.0.1]:9/", true),
        ("", "http://localhost.example.org/", false),
    ] {
        assert_eq!(way(&named(no), url) == "direct", direct, "{no:?} {url}");
    }
}

#[test]
fn what_cannot_be_used_is_told_and_not_gone_past() {
    for (value, words) in [
        ("http://me:s3cret@", "names no proxy"),
        ("http://me:s3cret@a b:3128", "names no proxy"),
        ("http://me:s3cret@a.example.org:99999", "names no proxy"),
        ("ftp://me:s3cret@a.example.org", "names no proxy"),
        ("https://me:s3cret@a.example.org", "spoken to by https"),
        (
            "socks5h://me:s3cret@a.example.org:1080",
            "spoken to by socks5h",
        ),
        ("\u{fffd}", "names no proxy"),
    ] {
        let variables = [("HTTPS_PROXY", value), ("NO_PROXY", "local.example.org")];
        let told = way(&variables, SECURE);
        assert!(
            told.contains(words) && told.contains("HTTPS_PROXY"),
            "{value}: {told}"
        );
        assert!(!told.contains("s3cret") && !told.contains("me:"), "{told}");
        assert_eq!(way(&variables, PLAIN), "direct");
        assert_eq!(way(&variables, "https://local.example.org/"), "direct");
    }
}

#[test]
fn who_may_use_it_is_in_nothing_that_is_shown() {
    let named = "http://me:s3cret%21@a.example.org:3128/path";
    let proxies = Proxies::read(|name| (name == "ALL_PROXY").then(|| named.to_owned()));
    let proxy = proxies.to(&Uri::from_static(SECURE)).unwrap().unwrap();
    assert_eq!(proxy.to_string(), "http://a.example.org:3128");
    let credential = proxy.credential().unwrap();
    assert_eq!(credential, "Basic bWU6czNjcmV0IQ==");
    assert!(credential.is_sensitive());
    let shown = format!("{proxies:?} {:?}", proxy.0);
    assert!(
        !shown.contains("s3cret") && !shown.contains("bWU6"),
        "{shown}"
    );
}
