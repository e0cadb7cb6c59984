//! What is counted of calls.

use super::*;
use crate::metrics::Metrics;

/// The value of the first line that begins with `name` and has all of `labels`.
fn value(metrics: &Metrics, name: &str, labels: &[&str]) -> Option<String> {
    let text = metrics.render().unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with(name));
    let line = lines.find(|line| labels.iter().all(|label| line.contains(label)))?;
    Some(line.rsplit(' ').next().unwrap().to_owned())
}

fn ended(metrics: &Metrics, method: &str, code: &str) -> Option<String> {
    let method = format!("rpc_method=\"test.v1.Test/{method}\"");
    let code = format!("rpc_response_status_code=\"{code}\"");
    value(
        metrics,
        "rpc_client_call_duration_seconds_count",
        &[&method, &code],
    )
}

#[tokio::test]
async fn each_call_is_counted_once_by_how_it_ended() {
    let peer = Peer::new(|method, count| {
        let method = method.to_owned();
        async move {
            match (method.as_str(), count) {
                ("GetThing", 0) => Err(unavailable(Duration::ZERO)),
                ("CreateThing", _) => Err(Status::already_exists("there is one")),
                ("DeleteThing", _) => std::future::pending().await,
                ("WatchThings", _) => {
                    let late = stream::once(async { Err(Status::data_loss("late")) });
                    Ok(stream::iter([Ok("first".to_owned())]).chain(late).boxed())
                }
                ("StreamLogs", _) => Ok(stream::pending().boxed()),
                _ => one("ok"),
            }
        }
    });
    let running = peer.start().await;
    let metrics = Metrics::new();
    let options = Options {
        default_deadline: Duration::from_millis(300),
        ..quick()
    };
    let connector = Connector::new(options).with_metrics(&metrics);
    let channel = connector.channel(&running.url().parse().unwrap());

    call(&channel, "GetThing").await.unwrap();
    call(&channel, "GetThing").await.unwrap();
    call(&channel, "CreateThing").await.unwrap_err();
    call(&channel, "DeleteThing").await.unwrap_err();
    let mut watch = open(&channel, "WatchThings").await.unwrap();
    assert_eq!(watch.message().await.unwrap().as_deref(), Some("first"));
    assert_eq!(
        ended(&metrics, "WatchThings", "DATA_LOSS"),
        None,
        "it has not ended yet"
    );
    watch.message().await.unwrap_err();
    drop(open(&channel, "StreamLogs").await.unwrap());
    let given_up = timeout(Duration::from_millis(50), call(&channel, "DeleteThing")).await;
    assert!(given_up.is_err());

    for (method, code, times) in [
        ("GetThing", "OK", "2"),
        ("CreateThing", "ALREADY_EXISTS", "1"),
        ("DeleteThing", "DEADLINE_EXCEEDED", "1"),
        ("DeleteThing", "CANCELLED", "1"),
        ("WatchThings", "DATA_LOSS", "1"),
        ("StreamLogs", "CANCELLED", "1"),
    ] {
        assert_eq!(
            ended(&metrics, method, code).as_deref(),
            Some(times),
            "{method} {code}"
        );
    }
    let retries = value(&metrics, "rpc_client_retries_total", &["GetThing"]);
    assert_eq!(retries.as_deref(), Some("1"));
    assert_eq!(
        value(&metrics, "rpc_client_retries_total", &["CreateThing"]),
        None
    );
}
