//! `muster offers` as a process, against a gateway with the offers that are built in.

use std::{process::Output, time::Duration};

use muster_runtime::{context::Context, server::Listeners, shutdown::Cause};
use muster_store::Store;
use offers_gateway::{Config, config::Args};
use serde_json::Value;
use tokio::process::Command;

/// A gateway, and where it is.
async fn gateway() -> (Context, String) {
    let context = Context::for_tests("offers-gateway");
    let listeners = Listeners::loopback().await.unwrap();
    let url = format!("http://{}", listeners.grpc_address());
    let config = Config::new(Args {
        data: None,
        store: None,
        catalog: None,
        workers_addr: None,
        backend_timeout: Duration::from_secs(3),
        max_backend_timeout: Duration::from_secs(30),
    });
    let store = Store::memory();
    let serving = offers_gateway::serve(config.unwrap(), None, context.clone(), store, listeners);
    let _serving = context
        .tasks
        .spawn("gateway", async move { serving.await.unwrap() });
    context.health.until_ready().await;
    (context, url)
}

async fn muster(url: &str, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.args(["offers", "--offers-addr", url]).args(words);
    command.output().await.unwrap()
}

async fn shown(url: &str, words: &[&str]) -> String {
    let output = muster(url, words).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_groups_are_shown_as_are_asked_for() {
    let (context, url) = gateway().await;
    let by_gpu = ["--group-by", "gpu"];
    let all = shown(&url, &by_gpu).await;
    let groups = all.lines().count() - 2;
    assert!(groups > 20, "{all}");
    assert!(all.contains(&format!("\n{groups} groups of ")), "{all}");

    let two = [&by_gpu[..], &["--limit", "2"]].concat();
    let table = shown(&url, &two).await;
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(
        table.contains(&format!("\n2 of {groups} groups of ")),
        "{table}"
    );
    let names = shown(&url, &[&two[..], &["-o", "name"]].concat()).await;
    assert_eq!(names.lines().count(), 2, "{names}");
    let document = shown(&url, &[&two[..], &["-o", "json"]].concat()).await;
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["groups"].as_array().unwrap().len(), 2);

    let offers = shown(&url, &["-o", "name"]).await;
    assert_eq!(offers.lines().count(), 20, "{offers}");
    context.shutdown.begin(Cause::asked("the test is over"));
    context.shutdown.finished().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_ordered_by_what_is_asked_for() {
    let (context, url) = gateway().await;
    let by_gpu = ["--group-by", "gpu", "-o", "json"];
    let prices = async |sort: &str, price: &str| {
        let document = shown(&url, &[&by_gpu[..], &["--sort", sort]].concat()).await;
        let document: Value = serde_json::from_str(&document).unwrap();
        let groups = document["groups"].as_array().unwrap().iter();
        let price = groups.map(|group| group[price]["microUsdPerHour"].as_str().unwrap().parse());
        price.collect::<Result<Vec<i64>, _>>().unwrap()
    };
    let up = prices("price-per-gpu", "minPricePerGpu").await;
    assert!(up.is_sorted() && up.len() > 20, "{up:?}");
    let down = prices("-price", "minPrice").await;
    assert!(down.is_sorted_by(|a, b| a >= b), "{down:?}");

    let refused = muster(&url, &[&by_gpu[..], &["--sort", "age"]].concat()).await;
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    context.shutdown.begin(Cause::asked("the test is over"));
    context.shutdown.finished().await;
}

#[tokio::test]
async fn a_number_below_zero_is_told_as_such() {
    for words in [
        &["offers", "--max-price", "-1"][..],
        &["offers", "--limit", "-1"],
        &["offers", "--cpu", "-0.5"],
        &["offers", "--memory", "-4GB"],
        &["offers", "--max-age", "-5m"],
        &["events", "--since", "-5m"],
        &["scale", "chat", "-1"],
        &["rollback", "chat", "-1"],
        &["rollback", "chat", "0"],
        &["drain", "w1", "--max-parallel", "-1"],
        &["token", "create", "--uses", "-1"],
        &["up", "--workers", "-1"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        let output = command.args(words).output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        let value = words.last().unwrap();
        assert!(
            said.contains(&format!("invalid value '{value}' for '")),
            "{said}"
        );
        assert!(said.contains(&format!("`{value}` is no ")), "{said}");
    }
}
