//! Who calls whom, and on whose behalf: TLS, credentials, traces.

use super::*;

#[tokio::test]
async fn https_without_a_certificate_authority_says_what_is_missing() {
    let running = Peer::saying("ok").start().await;
    let url = running.url().replace("http:", "https:");
    let failed = call(&channel_to(&url, quick()), "GetThing")
        .await
        .unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    assert!(failed.message().contains("--ca"), "{failed:?}");
}

#[tokio::test]
async fn tls_is_spoken_and_a_renewed_configuration_is_taken() {
    let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = authority.cert.pem();
    let identity =
        tonic::transport::Identity::from_pem(&certificate, authority.signing_key.serialize_pem());
    let running = Peer::saying("safe").start_tls(identity).await;
    let trusting = |der: Option<&rcgen::Certificate>| {
        let mut roots = tokio_rustls::rustls::RootCertStore::empty();
        roots.add_parsable_certificates(der.map(|der| der.der().clone()));
        let config = tokio_rustls::rustls::ClientConfig::builder().with_root_certificates(roots);
        Arc::new(config.with_no_client_auth())
    };
    let current = Arc::new(arc_swap::ArcSwap::new(trusting(None)));
    let source = Arc::clone(&current);
    let connector = Connector::new(quick()).with_tls(move || source.load_full());
    let url = format!("https://localhost:{}", running.address.port());
    let channel = connector.channel(&url.parse().unwrap());
    let refused = call(&channel, "GetThing").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("certificate"), "{refused:?}");
    current.store(trusting(Some(&authority.cert)));
    let started = Instant::now();
    while call(&channel, "CreateThing").await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(3));
    }
    assert_eq!(call(&channel, "GetThing").await.unwrap(), "safe");
}

#[tokio::test]
async fn the_trace_goes_on_at_the_peer() {
    use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
    use tracing::Instrument as _;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    let peer = Peer::saying("ok");
    let running = peer.start().await;
    let channel = channel_to(&running.url(), quick());
    call(&channel, "GetThing").await.unwrap();
    assert_eq!(
        peer.last_header("traceparent"),
        None,
        "there is no trace to go on"
    );

    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let span = tracing::info_span!("handler");
    let trace = span.context().span().span_context().trace_id().to_string();
    call(&channel, "GetThing").instrument(span).await.unwrap();
    let told = peer.last_header("traceparent").expect("the trace is told");
    assert!(told.contains(&trace), "{told} is of trace {trace}");
}

#[tokio::test]
async fn the_credential_is_sent_and_may_change() {
    let peer = Peer::saying("ok");
    let running = peer.start().await;
    let credential = Credential::none();
    let connector = Connector::new(quick()).with_credential(credential.clone());
    let channel = connector.channel(&running.url().parse().unwrap());
    call(&channel, "GetThing").await.unwrap();
    assert_eq!(peer.last_header("authorization"), None);
    credential.set("first\n").unwrap();
    call(&channel, "GetThing").await.unwrap();
    assert_eq!(
        peer.last_header("authorization").as_deref(),
        Some("Bearer first")
    );
    credential.set("second").unwrap();
    call(&channel, "GetThing").await.unwrap();
    assert_eq!(
        peer.last_header("authorization").as_deref(),
        Some("Bearer second")
    );
    assert!(credential.set("with\0nul").is_err());
    assert!(!format!("{channel:?} {credential:?}").contains("second"));
    assert!(
        peer.last_header("user-agent")
            .unwrap()
            .starts_with("muster/")
    );
}
