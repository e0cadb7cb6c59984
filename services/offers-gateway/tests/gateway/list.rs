//! Lists over the network: order, pages, filters, reports.

use muster_proto::offers::v1 as pb;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tonic::Code;

use crate::support::{catalog, config, gpu, ids, prices, start};

const FIRST: &str = "a,H100,8,96,1900,98.3,18.1,eu\nb,H100,1,24,220,5,,eu\nc,,,2,4,0.1,0.05,us\nd,A10,0.5,18,220,1.6,,us\n";
const SECOND: &str =
    "x,H100,8,96,1900,88,,us\ny,A100,8,96,1900,30,,us\nbad,H100,8,96,1900,free,,us\n";

async fn gateway(folder: &tempfile::TempDir) -> crate::support::Running {
    start(config(vec![
        catalog(folder.path(), "one", FIRST),
        catalog(folder.path(), "two", SECOND),
    ]))
    .await
}

#[tokio::test]
async fn offers_of_all_backends_come_in_price_order() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let answer = gateway
        .list(pb::ListOffersRequest {
            filter: gpu("h100-sxm", 8),
            ..Default::default()
        })
        .await;
    assert_eq!(
        ids(&answer.offers),
        ["one/eu/a/spot", "two/us/x/ondemand", "one/eu/a/ondemand"]
    );
    assert_eq!(prices(&answer.offers), [18_100_000, 88_000_000, 98_300_000]);
    assert_eq!(answer.total_size, 3);
    let reports: Vec<_> = answer
        .backends
        .iter()
        .map(|report| {
            (
                report.backend.as_str(),
                report.offers_matched,
                report.rows_skipped,
            )
        })
        .collect();
    assert_eq!(reports, [("one", 2, 0), ("two", 1, 1)]);
    gateway.stop().await;
}

#[tokio::test]
async fn pages_concatenate_to_the_whole_while_backends_change() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let whole = gateway.list(pb::ListOffersRequest::default()).await;
    let mut request = pb::ListOffersRequest {
        page_size: 2,
        ..Default::default()
    };
    let mut offers = Vec::new();
    loop {
        let page = gateway.list(request.clone()).await;
        assert_eq!(page.total_size, whole.total_size);
        offers.extend(page.offers);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        crate::support::write_catalog(
            &folder.path().join("one.csv"),
            &format!("new{},,,1,1,0.01,,eu\n", offers.len()),
        );
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
    assert_eq!(offers, whole.offers);
    let changed = gateway.list(pb::ListOffersRequest::default()).await;
    assert_ne!(changed.offers, whole.offers);
    gateway.stop().await;
}

/// A size of pages, what they are ordered by, which way, and what one backend tells meanwhile.
type Walk = (i32, i32, bool, Vec<Vec<(u8, u32)>>);

fn walks() -> impl Strategy<Value = Walk> {
    let rows = proptest::collection::vec((0..6u8, 1..9u32), 1..6);
    (
        1..6,
        0..6,
        any::<bool>(),
        proptest::collection::vec(rows, 4),
    )
}

#[tokio::test]
async fn pages_of_any_size_and_order_concatenate_to_the_whole_while_backends_refresh() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let mut runner = TestRunner::deterministic();
    for _ in 0..16 {
        let (page_size, key, descending, tellings) =
            walks().new_tree(&mut runner).unwrap().current();
        let mut tellings = tellings.iter().cycle();
        let mut tell = async || {
            let rows = tellings.next().unwrap().iter();
            let rows = rows.map(|(name, price)| format!("n{name},T4,1,4,16,{price},,eu{name}\n"));
            let rows: String = rows.collect();
            crate::support::write_catalog(&folder.path().join("one.csv"), &rows);
            let name = "one".to_owned();
            let refresh = pb::RefreshBackendRequest { name, force: false };
            gateway
                .client
                .clone()
                .refresh_backend(refresh)
                .await
                .unwrap();
        };
        tell().await;
        let mut request = pb::ListOffersRequest {
            order: Some(pb::OfferOrder { key, descending }),
            ..Default::default()
        };
        let whole = gateway.list(request.clone()).await;
        request.page_size = page_size;
        let mut walked = Vec::new();
        loop {
            let page = gateway.list(request.clone()).await;
            assert!(page.offers.len() <= usize::try_from(page_size).unwrap());
            walked.extend(page.offers);
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
            tell().await;
        }
        assert_eq!(ids(&walked), ids(&whole.offers), "{request:?}");
        assert_eq!(prices(&walked), prices(&whole.offers));
    }
    gateway.stop().await;
}

#[tokio::test]
async fn foreign_page_tokens_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let page = gateway
        .list(pb::ListOffersRequest {
            page_size: 1,
            ..Default::default()
        })
        .await;
    let token = page.next_page_token;
    let refuse = async |request: pb::ListOffersRequest| {
        gateway
            .client
            .clone()
            .list_offers(request)
            .await
            .unwrap_err()
            .code()
    };
    let other = pb::ListOffersRequest {
        filter: gpu("H100", 8),
        page_token: token.clone(),
        ..Default::default()
    };
    assert_eq!(refuse(other).await, Code::InvalidArgument);
    let altered = pb::ListOffersRequest {
        page_token: format!("A{token}"),
        ..Default::default()
    };
    assert_eq!(refuse(altered).await, Code::InvalidArgument);
    let negative = pb::ListOffersRequest {
        page_size: -1,
        ..Default::default()
    };
    assert_eq!(refuse(negative).await, Code::InvalidArgument);
    gateway.stop().await;
}

#[tokio::test]
async fn offers_are_found_by_id() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let get = |id: &str| {
        let request = pb::GetOfferRequest {
            id: id.to_owned(),
            include_raw: true,
            ..Default::default()
        };
        let mut client = gateway.client.clone();
        async move { client.get_offer(request).await }
    };
    let id = "one/us/d/ondemand";
    let offer = get(id).await.unwrap().into_inner().offer.unwrap();
    assert_eq!(
        (
            offer.id.as_str(),
            offer.gpus[0].share_milli,
            offer.raw["Price"].as_str()
        ),
        (id, 500, "1.6")
    );
    assert_eq!(
        get("one/us/zzz/spot").await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        get("three/us/d/spot").await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(get("zzz").await.unwrap_err().code(), Code::InvalidArgument);
    gateway.stop().await;
}

#[tokio::test]
async fn backends_say_what_they_read() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    gateway.list(pb::ListOffersRequest::default()).await;
    let get = |name: &str| {
        let request = pb::GetBackendRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        let mut client = gateway.client.clone();
        async move { client.get_backend(request).await }
    };
    let backend = get("two").await.unwrap().into_inner().backend.unwrap();
    assert_eq!(
        (
            backend.rows_read,
            backend.rows_skipped,
            backend.offers_total
        ),
        (3, 1, 2)
    );
    assert_eq!(backend.skipped[0].example, "two.csv line 4");
    assert_eq!(get("three").await.unwrap_err().code(), Code::NotFound);
    gateway.stop().await;
}
