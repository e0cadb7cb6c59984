use std::time::Duration;

use muster_proto::types::v1::ErrorReason;
use proptest::prelude::*;
use serde_json::json;
use tonic::{Code, Status};

use super::*;

fn full() -> Status {
    let mut violations = Violations::new();
    violations.add("spec.run.command", "must not be empty");
    violations.add("", "something is missing");
    error(
        Code::FailedPrecondition,
        ErrorReason::WrongState,
        "the worker is DRAINING",
    )
    .metadata("state", "DRAINING")
    .metadata("worker", "w1")
    .violations(violations)
    .retry_after(Duration::from_millis(1500))
    .into_status()
}

#[test]
fn what_is_said_is_read_back() {
    let details = Details::of(&full());
    assert_eq!(details.code, Code::FailedPrecondition);
    assert_eq!(details.message, "the worker is DRAINING");
    assert_eq!(
        (details.reason.as_str(), details.domain.as_str()),
        ("WRONG_STATE", "muster.dev")
    );
    assert!(details.is(ErrorReason::WrongState) && !details.is(ErrorReason::Fenced));
    let metadata: Vec<_> = details
        .metadata
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(metadata, [("state", "DRAINING"), ("worker", "w1")]);
    assert_eq!(details.violations.len(), 2);
    assert_eq!(details.retry_delay, Some(Duration::from_millis(1500)));
}

#[test]
fn it_survives_the_headers_that_carry_it() {
    let headers = full().into_http::<tonic::body::Body>().headers().clone();
    assert!(has_valid_details(&headers));
    let back = Status::from_header_map(&headers).expect("a status");
    assert_eq!(Details::of(&back), Details::of(&full()));
}

#[test]
fn a_peer_without_details_is_read_too() {
    let details = Details::of(&Status::not_found("no such thing"));
    assert_eq!(
        (details.code, details.reason.as_str()),
        (Code::NotFound, "")
    );
    assert!(!details.is(ErrorReason::ResourceNotFound));
    assert_eq!(details.to_string(), "no such thing (NOT_FOUND)");
}

#[test]
fn a_foreign_domain_is_not_ours() {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let foreign = ErrorDetails::with_error_info("FENCED", "example.com", []);
    let status = Status::with_error_details(Code::FailedPrecondition, "no", foreign);
    assert!(!Details::of(&status).is(ErrorReason::Fenced));
}

#[test]
fn every_reason_has_a_name_that_leads_back() {
    let mut number = 0;
    while let Ok(reason) = ErrorReason::try_from(number) {
        let name = reason_name(reason);
        assert!(!name.starts_with("ERROR_REASON"), "{name}");
        assert_eq!(reason_of(name), reason);
        number += 1;
    }
    assert!(number > 30);
    assert_eq!(reason_of("NEVER_HEARD_OF"), ErrorReason::Unspecified);
}

#[test]
fn json_is_google_rpc_status() {
    let expected = json!({
        "code": 9,
        "message": "the worker is DRAINING",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "WRONG_STATE",
                "domain": "muster.dev",
                "metadata": {"state": "DRAINING", "worker": "w1"},
            },
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [
                    {"field": "spec.run.command", "description": "must not be empty"},
                    {"field": "", "description": "something is missing"},
                ],
            },
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.500s"},
        ],
    });
    assert_eq!(Details::of(&full()).to_json(), expected);
    let plain = json!({"code": 5, "message": "no", "details": []});
    assert_eq!(Details::of(&Status::not_found("no")).to_json(), plain);
}

#[test]
fn json_keeps_details_of_other_types() {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let mut other = ErrorDetails::new();
    other.set_help(vec![tonic_types::HelpLink::new(
        "see",
        "https://example.com",
    )]);
    let status = Status::with_error_details(Code::Internal, "no", other);
    let json = Details::of(&status).to_json();
    assert_eq!(
        json["details"][0]["@type"],
        "type.googleapis.com/google.rpc.Help"
    );
    assert!(
        json["details"][0]["value"]
            .as_str()
            .is_some_and(|value| !value.is_empty())
    );
}

#[test]
fn words_are_for_people() {
    let words = "the worker is DRAINING (FAILED_PRECONDITION, WRONG_STATE)\n  \
                 spec.run.command: must not be empty\n  \
                 something is missing\n  \
                 another try may work after 1.5s";
    assert_eq!(Details::of(&full()).to_string(), words);
}

#[test]
fn violations_are_all_told() {
    let mut violations = Violations::new();
    assert!(violations.clone().into_result().is_ok());
    assert_eq!(violations.take("count", "7".parse::<i32>()), Some(7));
    assert_eq!(violations.take("size", "x".parse::<i32>()), None);
    let mut inner = Violations::new();
    inner.add("command", "must not be empty");
    inner.add("[1].name", "is used twice");
    inner.add("", "needs image or command");
    violations.extend_under("spec.run", inner);
    let status = violations.into_result().unwrap_err();
    assert_eq!(
        status.message(),
        "size invalid digit found in string, and 3 more"
    );
    let details = Details::of(&status);
    assert_eq!(details.code, Code::InvalidArgument);
    assert!(details.is(ErrorReason::InvalidField));
    let fields: Vec<_> = details
        .violations
        .iter()
        .map(|one| one.field.as_str())
        .collect();
    assert_eq!(
        fields,
        ["size", "spec.run.command", "spec.run[1].name", "spec.run"]
    );
}

#[test]
fn a_status_never_outgrows_the_headers_that_carry_it() {
    let mut violations = Violations::new();
    for index in 0..10_000 {
        violations.add(
            format!("items[{index}].{}", "x".repeat(index % 700)),
            "é".repeat(400),
        );
    }
    let mut failure = error(
        Code::InvalidArgument,
        ErrorReason::InvalidField,
        "é".repeat(100_000),
    );
    for index in 0..1_000 {
        failure = failure.metadata(format!("key{index}"), "value");
    }
    let status = failure.violations(violations).into_status();
    let headers = status
        .clone()
        .into_http::<tonic::body::Body>()
        .headers()
        .clone();
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 32)
        .sum();
    assert!(size < 8 * 1024, "{size} bytes");
    let details = Details::of(&status);
    let last = details.violations.last().expect("some");
    let told = details.violations.len() - 1;
    assert_eq!(last.description, format!("and {} more", 10_000 - told));
    assert!(details.message.ends_with(" ..."));
    assert!(details.metadata.contains_key("key0"));
}

proptest! {
    #[test]
    fn nothing_that_a_peer_sends_as_details_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let status = Status::with_details(Code::Internal, "no", bytes.into());
        let details = Details::of(&status);
        prop_assert_eq!(details.code, Code::Internal);
        let _ = (details.to_json(), details.to_string());
    }

    #[test]
    fn what_is_called_valid_does_not_panic_in_tonic(value in "[A-Za-z0-9+/=_ %-]{0,40}") {
        let mut headers = http::HeaderMap::new();
        headers.insert("grpc-status", "9".parse().unwrap());
        headers.insert(Status::GRPC_STATUS_DETAILS, value.parse().unwrap());
        if has_valid_details(&headers) {
            prop_assert!(Status::from_header_map(&headers).is_some());
        } else {
            prop_assert!(std::panic::catch_unwind(|| Status::from_header_map(&headers)).is_err());
        }
    }

    #[test]
    fn mutations_of_a_true_status_do_no_harm(at in 0_usize..400, byte in any::<u8>()) {
        let mut bytes = full().details().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Details::of(&Status::with_details(Code::Internal, "no", bytes.into())).to_json();
    }
}
