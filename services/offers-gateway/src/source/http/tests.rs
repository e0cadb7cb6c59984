use super::*;

fn ask<'a>(url: &'a Url, key: Option<&'a Secret>) -> Ask<'a> {
    Ask {
        url,
        provider: Some(Provider::Lambda),
        key,
        post: None,
        expected: Expected::Json,
        known: Known::default(),
        limit: 1000,
    }
}

#[test]
fn a_key_and_what_is_known_go_where_they_belong() {
    let home: Url = "https://api.example.org/v1/types".parse().unwrap();
    let key = Secret::new("s3cr3t").unwrap();
    let mut asked = ask(&home, Some(&key));
    asked.known = Known {
        etag: "\"one\"",
        modified: "bad\nvalue",
    };
    let at = |url: &str| request(&asked, &url.parse().unwrap());
    let same = at("https://api.example.org:443/elsewhere");
    assert_eq!(same.headers()[AUTHORIZATION], "Bearer s3cr3t");
    assert_eq!(same.headers()[IF_NONE_MATCH], "\"one\"");
    assert!(!same.headers().contains_key(IF_MODIFIED_SINCE));
    assert!(!format!("{same:?}").contains("s3cr3t"));
    for other in [
        "https://example.org/",
        "https://api.example.org:8443/",
        "http://api.example.org/",
    ] {
        assert!(!at(other).headers().contains_key(AUTHORIZATION), "{other}");
    }
}

#[tokio::test]
async fn a_wish_to_be_left_alone_is_remembered_and_ends() {
    tokio::time::pause();
    let client = Client::new();
    let url: Url = "http://127.0.0.1:1/".parse().unwrap();
    let session = client.session(CONNECT).unwrap();
    let wish = Failure {
        retry_after: Some(Duration::from_secs(30)),
        ..Failure::passing("busy")
    };
    session.blame(&ask(&url, None), wish);
    let refused = client.session(CONNECT).unwrap_err();
    assert!(
        refused.fault.message.contains("for another 30s"),
        "{refused:?}"
    );
    assert_eq!(refused.retry_after, Some(Duration::from_secs(30)));
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(client.session(CONNECT).is_ok());
}

#[tokio::test]
async fn no_key_is_told_even_if_a_provider_repeats_it() {
    let client = Client::new();
    let url: Url = "http://127.0.0.1:1/".parse().unwrap();
    let key = Secret::new("s3cr3t").unwrap();
    let session = client.session(CONNECT).unwrap();
    let told = session.blame(&ask(&url, Some(&key)), Failure::passing("wrong key s3cr3t"));
    assert_eq!(told.fault.message, "wrong key ***");
}
