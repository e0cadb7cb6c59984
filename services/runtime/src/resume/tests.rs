use std::time::Duration;

use muster_proto::types::v1::ErrorReason;
use proptest::prelude::*;
use tonic::Code;

use super::*;
use crate::deadline::Deadline;
use crate::status::Details;

const EPOCH: &str = "0190aabbccdd-00c0ffee";
const RESTORED: &str = "0190aabbccde-00000001";

#[test]
fn a_token_is_read_back() {
    for revision in [0, 1, 4711, u64::MAX] {
        let position = Position {
            epoch: EPOCH.to_owned(),
            revision,
        };
        assert_eq!(
            Position::parse(&token(EPOCH, revision)),
            Ok(position.clone())
        );
        assert_eq!(position.token(), token(EPOCH, revision));
        assert_eq!(position.revision_in(EPOCH), Ok(revision));
        assert_eq!(
            position.revision_in(RESTORED),
            Err(PositionError::OtherEpoch)
        );
    }
}

#[test]
fn positions_are_ordered_by_epoch_then_revision() {
    let position = |epoch: &str, revision| Position {
        epoch: epoch.to_owned(),
        revision,
    };
    assert!(position(EPOCH, 9) < position(EPOCH, 10));
    assert!(position(EPOCH, 10) < position(RESTORED, 1));
}

#[test]
fn what_is_no_token_is_said_to_be_none() {
    let token = token(EPOCH, 17);
    for at in 0..token.len() {
        for replacement in ["A", "z", "_", "=", " ", "é"] {
            let changed = format!("{}{replacement}{}", &token[..at], &token[at + 1..]);
            if changed != token {
                assert_eq!(
                    Position::parse(&changed),
                    Err(PositionError::Malformed),
                    "{changed}"
                );
            }
        }
        assert_eq!(Position::parse(&token[..at]), Err(PositionError::Malformed));
    }
    assert_eq!(
        Position::parse(&"A".repeat(1 << 20)),
        Err(PositionError::Malformed)
    );
}

#[test]
fn a_field_with_a_token_is_checked() {
    assert_eq!(revision_of("resume_token", "", EPOCH).unwrap(), None);
    assert_eq!(
        revision_of("resume_token", &token(EPOCH, 3), EPOCH).unwrap(),
        Some(3)
    );
    let malformed = Details::of(&revision_of("not_before", "abc", EPOCH).unwrap_err());
    assert_eq!(malformed.code, Code::InvalidArgument);
    assert_eq!(malformed.violations[0].field, "not_before");
    let foreign =
        Details::of(&revision_of("resume_token", &token(RESTORED, 3), EPOCH).unwrap_err());
    assert_eq!(foreign.code, Code::OutOfRange);
    assert!(foreign.is(ErrorReason::HistoryChanged));
}

#[test]
fn an_etag_guards_its_own_version_of_its_own_resource() {
    let etag = Etag::new(EPOCH, "uid-1", 17);
    assert_eq!(etag.check(""), Ok(()), "none given is no precondition");
    assert_eq!(etag.check(etag.as_str()), Ok(()));
    assert_eq!(etag, Etag::new(EPOCH, "uid-1", 17));
    for other in [
        Etag::new(EPOCH, "uid-1", 18),
        Etag::new(EPOCH, "uid-2", 17),
        Etag::new(RESTORED, "uid-1", 17),
        Etag::new("uid-1", EPOCH, 17),
    ] {
        assert_eq!(
            etag.check(other.as_str()),
            Err(EtagError::Stale),
            "{other:?}"
        );
    }
    for not_one in [
        "x",
        "17",
        "\"abc\"",
        &etag.as_str()[1..],
        "é",
        &"0".repeat(4000),
    ] {
        assert_eq!(etag.check(not_one), Err(EtagError::Malformed), "{not_one}");
    }
}

#[test]
fn etag_errors_are_statuses() {
    let stale = Details::of(&EtagError::Stale.into_status("worker.etag"));
    assert_eq!(stale.code, Code::Aborted);
    assert!(stale.is(ErrorReason::EtagMismatch));
    let malformed = Details::of(&EtagError::Malformed.into_status("worker.etag"));
    assert_eq!(malformed.code, Code::InvalidArgument);
    assert_eq!(malformed.violations[0].field, "worker.etag");
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_for_the_revision_it_must_show() {
    let progress = Progress::new(5);
    let soon = || Deadline::after(Duration::from_secs(2));
    progress.not_before("", EPOCH, soon()).await.unwrap();
    progress
        .not_before(&token(EPOCH, 5), EPOCH, soon())
        .await
        .unwrap();
    let follower = progress.clone();
    let (waited, ()) = tokio::join!(progress.reach(8, soon()), async move {
        for revision in [6, 7, 6, 8] {
            tokio::time::sleep(Duration::from_millis(100)).await;
            follower.advance(revision);
        }
    });
    assert_eq!(waited, Ok(()));
    assert_eq!(progress.current(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_waits_in_vain_is_answered_before_its_deadline() {
    let progress = Progress::new(5);
    let deadline = Deadline::after(Duration::from_secs(2));
    let refused = progress
        .not_before(&token(EPOCH, 9), EPOCH, deadline)
        .await
        .unwrap_err();
    assert!(
        deadline.remaining() > Duration::ZERO,
        "there is time left to say so"
    );
    assert!(deadline.remaining() < Duration::from_millis(100));
    let details = Details::of(&refused);
    assert_eq!(details.code, Code::Unavailable);
    assert!(details.is(ErrorReason::Behind) && details.retry_delay.is_some());
    let foreign = progress
        .not_before(&token(RESTORED, 1), EPOCH, deadline)
        .await
        .unwrap_err();
    assert_eq!(foreign.code(), Code::OutOfRange);
    let malformed = progress.not_before("?", EPOCH, deadline).await.unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument);
}

proptest! {
    #[test]
    fn tokens_of_all_epochs_and_revisions_are_read_back(epoch in ".{0,40}", revision: u64) {
        let position = Position { epoch, revision };
        prop_assert_eq!(Position::parse(&position.token()), Ok(position));
    }

    #[test]
    fn parsing_never_panics(text in ".{0,80}") {
        let _ = Position::parse(&text);
        let _ = Etag::new(EPOCH, "uid", 1).check(&text);
    }
}
