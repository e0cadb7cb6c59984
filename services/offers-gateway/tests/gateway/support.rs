//! A gateway in this process, and catalogues to feed it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_proto::offers::v1 as pb;
use muster_proto::offers::v1::offers_service_client::OffersServiceClient;
use muster_proto::types::v1 as types;
use muster_runtime::connect::{Channel, Connector, Options};
use muster_runtime::context::Context;
use muster_runtime::server::Listeners;
use muster_runtime::shutdown::Cause;
use muster_store::Store;
use offers_gateway::Config;
use offers_gateway::config::Timeouts;
use offers_gateway::spec::{Kind, Place, Spec};

pub(crate) type Client = OffersServiceClient<Channel>;

/// A gateway that serves on a free port until it is dropped or stopped.
pub(crate) struct Running {
    pub(crate) context: Context,
    pub(crate) client: Client,
}

pub(crate) async fn start(config: Config) -> Running {
    let context = Context::for_tests("offers-gateway");
    let listeners = Listeners::loopback().await.unwrap();
    let address = listeners.grpc_address();
    let served = offers_gateway::serve(config, None, context.clone(), Store::memory(), listeners);
    context.tasks.critical("gateway", served);
    tokio::select! {
        () = context.health.until_ready() => {}
        report = context.shutdown.finished() => panic!("it did not start: {report:?}"),
    }
    let connector = Connector::new(Options::default());
    let endpoints = format!("http://{address}").parse().unwrap();
    let channel = connector.channel(&endpoints);
    Running {
        context,
        client: OffersServiceClient::new(channel).max_decoding_message_size(64 << 20),
    }
}

/// Serves whatever a test plays, until the test is over.
pub(crate) fn in_background<F>(served: F)
where
    F: Future<Output: Send> + Send + 'static,
{
    drop(Context::for_tests("played").tasks.spawn("played", served));
}

impl Running {
    pub(crate) async fn stop(self) {
        self.context
            .shutdown
            .begin(Cause::asked("the test is over"));
        let report = self.context.shutdown.finished().await;
        assert!(report.is_clean(), "{report:?}");
    }

    pub(crate) async fn list(&self, request: pb::ListOffersRequest) -> pb::ListOffersResponse {
        self.client
            .clone()
            .list_offers(request)
            .await
            .unwrap()
            .into_inner()
    }
}

pub(crate) fn config(backends: Vec<Spec>) -> Config {
    Config {
        data: None,
        store: muster_store::Spec::Memory,
        outcomes: offers_gateway::domain::outcome::Policy::default(),
        timeouts: Timeouts {
            default: Duration::from_secs(10),
            max: Duration::from_secs(30),
        },
        backends,
        catalog: None,
    }
}

/// Writes a catalogue and makes it a backend.
pub(crate) fn catalog(folder: &Path, name: &str, rows: &str) -> Spec {
    let path = folder.join(format!("{name}.csv"));
    write_catalog(&path, rows);
    Spec::new(name, Kind::Catalog(Place::File(path)))
}

pub(crate) fn write_catalog(path: &Path, rows: &str) {
    let header =
        "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region";
    std::fs::write(path, format!("{header}\n{rows}")).unwrap();
}

/// The folder of real catalogues, or nothing, loudly.
pub(crate) fn real_catalogs() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/catalog");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: no catalogues at {}", folder.display());
    None
}

/// A filter for so many of an accelerator.
pub(crate) fn gpu(name: &str, count: i32) -> Option<pb::OfferFilter> {
    let count = types::Int32Range {
        min: Some(count),
        max: Some(count),
    };
    let request = types::GpuRequest {
        names: vec![name.to_owned()],
        count: Some(count),
        ..Default::default()
    };
    let requirements = types::Requirements {
        gpu_any_of: vec![request],
        ..Default::default()
    };
    Some(pb::OfferFilter {
        requirements: Some(requirements),
        ..Default::default()
    })
}

pub(crate) fn ids(offers: &[pb::Offer]) -> Vec<&str> {
    offers.iter().map(|offer| offer.id.as_str()).collect()
}

pub(crate) fn prices(offers: &[pb::Offer]) -> Vec<i64> {
    offers
        .iter()
        .map(|offer| offer.price.unwrap().micro_usd_per_hour)
        .collect()
}
