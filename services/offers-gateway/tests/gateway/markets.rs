//! Providers whose answers come in many pages: all are read, and none for ever.

use std::fmt::Write as _;
use std::time::Duration;

use muster_proto::offers::v1 as pb;
use offers_gateway::spec::{Api, Key, Kind, Provider as Whose, Spec, Times};
use tokio::time::timeout;

use crate::provider::{Asked, Fault, Provider, Script};
use crate::support::{Running, config, start};

const DEADLINE: Duration = Duration::from_secs(120);

const JSON: &str = "application/json";

/// So many are in one of Vast.ai's pages at most.
const PAGE: u32 = 3000;

async fn gateway(whose: Whose, right: fn(&Asked) -> String) -> (Provider, Running) {
    let script = Script {
        content_type: JSON,
        right,
        wrong: "",
    };
    let provider = Provider::start(script, Fault::Right);
    let base = provider.url("").parse().unwrap();
    let key = Key::Missing(String::new());
    let spec = Spec {
        times: Times {
            attempt_timeout: DEADLINE,
            refresh_timeout: DEADLINE,
            ..Times::default()
        },
        ..Spec::new("market", Kind::Api(Api::new(whose, base, key)))
    };
    (provider, start(config(vec![spec])).await)
}

/// Offers from one id to another, each a cent an hour dearer than the one before.
fn machines(ids: std::ops::Range<u32>) -> String {
    let mut offers = String::new();
    for id in ids {
        let comma = if offers.is_empty() { "" } else { "," };
        let price = f64::from(id) / 100.0;
        write!(
            offers,
            r#"{comma}{{"id":{id},"num_gpus":0,"dph_base":{price},"dph_total":{price},"storage_cost":0,"disk_space":1,"rentable":true,"rented":false}}"#
        )
        .unwrap();
    }
    format!("{{\"offers\":[{offers}]}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_market_larger_than_a_page_is_read_from_price_to_price() {
    let (provider, gateway) = gateway(Whose::Vastai, |asked| {
        let question: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
        let from = question["dph_total"]["gte"].as_f64().unwrap_or(0.01);
        let first = (1..=2 * PAGE)
            .find(|id| f64::from(*id) / 100.0 >= from)
            .unwrap();
        machines(first..(first + PAGE).min(PAGE + 1000))
    })
    .await;
    let request = pb::ListOffersRequest {
        backend_timeout: Some(prost_types::Duration {
            seconds: 9,
            nanos: 0,
        }),
        ..Default::default()
    };
    let answer = timeout(DEADLINE, async {
        loop {
            let answer = gateway.list(request.clone()).await;
            if answer.total_size > 0 {
                return answer;
            }
        }
    });
    let answer = answer.await.unwrap();
    assert_eq!(answer.total_size, 3999, "{:?}", answer.backends);
    assert_eq!(provider.asked().len(), 2);
    assert_eq!(
        answer.backends[0].rows_skipped, 0,
        "the one at the seam is repeated, not skipped"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_do_not_get_on_are_told_and_end() {
    let (provider, vast) = gateway(Whose::Vastai, |_| machines(1..PAGE + 1)).await;
    told(&vast, "do not get on").await;
    assert!(provider.asked().len() >= 2);
    vast.stop().await;
    let (_provider, vultr) = gateway(Whose::Vultr, |asked| {
        if asked.path.contains("metal") {
            return r#"{"plans_metal":[],"meta":{"links":{"next":"again"}}}"#.to_owned();
        }
        r#"{"plans":[],"meta":{"links":{"next":""}}}"#.to_owned()
    })
    .await;
    told(&vultr, "the pages of /plans-metal lead in a circle").await;
    vultr.stop().await;
}

async fn told(gateway: &Running, words: &str) {
    let request = pb::ListOffersRequest {
        backend_timeout: Some(prost_types::Duration {
            seconds: 0,
            nanos: 200_000_000,
        }),
        ..Default::default()
    };
    let told = timeout(DEADLINE, async {
        loop {
            let answer = gateway.list(request.clone()).await;
            if answer.backends[0].error.contains(words) {
                return;
            }
        }
    });
    told.await
        .unwrap_or_else(|_| panic!("it does not say: {words}"));
}
