//! What changes: streams, watches, and what launches teach.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use muster_proto::offers::v1 as pb;
use muster_proto::offers::v1::stream_offers_response::Message;
use muster_proto::ops::v1::ops_service_client::OpsServiceClient;
use muster_proto::ops::v1::{GetStatusRequest, SetMaintenanceRequest};
use muster_proto::types::v1 as types;
use offers_gateway::spec::{Kind, Place, Spec};
use tokio::time::timeout;
use tonic::Code;

use crate::support::{Running, catalog, config, gpu, ids, start, write_catalog};

const ROWS: &str = "a,H100,8,96,1900,98.3,18.1,eu\nb,H100,1,24,220,5,,eu\nc,,,2,4,0.1,0.05,us\n";

async fn gateway(folder: &tempfile::TempDir) -> Running {
    let gateway = start(config(vec![
        catalog(folder.path(), "one", ROWS),
        catalog(folder.path(), "two", ROWS),
    ]))
    .await;
    gateway.list(pb::ListOffersRequest::default()).await;
    gateway
}

async fn rewrite(gateway: &Running, folder: &tempfile::TempDir, rows: &str) {
    write_catalog(&folder.path().join("one.csv"), rows);
    let refresh = pb::RefreshBackendRequest {
        name: "one".to_owned(),
        force: false,
    };
    gateway
        .client
        .clone()
        .refresh_backend(refresh)
        .await
        .unwrap();
}

type Watch = tonic::Streaming<pb::WatchOffersResponse>;

async fn watch(gateway: &Running, filter: Option<pb::OfferFilter>, resume_token: &str) -> Watch {
    let request = pb::WatchOffersRequest {
        filter,
        resume_token: resume_token.to_owned(),
        include_raw: false,
    };
    gateway
        .client
        .clone()
        .watch_offers(request)
        .await
        .unwrap()
        .into_inner()
}

/// Applies messages until one is synced and its changes are complete; its token.
async fn follow(watch: &mut Watch, state: &mut BTreeMap<String, pb::Offer>) -> String {
    loop {
        let message = timeout(Duration::from_secs(20), watch.next())
            .await
            .expect("a message")
            .unwrap()
            .unwrap();
        for change in message.changes {
            match change.change.unwrap() {
                pb::offer_change::Change::Put(offer) => state.insert(offer.id.clone(), offer),
                pb::offer_change::Change::Deleted(offer) => {
                    Some(state.remove(&offer.id).expect("was there"))
                }
            };
        }
        if message.synced && !message.resume_token.is_empty() {
            return message.resume_token;
        }
    }
}

#[tokio::test]
async fn a_watch_tells_what_is_there_and_every_change() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let mut state = BTreeMap::new();
    let mut all = watch(&gateway, None, "").await;
    let first = follow(&mut all, &mut state).await;
    assert_eq!(state.len(), 10);
    rewrite(
        &gateway,
        &folder,
        "a,H100,8,96,1900,97,18.1,eu\nc,,,2,4,0.1,0.05,us\nd,T4,1,4,16,1,,us\n",
    )
    .await;
    let after = follow(&mut all, &mut state).await;
    let listed = gateway.list(pb::ListOffersRequest::default()).await;
    let mut expected: Vec<String> = listed.offers.iter().map(|offer| offer.id.clone()).collect();
    expected.sort();
    assert_eq!(state.keys().cloned().collect::<Vec<_>>(), expected);
    assert_eq!(
        state["one/eu/a/ondemand"].price.unwrap().micro_usd_per_hour,
        97_000_000
    );
    let mut resumed = BTreeMap::from([("one/eu/b/ondemand".to_owned(), pb::Offer::default())]);
    follow(&mut watch(&gateway, None, &first).await, &mut resumed).await;
    assert_eq!(
        resumed.into_keys().collect::<Vec<_>>(),
        ["one/eu/a/ondemand", "one/us/d/ondemand"],
        "only what changed"
    );
    let mut nothing = BTreeMap::new();
    follow(&mut watch(&gateway, None, &after).await, &mut nothing).await;
    assert!(nothing.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn a_watch_with_a_filter_sees_offers_come_into_it_and_leave_it() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let filter = pb::OfferFilter {
        max_price: Some(types::Price {
            micro_usd_per_hour: 20_000_000,
        }),
        ..gpu("H100", 8).unwrap()
    };
    let mut state = BTreeMap::new();
    let mut cheap = watch(&gateway, Some(filter), "").await;
    follow(&mut cheap, &mut state).await;
    assert_eq!(
        state.keys().collect::<Vec<_>>(),
        ["one/eu/a/spot", "two/eu/a/spot"]
    );
    rewrite(&gateway, &folder, "a,H100,8,96,1900,19,30,eu\n").await;
    follow(&mut cheap, &mut state).await;
    assert_eq!(
        state.keys().collect::<Vec<_>>(),
        ["one/eu/a/ondemand", "two/eu/a/spot"]
    );
    gateway.stop().await;
}

#[tokio::test]
async fn watches_end_with_the_process_and_bad_tokens_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let mut client = gateway.client.clone();
    let refused = client
        .watch_offers(pb::WatchOffersRequest {
            resume_token: "x".to_owned(),
            ..Default::default()
        })
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    let foreign = muster_runtime::resume::token("another", 3);
    let refused = client
        .watch_offers(pb::WatchOffersRequest {
            resume_token: foreign,
            ..Default::default()
        })
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::OutOfRange);
    let mut offers = watch(&gateway, None, "").await;
    let backends = pb::WatchBackendsRequest::default();
    let mut backends = client.watch_backends(backends).await.unwrap().into_inner();
    follow(&mut offers, &mut BTreeMap::new()).await;
    backends.next().await.unwrap().unwrap();
    gateway.stop().await;
    let ends = async |code: Option<Code>| assert_eq!(code, Some(Code::Unavailable));
    while let Some(message) = offers.next().await {
        if let Err(status) = message {
            ends(Some(status.code())).await;
        }
    }
    while let Some(message) = backends.next().await {
        if let Err(status) = message {
            ends(Some(status.code())).await;
        }
    }
}

#[tokio::test]
async fn a_watch_of_backends_tells_what_becomes_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let mut watch = gateway
        .client
        .clone()
        .watch_backends(pb::WatchBackendsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let first = watch.next().await.unwrap().unwrap();
    assert_eq!((first.changes.len(), first.synced), (2, true));
    std::fs::remove_file(folder.path().join("one.csv")).unwrap();
    let refresh = pb::RefreshBackendRequest {
        name: "one".to_owned(),
        force: false,
    };
    let failed = gateway
        .client
        .clone()
        .refresh_backend(refresh)
        .await
        .unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    let told = timeout(Duration::from_secs(10), async {
        loop {
            for change in watch.next().await.unwrap().unwrap().changes {
                let Some(pb::backend_change::Change::Put(backend)) = change.change else {
                    continue;
                };
                if backend.name == "one" && backend.refresh() == pb::BackendRefresh::Failed {
                    return backend;
                }
            }
        }
    });
    let told = told.await.unwrap();
    assert!(told.error.contains("there is no file"), "{}", told.error);
    assert_eq!(told.consecutive_failures, 1);
    let answer = gateway.list(pb::ListOffersRequest::default()).await;
    assert_eq!(answer.total_size, 10, "its offers are served all the same");
    assert_eq!(answer.backends[0].refresh(), pb::BackendRefresh::Failed);
    drop(watch);
    gateway.stop().await;
}

#[tokio::test]
async fn a_stream_sends_each_part_and_a_summary() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let request = pb::StreamOffersRequest {
        filter: gpu("H100", 8),
        max_age: Some(prost_types::Duration::default()),
        limit_per_backend: 1,
        ..Default::default()
    };
    let stream = gateway
        .client
        .clone()
        .stream_offers(request)
        .await
        .unwrap()
        .into_inner();
    let messages: Vec<_> = stream
        .map(|message| message.unwrap().message.unwrap())
        .collect()
        .await;
    let mut offers = Vec::new();
    for message in &messages[..messages.len() - 1] {
        let Message::Part(part) = message else {
            panic!("a part before the summary")
        };
        let report = part.report.as_ref().unwrap();
        assert_eq!(
            (report.data(), report.refresh()),
            (pb::BackendData::Fresh, pb::BackendRefresh::Ok)
        );
        assert!(part.last);
        offers.extend(part.offers.clone());
    }
    offers.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(ids(&offers), ["one/eu/a/spot", "two/eu/a/spot"]);
    let Some(Message::Summary(summary)) = messages.last() else {
        panic!("no summary")
    };
    assert_eq!((summary.total_size, summary.backends.len()), (4, 2));
    gateway.stop().await;
}

type Streamed = tonic::Streaming<pb::StreamOffersResponse>;

async fn next_of(stream: &mut Streamed) -> Message {
    let message = timeout(Duration::from_secs(20), stream.next()).await;
    message.unwrap().unwrap().unwrap().message.unwrap()
}

#[tokio::test]
async fn what_changes_behind_a_stream_is_watched_from_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/vms.csv", silent.local_addr().unwrap());
    let silent_one = Kind::Catalog(Place::Url(url.parse().unwrap()));
    let gateway = start(config(vec![
        catalog(folder.path(), "one", ROWS),
        Spec::new("silent", silent_one),
    ]))
    .await;
    let request = pb::StreamOffersRequest {
        backend_timeout: Some(prost_types::Duration {
            seconds: 3,
            nanos: 0,
        }),
        ..Default::default()
    };
    let stream = gateway.client.clone().stream_offers(request).await;
    let mut stream = stream.unwrap().into_inner();
    let Message::Part(part) = next_of(&mut stream).await else {
        panic!("no part")
    };
    assert_eq!(part.report.unwrap().backend, "one");
    // While the silent one is waited for.
    rewrite(&gateway, &folder, "d,,,2,4,0.2,,eu\n").await;
    let summary = loop {
        match next_of(&mut stream).await {
            Message::Part(_) => {}
            Message::Summary(summary) => break summary,
        }
    };
    let mut watch = watch(&gateway, None, &summary.resume_token).await;
    let offers = part.offers.into_iter();
    let mut state = offers.map(|offer| (offer.id.clone(), offer)).collect();
    follow(&mut watch, &mut state).await;
    let left: Vec<_> = state.keys().map(String::as_str).collect();
    assert_eq!(left, ["one/eu/d/ondemand"]);
    gateway.stop().await;
}

#[tokio::test]
async fn a_large_part_and_a_large_change_come_in_messages_of_a_size() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let mut watch = watch(&gateway, None, "").await;
    let mut state = BTreeMap::new();
    follow(&mut watch, &mut state).await;
    let rows = |price: u32| -> String {
        let row = |number| format!("t{number},,,2,4,{price},,eu\n");
        (0..2500).map(row).collect()
    };
    for price in [1, 2] {
        rewrite(&gateway, &folder, &rows(price)).await;
        let mut sizes = Vec::new();
        loop {
            let message = timeout(Duration::from_secs(20), watch.next()).await;
            let message = message.unwrap().unwrap().unwrap();
            sizes.push(message.changes.len());
            if !message.resume_token.is_empty() {
                break;
            }
        }
        let gone = if price == 1 { 5 } else { 0 };
        assert_eq!(sizes, [1000, 1000, 500 + gone]);
    }
    let request = pb::StreamOffersRequest::default();
    let stream = gateway.client.clone().stream_offers(request).await;
    let mut stream = stream.unwrap().into_inner();
    let mut sizes = Vec::new();
    while let Message::Part(part) = next_of(&mut stream).await {
        let backend = part.report.unwrap().backend;
        sizes.push((backend, part.offers.len(), part.last));
    }
    let one = |offers, last| ("one".to_owned(), offers, last);
    let two = ("two".to_owned(), 5, true);
    assert_eq!(
        sizes,
        [one(1000, false), one(1000, false), one(500, true), two]
    );
    gateway.stop().await;
}

async fn report(
    gateway: &Running,
    id: &str,
    outcome: pb::OfferOutcome,
    price: Option<i64>,
) -> Result<pb::ReportOfferResponse, tonic::Status> {
    let price = price.map(|micro_usd_per_hour| types::Price { micro_usd_per_hour });
    let (offer_id, outcome) = (id.to_owned(), outcome.into());
    let request = pb::ReportOfferRequest {
        offer_id,
        outcome,
        price,
        ..Default::default()
    };
    gateway
        .client
        .clone()
        .report_offer(request)
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test]
async fn what_launches_teach_is_shown_and_filtered_by() {
    use pb::OfferOutcome::{Launched, NoCapacity, PriceChanged};
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let told = report(&gateway, "one/eu/a/ondemand", NoCapacity, None)
        .await
        .unwrap();
    let offer = told.offer.unwrap();
    assert_eq!(offer.availability(), types::Availability::NoCapacity);
    assert_eq!(offer.availability_source(), pb::AvailabilitySource::Report);
    assert_eq!(
        (told.scope.as_str(), told.expire_time.is_some()),
        ("offer", true)
    );
    let mut filter = gpu("H100", 8).unwrap();
    filter.availabilities = vec![types::Availability::Unknown.into()];
    let left = gateway
        .list(pb::ListOffersRequest {
            filter: Some(filter),
            ..Default::default()
        })
        .await;
    assert_eq!(
        ids(&left.offers),
        ["one/eu/a/spot", "two/eu/a/spot", "two/eu/a/ondemand"]
    );
    report(&gateway, "two/eu/a/ondemand", PriceChanged, Some(1))
        .await
        .unwrap();
    let cheapest = gateway
        .list(pb::ListOffersRequest {
            page_size: 1,
            ..Default::default()
        })
        .await;
    assert_eq!(ids(&cheapest.offers), ["two/eu/a/ondemand"]);
    report(&gateway, "one/eu/a/ondemand", Launched, None)
        .await
        .unwrap();
    let again = gateway
        .list(pb::ListOffersRequest {
            filter: gpu("H100", 8),
            ..Default::default()
        })
        .await;
    assert!(
        again
            .offers
            .iter()
            .all(|offer| offer.availability() == types::Availability::Unknown)
    );
    gateway.stop().await;
}

#[tokio::test]
async fn outcomes_that_make_no_sense_are_refused() {
    use pb::OfferOutcome::{Launched, Unspecified};
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let refused = async |id: &str, outcome, price| {
        report(&gateway, id, outcome, price)
            .await
            .unwrap_err()
            .code()
    };
    assert_eq!(
        refused("one/eu/zzz/spot", Launched, None).await,
        Code::NotFound
    );
    assert_eq!(
        refused("one/eu/a/spot", Unspecified, None).await,
        Code::InvalidArgument
    );
    assert_eq!(
        refused("one/eu/a/spot", Launched, Some(1)).await,
        Code::InvalidArgument
    );
    assert_eq!(
        refused("nonsense", Launched, None).await,
        Code::InvalidArgument
    );
    let long = pb::ReportOfferRequest {
        offer_id: "one/eu/a/spot".to_owned(),
        outcome: Launched.into(),
        reporter: "x".repeat(257),
        ..Default::default()
    };
    let refused = gateway.client.clone().report_offer(long).await;
    let details = muster_runtime::status::Details::of(&refused.unwrap_err());
    assert_eq!(details.violations[0].field, "reporter");
    gateway.stop().await;
}

#[tokio::test]
async fn maintenance_takes_readiness_and_offers_are_still_given() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let url = format!("http://{}", gateway.context.bound.get().unwrap());
    let mut ops = OpsServiceClient::connect(url).await.unwrap();
    let wanted = SetMaintenanceRequest {
        on: true,
        reason: "disk swap".to_owned(),
    };
    ops.set_maintenance(wanted).await.unwrap();
    assert!(!gateway.context.health.is_ready());
    let offers = gateway.list(pb::ListOffersRequest::default()).await.offers;
    assert!(!offers.is_empty());
    let status = ops.get_status(GetStatusRequest {}).await.unwrap();
    assert_eq!(status.into_inner().store, "memory");
    gateway.stop().await;
}
