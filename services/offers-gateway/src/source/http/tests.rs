use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{AUTHORIZATION, IF_MODIFIED_SINCE, IF_NONE_MATCH};

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

/// What comes of reading `response`, which a server on a free port gives to whoever asks, with a
/// limit of 1 MB.
async fn answered(response: Vec<u8>) -> Result<Vec<u8>, String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url: Url = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(&response);
    });
    let client = Client::new();
    let session = client.session(Duration::from_secs(60)).unwrap();
    let mut asked = ask(&url, None);
    (asked.expected, asked.limit) = (Expected::File, 1 << 20);
    let body = session.body(&asked).await;
    server.join().unwrap();
    body.map_err(|failure| failure.fault.message)
}

fn response(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{headers}Connection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packing = GzEncoder::new(Vec::new(), Compression::fast());
    packing.write_all(bytes).unwrap();
    packing.finish().unwrap()
}

const GZIP: &str = "Content-Encoding: gzip\r\n";

#[tokio::test]
async fn bodies_are_whole_and_unpacked_up_to_the_limit() {
    let most = vec![b'x'; 1 << 20];
    assert_eq!(answered(response("", &most)).await.unwrap(), most);
    assert_eq!(
        answered(response(GZIP, &packed(&most))).await.unwrap(),
        most
    );
    assert_eq!(answered(response("", b"")).await.unwrap(), b"");
}

#[tokio::test]
async fn larger_bodies_are_refused_also_when_they_only_unpack_to_it() {
    let more = vec![b'x'; (1 << 20) + 1];
    let refused = async |response| {
        let message = answered(response).await.unwrap_err();
        assert!(message.contains("is larger than 1MB"), "{message}");
    };
    refused(response("", &more)).await;
    refused(response("Content-Length: 1048577\r\n", b"")).await;
    let bomb = packed(&more);
    assert!(bomb.len() < 20_000);
    refused(response(GZIP, &bomb)).await;
}

#[tokio::test]
async fn what_is_packed_wrongly_is_told() {
    let whole = packed(b"some text that is packed");
    for odd in [&whole[..whole.len() - 6], b"no gzip at all"] {
        let message = answered(response(GZIP, odd)).await.unwrap_err();
        assert!(message.contains("cannot be unpacked"), "{message}");
    }
    let message = answered(response("Content-Encoding: br\r\n", b"x")).await;
    assert!(message.unwrap_err().contains("packed as br, not as gzip"));
    let message = answered(response("Content-Length: 10\r\n", b"half")).await;
    assert!(message.unwrap_err().contains("broke off after 4 bytes"));
}

#[tokio::test]
async fn a_server_without_tls_is_not_believed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(&response("", b"hello"));
    });
    let url: Url = format!("https://{address}/").parse().unwrap();
    let client = Client::new();
    let session = client.session(Duration::from_secs(60)).unwrap();
    let refused = session.body(&ask(&url, None)).await.unwrap_err();
    let message = refused.fault.message;
    // A machine without certificate authorities cannot even begin.
    let _ = std::net::TcpStream::connect(address);
    server.join().unwrap();
    let expected = [
        format!("cannot connect to {address}"),
        "certificate authorities".to_owned(),
    ];
    assert!(
        expected.iter().any(|words| message.contains(words)),
        "{message}"
    );
}
