//! Every filter, order and group of the contract over the network, and what is wrong with a question.

use muster_proto::offers::v1 as pb;
use muster_proto::types::v1 as types;
use offers_gateway::spec::{Api, Key, Kind, Provider, Spec};
use tonic::Code;

use crate::support::{Running, catalog, config, gpu, ids, start, write_catalog};

const FIRST: &str = "a,H100,8,96,1900,98,18,eu\nb,L4,1,8,32,0.8,,eu\nc,,,2,4,0.1,0.05,us\n";
const SECOND: &str =
    "x,H100,4,48,950,44,,us\ny,MI300X,8,96,1900,30,,us\nz,A10,0.5,18,220,1.6,,eu\n";

async fn gateway(folder: &tempfile::TempDir) -> Running {
    start(config(vec![
        catalog(folder.path(), "one", FIRST),
        catalog(folder.path(), "two", SECOND),
    ]))
    .await
}

/// The instance types that a filter leaves, `/s` for spot, by price.
async fn left(gateway: &Running, filter: pb::OfferFilter) -> Vec<String> {
    let request = pb::ListOffersRequest {
        filter: Some(filter),
        ..Default::default()
    };
    let answer = gateway.list(request).await;
    let total = usize::try_from(answer.total_size).unwrap();
    assert_eq!(total, answer.offers.len());
    let name = |offer: &pb::Offer| match offer.capacity_type() {
        types::CapacityType::Spot => format!("{}/s", offer.instance_type),
        types::CapacityType::OnDemand | types::CapacityType::Unspecified => {
            offer.instance_type.clone()
        }
    };
    answer.offers.iter().map(name).collect()
}

fn needs(requirements: types::Requirements) -> pb::OfferFilter {
    pb::OfferFilter {
        requirements: Some(requirements),
        ..Default::default()
    }
}

fn any_gpu(change: impl FnOnce(&mut types::GpuRequest)) -> pb::OfferFilter {
    let mut request = types::GpuRequest::default();
    change(&mut request);
    needs(types::Requirements {
        gpu_any_of: vec![request],
        ..Default::default()
    })
}

fn at_least(min: i32) -> Option<types::Int32Range> {
    Some(types::Int32Range {
        min: Some(min),
        max: None,
    })
}

fn dollars(dollars: i64) -> Option<types::Price> {
    Some(types::Price {
        micro_usd_per_hour: dollars * 1_000_000,
    })
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "a table: a line or two for each filter"
)]
async fn each_filter_leaves_what_meets_it() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let texts = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let of = |change: &dyn Fn(&mut pb::OfferFilter)| {
        let mut filter = pb::OfferFilter::default();
        change(&mut filter);
        filter
    };
    let cases: Vec<(pb::OfferFilter, &[&str])> = vec![
        (of(&|f| f.backends = texts(&["two"])), &["z", "y", "x"]),
        (of(&|f| f.regions = texts(&["us"])), &["c/s", "c", "y", "x"]),
        (of(&|f| f.zones = texts(&["us-1"])), &[]),
        (of(&|f| f.instance_types = texts(&["b", "x"])), &["b", "x"]),
        (
            of(&|f| f.capacity_type = types::CapacityType::Spot.into()),
            &["c/s", "a/s"],
        ),
        (of(&|f| f.min_price = dollars(40)), &["x", "a"]),
        (
            of(&|f| (f.min_price, f.max_price) = (dollars(1), dollars(30))),
            &["z", "a/s", "y"],
        ),
        (
            of(&|f| f.availabilities = vec![types::Availability::Available.into()]),
            &[],
        ),
        (any_gpu(|g| g.vendor = types::GpuVendor::Amd.into()), &["y"]),
        (any_gpu(|g| g.count = at_least(5)), &["a/s", "y", "a"]),
        (any_gpu(|g| g.memory_mib = at_least(81_921)), &["y"]),
        (any_gpu(|g| g.total_memory_mib = at_least(1 << 20)), &["y"]),
        (
            any_gpu(|g| g.min_compute_capability = "9.0".to_owned()),
            &["a/s", "x", "a"],
        ),
        (any_gpu(|g| g.share_milli = 500), &["z"]),
        (
            any_gpu(|g| g.names = texts(&["h100-sxm", "l4"])),
            &["b", "a/s", "x", "a"],
        ),
        (
            needs(types::Requirements {
                cpu_milli: 90_000,
                ..Default::default()
            }),
            &["a/s", "y", "a"],
        ),
        (
            needs(types::Requirements {
                memory_mib: 1000 * 1024,
                ..Default::default()
            }),
            &["a/s", "y", "a"],
        ),
    ];
    for (filter, expected) in cases {
        let shown = format!("{filter:?}");
        assert_eq!(left(&gateway, filter).await, expected, "{shown}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn answers_are_grouped_by_accelerator_backend_and_region() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let groups = async |by: pb::OfferGroupBy| {
        let request = pb::ListOffersRequest {
            group_by: by.into(),
            ..Default::default()
        };
        let answer = gateway.list(request).await;
        assert!(answer.offers.is_empty() && answer.next_page_token.is_empty());
        let mut keys: Vec<_> = answer
            .groups
            .iter()
            .map(|group| (group.key.clone(), group.offers))
            .collect();
        keys.sort();
        (keys, answer)
    };
    let (by_backend, _) = groups(pb::OfferGroupBy::Backend).await;
    assert_eq!(by_backend, [("one".to_owned(), 5), ("two".to_owned(), 3)]);
    let (by_gpu, answer) = groups(pb::OfferGroupBy::Gpu).await;
    let h100 = answer
        .groups
        .iter()
        .find(|group| group.key == "H100")
        .unwrap();
    assert_eq!((h100.offers, h100.regions), (3, 2));
    assert_eq!(h100.backends, ["one", "two"]);
    assert_eq!(h100.min_price, dollars(18));
    assert_eq!(h100.max_price, dollars(98));
    assert!(by_gpu.len() >= 4, "{by_gpu:?}");
    let (by_region, _) = groups(pb::OfferGroupBy::Region).await;
    assert_eq!(by_region.len(), 4, "{by_region:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_question_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let mut filter = any_gpu(|g| g.vendor = 99);
    filter.backends = vec!["tow".to_owned()];
    filter.capacity_type = 99;
    filter.min_price = Some(types::Price {
        micro_usd_per_hour: -1,
    });
    let request = pb::ListOffersRequest {
        filter: Some(filter),
        order: Some(pb::OfferOrder {
            key: 99,
            descending: false,
        }),
        group_by: 99,
        page_size: -1,
        max_age: Some(prost_types::Duration {
            seconds: -1,
            nanos: 0,
        }),
        ..Default::default()
    };
    let refused = gateway.client.clone().list_offers(request).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let details = muster_runtime::status::Details::of(&refused);
    let mut fields: Vec<_> = details
        .violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "filter.backends[0]",
            "filter.capacity_type",
            "filter.min_price",
            "filter.requirements.gpu_any_of[0].vendor",
            "group_by",
            "max_age",
            "order.key",
            "page_size",
        ]
    );
    gateway.stop().await;
}

#[tokio::test]
async fn accelerators_are_asked_for_by_so_many_names_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let of = |alternatives: usize, names: usize| {
        let named = types::GpuRequest {
            names: (0..names).map(|number| format!("name-{number}")).collect(),
            memory_mib: at_least(1),
            ..Default::default()
        };
        let filter = needs(types::Requirements {
            gpu_any_of: vec![named; alternatives],
            ..Default::default()
        });
        pb::ListOffersRequest {
            filter: Some(filter),
            ..Default::default()
        }
    };
    gateway.list(of(32, 100)).await;
    for (request, field) in [
        (of(33, 1), "filter.requirements.gpu_any_of"),
        (of(1, 101), "filter.requirements.gpu_any_of[0].names"),
    ] {
        let refused = gateway.client.clone().list_offers(request).await;
        let details = muster_runtime::status::Details::of(&refused.unwrap_err());
        assert_eq!(details.code, Code::InvalidArgument);
        let fields: Vec<_> = details.violations.iter().map(|one| &*one.field).collect();
        assert_eq!(fields, [field]);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_range_of_prices_has_its_ends_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let of = |min: i64, max: i64| pb::ListOffersRequest {
        filter: Some(pb::OfferFilter {
            min_price: dollars(min),
            max_price: dollars(max),
            ..Default::default()
        }),
        ..Default::default()
    };
    gateway.list(of(44, 44)).await;
    let refused = gateway.client.clone().list_offers(of(45, 44)).await;
    let details = muster_runtime::status::Details::of(&refused.unwrap_err());
    assert_eq!(details.violations[0].field, "filter.min_price");
    gateway.stop().await;
}

#[tokio::test]
async fn a_page_expires_once_eight_newer_lists_are_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let first = pb::ListOffersRequest {
        page_size: 1,
        ..Default::default()
    };
    let page = gateway.list(first.clone()).await;
    for number in 1..=8 {
        let rows = format!("n{number},,,1,1,0.0{number},,eu\n{FIRST}");
        write_catalog(&folder.path().join("one.csv"), &rows);
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
        gateway.list(first.clone()).await;
    }
    let next = pb::ListOffersRequest {
        page_token: page.next_page_token,
        ..first.clone()
    };
    let refused = gateway.client.clone().list_offers(next).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    let details = muster_runtime::status::Details::of(&refused);
    assert!(
        details.is(types::ErrorReason::PageTokenExpired),
        "{refused:?}"
    );
    let many = pb::ListOffersRequest {
        page_size: 5000,
        ..Default::default()
    };
    assert_eq!(gateway.list(many).await.offers.len(), 9, "cut to the most");
    gateway.stop().await;
}

#[tokio::test]
async fn a_position_that_is_not_here_yet_is_waited_for_and_a_foreign_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&folder).await;
    let answer = gateway.list(pb::ListOffersRequest::default()).await;
    let ask = async |not_before: String| {
        let mut request = tonic::Request::new(pb::ListOffersRequest {
            not_before,
            filter: gpu("H100", 8),
            ..Default::default()
        });
        request.set_timeout(std::time::Duration::from_millis(300));
        let answer = gateway.client.clone().list_offers(request).await;
        answer.map(|answer| ids(&answer.into_inner().offers).len())
    };
    assert_eq!(ask(answer.resume_token).await.unwrap(), 2);
    let foreign = muster_runtime::resume::token("another", 1);
    assert_eq!(ask(foreign).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(
        ask("nonsense".to_owned()).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_backend_without_its_key_is_disabled_and_says_where_it_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let key = Key::Missing("the file /etc/lambda.key".to_owned());
    let base = "http://127.0.0.1:1".parse().unwrap();
    let keyless = Spec::new("lab", Kind::Api(Api::new(Provider::Lambda, base, key)));
    let list = catalog(folder.path(), "list", FIRST);
    let gateway = start(config(vec![keyless, list])).await;
    let request = pb::ListOffersRequest {
        max_age: Some(prost_types::Duration::default()),
        ..Default::default()
    };
    let answer = gateway.list(request).await;
    assert_eq!(answer.total_size, 5);
    let report = &answer.backends[0];
    assert_eq!(
        (report.data(), report.refresh()),
        (pb::BackendData::None, pb::BackendRefresh::Disabled)
    );
    assert!(report.error.contains("/etc/lambda.key"), "{report:?}");
    let refresh = pb::RefreshBackendRequest {
        name: "lab".to_owned(),
        force: true,
    };
    let refused = gateway.client.clone().refresh_backend(refresh).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let details = muster_runtime::status::Details::of(&refused);
    assert!(details.is(types::ErrorReason::BackendDisabled));
    let unknown = pb::RefreshBackendRequest::default();
    let refused = gateway.client.clone().refresh_backend(unknown).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    gateway.stop().await;
}
