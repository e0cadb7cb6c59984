//! Whatever the provider of a backend does, it costs its own offers alone: those of the others
//! arrive, the report says what happened, and memory stays bounded. Each fault is played to every
//! kind that is asked over HTTP.

use std::time::Duration;

use muster_proto::offers::v1 as pb;
use muster_proto::types::v1::Availability;
use offers_gateway::Config;
use offers_gateway::config::Timeouts;
use offers_gateway::spec::{Api, Key, Kind, Provider as Whose, Spec, Times};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::kinds::{KEY, KINDS, Played};
use crate::provider::{Fault, Provider};
use crate::support::{Running, catalog, config, ids, start};

/// No test waits longer than this for anything.
const DEADLINE: Duration = Duration::from_secs(120);

/// How long an answer waits for a backend that is late.
const SOON: Duration = Duration::from_millis(200);

/// More than the sockets hold between a provider and us.
const IN_SOCKETS: u64 = 16 << 20;

/// Far longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

const STEADY: &str = "steady/eu/small/ondemand";

/// A gateway with backends whose providers all have one fault, and one backend that is well.
struct Stage {
    gateway: Running,
    providers: Vec<(Played, Provider)>,
    _folder: TempDir,
}

impl Stage {
    async fn new(
        kinds: &[Played],
        fault: &Fault,
        times: &Times,
        backend_timeout: Duration,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut specs = vec![catalog(folder.path(), "steady", "small,,,2,4,0.1,,eu\n")];
        let mut providers = Vec::new();
        for kind in kinds {
            let (provider, spec) = kind.start(fault.clone());
            specs.push(Spec {
                times: times.clone(),
                ..spec
            });
            providers.push((*kind, provider));
        }
        let gateway = start(Config {
            timeouts: Timeouts::always(backend_timeout),
            ..config(specs)
        })
        .await;
        Self {
            gateway,
            providers,
            _folder: folder,
        }
    }

    async fn list(&self) -> pb::ListOffersResponse {
        let listed = self.gateway.list(pb::ListOffersRequest::default());
        timeout(DEADLINE, listed)
            .await
            .expect("no backend delays an answer for ever")
    }

    /// Waits until the report of a backend has some of these words, while the steady offer is
    /// there, and no other.
    async fn told(&self, name: &str, words: &[&str]) -> pb::BackendReport {
        let told = async {
            loop {
                let answer = self.list_until_steady().await;
                let mut reports = answer.backends.into_iter();
                let report = reports.find(|report| report.backend == name).unwrap();
                assert!(!report.error.contains(KEY), "{}", report.error);
                if words.iter().any(|words| report.error.contains(words)) {
                    return report;
                }
            }
        };
        let failed = format!("{name} does not say any of {words:?}");
        timeout(DEADLINE, told).await.expect(&failed)
    }

    /// An answer with the steady offer, and with no other.
    async fn list_until_steady(&self) -> pb::ListOffersResponse {
        let listed = async {
            loop {
                let answer = self.list().await;
                if !answer.offers.is_empty() {
                    return answer;
                }
            }
        };
        let answer = timeout(DEADLINE, listed).await.expect("the steady offer");
        assert_eq!(ids(&answer.offers), [STEADY]);
        answer
    }

    async fn refresh(&self, name: &str) -> Result<(), String> {
        let request = pb::RefreshBackendRequest {
            name: name.to_owned(),
            force: true,
        };
        let mut client = self.gateway.client.clone();
        let refreshed = timeout(DEADLINE, client.refresh_backend(request)).await;
        let refreshed = refreshed.expect("a refresh ends");
        refreshed
            .map(|_| ())
            .map_err(|status| status.message().to_owned())
    }

    /// Refreshes until it goes well: short times may be used up by a busy machine.
    async fn recover(&self, name: &str) {
        let recovered = async { while self.refresh(name).await.is_err() {} };
        timeout(DEADLINE, recovered)
            .await
            .expect("it is well again");
    }
}

/// Times that no noise uses up.
fn patient() -> Times {
    Times {
        refresh_interval: NEVER,
        attempt_timeout: DEADLINE,
        refresh_timeout: DEADLINE,
        ..Times::default()
    }
}

/// What does not answer is given up soon.
fn hasty() -> Times {
    Times {
        attempt_timeout: Duration::from_secs(1),
        refresh_timeout: Duration::from_secs(1),
        ..patient()
    }
}

/// Plays a fault to every kind: the steady offers are there, and each report has one of `words`.
/// Then all is well again.
async fn play(fault: Fault, times: Times, state: pb::BackendRefresh, words: &[&str]) {
    let stage = Stage::new(&KINDS, &fault, &times, SOON).await;
    for (kind, _) in &stage.providers {
        let report = stage.told(kind.name, words).await;
        assert_eq!(report.refresh(), state, "{fault:?}: {report:?}");
        assert_eq!(report.data(), pb::BackendData::None);
    }
    for (kind, provider) in &stage.providers {
        provider.set(Fault::Right);
        stage.recover(kind.name).await;
    }
    let answer = stage.list().await;
    assert_eq!(
        all_well(&answer),
        stage.providers.len() + 1,
        "{:?}",
        answer.backends
    );
    stage.gateway.stop().await;
}

/// How many backends have told all that their providers have.
fn all_well(answer: &pb::ListOffersResponse) -> usize {
    let found = |id: &str| answer.offers.iter().any(|offer| offer.id == id);
    let kinds = KINDS.iter().filter(|kind| found(kind.offer)).count();
    kinds + usize::from(found(STEADY))
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_is_well_every_kind_tells_its_offers_as_they_are() {
    let stage = Stage::new(&KINDS, &Fault::Right, &patient(), DEADLINE).await;
    let answer = stage.list().await;
    assert_eq!(all_well(&answer), KINDS.len() + 1, "{:?}", answer.backends);
    for (kind, provider) in &stage.providers {
        let offer = answer
            .offers
            .iter()
            .find(|offer| offer.id == kind.offer)
            .unwrap();
        let group = &offer.gpus[0];
        assert_eq!(
            (group.name.as_str(), group.count, group.memory_mib),
            ("H100", 8, 80 * 1024),
            "{}",
            kind.name
        );
        let live = !["catalog", "gpuhunt"].contains(&kind.name);
        let expected = if live {
            Availability::Available
        } else {
            Availability::Unknown
        };
        assert_eq!(offer.availability(), expected, "{}", kind.name);
        let price = offer.price.unwrap().micro_usd_per_hour;
        assert!(
            (19_500_000..24_000_000).contains(&price),
            "{}: {price}",
            kind.name
        );
        let keyed = provider
            .asked()
            .iter()
            .all(|asked| asked.headers.contains_key("authorization"));
        assert_eq!(keyed, live, "{}", kind.name);
    }
    stage.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_ones_are_not_waited_for_and_tell_when_they_can() {
    let times = patient();
    let stage = Stage::new(&KINDS, &Fault::Slow, &times, SOON).await;
    let answer = stage.list_until_steady().await;
    for report in answer
        .backends
        .iter()
        .filter(|report| report.backend != "steady")
    {
        assert_eq!(report.refresh(), pb::BackendRefresh::TimedOut, "{report:?}");
        assert!(report.error.contains("no answer within"), "{report:?}");
    }
    for (kind, provider) in &stage.providers {
        provider.set(Fault::Right);
        stage.refresh(kind.name).await.unwrap();
    }
    assert_eq!(all_well(&stage.list().await), KINDS.len() + 1);
    stage.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_ones_cost_their_own_time_alone() {
    play(
        Fault::Silent,
        hasty(),
        pb::BackendRefresh::TimedOut,
        &["no answer from http://127.0.0.1:"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_body_is_none() {
    play(
        Fault::Half,
        patient(),
        pb::BackendRefresh::Failed,
        &["broke off after"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_an_end_is_ended_by_time() {
    play(
        Fault::Endless,
        hasty(),
        pb::BackendRefresh::TimedOut,
        &["was not whole within"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_body_is_refused_when_it_says_so() {
    let stage = Stage::new(&KINDS, &Fault::HugeSaid, &patient(), SOON).await;
    for (kind, provider) in &stage.providers {
        stage.told(kind.name, &["is larger than"]).await;
        assert!(provider.sent() < IN_SOCKETS, "{}", kind.name);
    }
    stage.gateway.stop().await;
}

/// One kind stands for all, whose bodies are read by the same code: moving so much takes its time.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_body_that_does_not_say_so_is_refused_at_the_limit() {
    let stage = Stage::new(&[named("vastai")], &Fault::Huge, &patient(), SOON).await;
    stage.told("vastai", &["is larger than 32MB"]).await;
    let sent = stage.providers[0].1.sent();
    assert!(sent < (32 << 20) + IN_SOCKETS, "{sent} bytes were taken");
    stage.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_says_what_to_do() {
    let fault = Fault::Answer(
        "401 Unauthorized",
        "Content-Type: application/json\r\n",
        "{\"error\":\"not you\"}",
    );
    let words = [
        "refuses the key (401): put a valid one",
        "may not be read without a key (401)",
    ];
    play(fault, patient(), pb::BackendRefresh::Failed, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_asks_to_be_left_alone_is_left_alone() {
    let fault = Fault::Answer("429 Too Many Requests", "Retry-After: 3600\r\n", "");
    let stage = Stage::new(&KINDS, &fault, &patient(), SOON).await;
    let words = "asked too often (429) and asks to be left alone for 1h";
    for (kind, _) in &stage.providers {
        stage.told(kind.name, &[words]).await;
    }
    for (kind, provider) in &stage.providers {
        let before = provider.asked().len();
        provider.set(Fault::Right);
        let refused = stage.refresh(kind.name).await.unwrap_err();
        assert!(
            refused.contains("not asked: it asked to be left alone"),
            "{refused}"
        );
        assert_eq!(provider.asked().len(), before, "{}", kind.name);
    }
    stage.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_wish_to_be_left_alone_is_kept_within_the_same_refresh() {
    let fault = Fault::Answer("429 Too Many Requests", "Retry-After: 1\r\n", "");
    let stage = Stage::new(&KINDS, &fault, &patient(), SOON).await;
    stage.list_until_steady().await;
    for (kind, provider) in &stage.providers {
        provider.set(Fault::Right);
        stage.refresh(kind.name).await.unwrap();
    }
    assert_eq!(all_well(&stage.list().await), KINDS.len() + 1);
    stage.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_s_own_fault_is_named() {
    let fault = Fault::Answer("500 Internal Server Error", "", "we are on it");
    play(
        fault,
        patient(),
        pb::BackendRefresh::Failed,
        &["answers 500 Internal Server Error: we are on it"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_not_taken_for_the_whole() {
    let part = "instance_name,location,price,spot\nbig,eu,20,False\n";
    let fault = Fault::Answer("206 Partial Content", "", part);
    play(
        fault,
        patient(),
        pb::BackendRefresh::Failed,
        &["answers with a part (206)"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_for_people_is_no_answer() {
    let fault = Fault::Answer(
        "200 OK",
        "Content-Type: text/html\r\n",
        "<html>\n<title>Maintenance</title>",
    );
    let words = [
        "answers with text/html instead of what was asked for, which begins with: <html> <title>Maintenance</title>",
    ];
    play(fault, patient(), pb::BackendRefresh::Failed, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_types_are_no_offers_and_replace_none() {
    let words = ["no row can be used: ", "can be used: ", "is of no use: "];
    play(
        Fault::WrongTypes,
        patient(),
        pb::BackendRefresh::Failed,
        &words,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_inside_a_success_is_an_error() {
    let fault = Fault::Answer(
        "200 OK",
        "Content-Type: application/json\r\n",
        "{\"errors\":[{\"message\":\"out of order today\"}]}",
    );
    let words = [
        "it says: out of order today",
        "not a catalogue: there is no column",
    ];
    play(fault, patient(), pb::BackendRefresh::Failed, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_in_a_circle_end() {
    play(
        Fault::Circle,
        patient(),
        pb::BackendRefresh::Failed,
        &["lead in a circle"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_the_address_is_told() {
    let stage = Stage::new(&KINDS, &Fault::Gone, &patient(), SOON).await;
    for (kind, provider) in &stage.providers {
        let words = format!("cannot connect to {}", provider.address);
        let report = stage.told(kind.name, &[&words]).await;
        assert_eq!(report.refresh(), pb::BackendRefresh::Failed);
    }
    stage.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stays_with_the_host_that_it_is_for() {
    for kind in KINDS {
        let other = Provider::start(kind.script, Fault::Right);
        let stage = Stage::new(
            &[kind],
            &Fault::Elsewhere(other.address),
            &patient(),
            DEADLINE,
        )
        .await;
        let answer = stage.list().await;
        assert!(
            answer.offers.iter().any(|offer| offer.id == kind.offer),
            "{:?}",
            answer.backends
        );
        let asked = other.asked();
        assert!(!asked.is_empty());
        for asked in asked {
            assert_eq!(asked.headers.get("authorization"), None, "{asked:?}");
            assert!(!format!("{asked:?}").contains(KEY));
        }
        stage.gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_fetched_again_only_when_it_has_changed() {
    for kind in &KINDS[..2] {
        let stage = Stage::new(&[*kind], &Fault::Right, &patient(), DEADLINE).await;
        assert_eq!(ids(&stage.list().await.offers).len(), 2);
        let provider = &stage.providers[0].1;
        provider.set(Fault::Unchanged);
        stage.refresh(kind.name).await.unwrap();
        let asked = provider.asked();
        let last = &asked[asked.len() - 1].headers;
        assert_eq!(last["if-none-match"], "\"one\"");
        assert_eq!(last["if-modified-since"], "Wed, 21 Oct 2026 07:28:00 GMT");
        assert_eq!(asked[0].headers.get("if-none-match"), None);
        assert_eq!(
            ids(&stage.list().await.offers).len(),
            2,
            "what was told still holds"
        );
        stage.gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn that_nothing_has_changed_is_no_answer_to_who_did_not_ask_that() {
    // Its answers name no state that could be asked for.
    let nameless = Fault::RefusedWhere("nothing that is asked");
    let stage = Stage::new(&KINDS[..1], &nameless, &patient(), DEADLINE).await;
    assert_eq!(ids(&stage.list().await.offers).len(), 2);
    stage.providers[0].1.set(Fault::Unchanged);
    let error = stage.refresh("catalog").await.unwrap_err();
    assert!(error.contains("but was not asked that"), "{error}");
    assert_eq!(
        ids(&stage.list().await.offers).len(),
        2,
        "as old as they are"
    );
    stage.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_part_makes_the_whole_fail_by_its_name_and_the_old_offers_stay() {
    let clouds = [
        ("runpod", "US-1\\\"", "data centre US-1: "),
        ("runpod-community", "SE\\\"", "country SE: "),
    ];
    let both = clouds.map(|(name, ..)| named(name));
    let stage = Stage::new(&both, &Fault::Right, &patient(), DEADLINE).await;
    assert_eq!(stage.list().await.offers.len(), 3);
    for (index, (name, missing, part)) in clouds.into_iter().enumerate() {
        let provider = &stage.providers[index].1;
        provider.set(Fault::RefusedWhere(missing));
        let refused = stage.refresh(name).await.unwrap_err();
        assert!(
            refused.contains(part) && refused.contains("(403)"),
            "{refused}"
        );
        let answer = stage.list().await;
        assert_eq!(answer.offers.len(), 3, "the old offers are served");
        let report = |of: &str| {
            let mut reports = answer.backends.iter();
            reports.find(|report| report.backend == of).unwrap()
        };
        assert_eq!(report(name).refresh(), pb::BackendRefresh::Failed);
        provider.set(Fault::Right);
        stage.refresh(name).await.unwrap();
    }
    stage.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn capacity_that_is_not_told_is_unknown() {
    let fault = Fault::RefusedWhere("/availability");
    let stage = Stage::new(&[named("vultr")], &fault, &patient(), DEADLINE).await;
    let answer = stage.list().await;
    let offer = answer
        .offers
        .iter()
        .find(|offer| offer.id == named("vultr").offer)
        .unwrap();
    assert_eq!(offer.availability(), Availability::Unknown);
    stage.gateway.stop().await;
}

fn named(name: &str) -> Played {
    *KINDS.iter().find(|known| known.name == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_key_a_backend_is_disabled_and_says_where_to_put_one() {
    let folder = tempfile::tempdir().unwrap();
    let needy = |whose: Whose| {
        let base = "http://127.0.0.1:9".parse().unwrap();
        Spec::new(
            whose.name(),
            Kind::Api(Api::new(whose, base, Key::Missing(String::new()))),
        )
    };
    let specs = vec![
        catalog(folder.path(), "steady", "small,,,2,4,0.1,,eu\n"),
        needy(Whose::Lambda),
        needy(Whose::Digitalocean),
    ];
    let gateway = start(config(specs)).await;
    let answer = timeout(DEADLINE, gateway.list(pb::ListOffersRequest::default()))
        .await
        .unwrap();
    assert_eq!(ids(&answer.offers), [STEADY]);
    for (name, variable) in [
        ("lambda", "LAMBDA_API_KEY"),
        ("digitalocean", "DIGITALOCEAN_ACCESS_TOKEN"),
    ] {
        let report = answer
            .backends
            .iter()
            .find(|report| report.backend == name)
            .unwrap();
        assert_eq!(report.refresh(), pb::BackendRefresh::Disabled);
        assert!(report.error.contains(variable), "{}", report.error);
    }
    gateway.stop().await;
}
