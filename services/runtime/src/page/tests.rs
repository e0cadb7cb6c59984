use muster_proto::workers::v1::{ListWorkersRequest, WorkerFilter};
use proptest::prelude::*;
use tonic::{Code, Status};

use super::*;
use crate::status::Details;
use muster_proto::types::v1::ErrorReason;

const LIST: &str = "/muster.workers.v1.WorkersService/ListWorkers";

fn sealer(key: u8) -> Sealer {
    Sealer::with_key(&[key; 32])
}

fn request() -> ListWorkersRequest {
    let filter = WorkerFilter {
        labels: [("a", "1"), ("b", "2")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        ..WorkerFilter::default()
    };
    ListWorkersRequest {
        filter: Some(filter),
        ..ListWorkersRequest::default()
    }
}

#[test]
fn sizes_follow_the_contract() {
    for (asked, expected) in [
        (0, 50),
        (1, 1),
        (50, 50),
        (1000, 1000),
        (1001, 1000),
        (i32::MAX, 1000),
    ] {
        assert_eq!(size(asked), Ok(expected), "{asked}");
    }
    assert_eq!(size(-1), Err(NegativeSize));
    assert_eq!(size(i32::MIN), Err(NegativeSize));
}

#[test]
fn paging_fields_are_taken_out_of_a_request() {
    let mut request = ListWorkersRequest {
        page_size: 7,
        page_token: "t".to_owned(),
        ..request()
    };
    let mut violations = Violations::new();
    let asked = Asked::take(
        &mut request.page_size,
        &mut request.page_token,
        &mut violations,
    );
    assert_eq!(
        asked,
        Asked {
            size: 7,
            token: "t".to_owned()
        }
    );
    assert_eq!(request, self::request());
    assert!(violations.is_empty());
    request.page_size = -3;
    Asked::take(
        &mut request.page_size,
        &mut request.page_token,
        &mut violations,
    );
    let details = Details::of(&violations.into_status());
    assert_eq!(details.violations[0].field, "page_size");
    assert_eq!(details.violations[0].description, "must not be negative");
}

#[test]
fn a_token_opens_for_the_same_call() {
    let sealer = sealer(1);
    for cursor in [&b""[..], b"w-17", &[0, 255, 128], &[7; 300]] {
        let token = sealer.scope(LIST, "alice", &request()).seal(cursor);
        let again = sealer.clone();
        let opened = again.scope(LIST, "alice", &request()).open(&token);
        assert_eq!(opened.unwrap().unwrap(), cursor);
        assert!(
            token
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
    }
    assert_eq!(sealer.scope(LIST, "alice", &request()).open(""), Ok(None));
}

#[test]
fn a_token_opens_for_no_other_call() {
    let sealer = sealer(1);
    let token = sealer.scope(LIST, "alice", &request()).seal(b"w-17");
    let other_filter = ListWorkersRequest::default();
    let not_before = ListWorkersRequest {
        not_before: "x".to_owned(),
        ..request()
    };
    for scope in [
        sealer.scope(
            "/muster.workers.v1.WorkersService/ListAllocations",
            "alice",
            &request(),
        ),
        sealer.scope(LIST, "bob", &request()),
        sealer.scope(LIST, "", &request()),
        sealer.scope(&format!("{LIST}a"), "lice", &request()),
        sealer.scope(LIST, "alice", &other_filter),
        sealer.scope(LIST, "alice", &not_before),
    ] {
        assert_eq!(scope.open(&token), Err(TokenError::Mismatch));
    }
}

#[test]
fn a_token_of_another_key_has_expired() {
    let token = sealer(1).scope(LIST, "alice", &request()).seal(b"w-17");
    let other = sealer(2);
    assert_eq!(
        other.scope(LIST, "alice", &request()).open(&token),
        Err(TokenError::Expired)
    );
    let random = Sealer::random().unwrap();
    let token = random.scope(LIST, "alice", &request()).seal(b"w-17");
    let restarted = Sealer::random().unwrap();
    assert_eq!(
        restarted.scope(LIST, "alice", &request()).open(&token),
        Err(TokenError::Expired)
    );
}

#[test]
fn any_change_of_a_token_is_seen() {
    let sealer = sealer(1);
    let request = request();
    let scope = sealer.scope(LIST, "alice", &request);
    let token = scope.seal(b"w-17");
    for (at, _) in token.char_indices() {
        for replacement in "AZaz09-_=+ é".chars() {
            let mut changed: String = token[..at].to_owned();
            changed.push(replacement);
            changed.push_str(&token[at + 1..]);
            if changed != token {
                assert_eq!(scope.open(&changed), Err(TokenError::Mismatch), "{changed}");
            }
        }
        assert_eq!(scope.open(&token[at + 1..]).ok().flatten(), None);
        if at > 0 {
            assert_eq!(scope.open(&token[..at]), Err(TokenError::Mismatch));
        }
    }
    assert_eq!(scope.open(&format!("{token}A")), Err(TokenError::Mismatch));
    assert_eq!(scope.open(&"A".repeat(1 << 20)), Err(TokenError::Mismatch));
}

#[test]
fn token_errors_are_statuses() {
    for (error, code, reason) in [
        (
            TokenError::Mismatch,
            Code::InvalidArgument,
            ErrorReason::PageTokenMismatch,
        ),
        (
            TokenError::Expired,
            Code::OutOfRange,
            ErrorReason::PageTokenExpired,
        ),
    ] {
        let details = Details::of(&Status::from(error));
        assert_eq!(details.code, code);
        assert!(details.is(reason));
    }
}

#[test]
fn the_key_is_never_shown() {
    assert_eq!(format!("{:?}", sealer(9)), "Sealer(..)");
}

#[test]
fn a_page_ends_at_its_count() {
    assert_eq!(cut(0..10, 3, |_| 10), (vec![0, 1, 2], true));
    assert_eq!(cut(0..3, 3, |_| 10), (vec![0, 1, 2], false));
    assert_eq!(cut(0..0, 3, |_| 10), (vec![], false));
    assert_eq!(cut(0..2, 0, |_| 10), (vec![0], true), "never below one");
}

#[test]
fn a_page_ends_at_its_bytes_but_never_below_one_item() {
    let quarter = MAX_BYTES / 4;
    let (page, more) = cut(0..10, 1000, |_| quarter);
    assert_eq!(
        (page.len(), more),
        (3, true),
        "the tags of four quarters are over the limit"
    );
    assert_eq!(cut([5, 6], 1000, |_| MAX_BYTES * 3), (vec![5], true));
    assert_eq!(cut([5], 1000, |_| usize::MAX), (vec![5], false));
}

#[test]
fn a_full_budget_stays_full() {
    let mut budget = Budget::with_bytes(10, 100);
    assert!(budget.admit(50));
    assert!(!budget.admit(90));
    assert!(
        budget.is_full() && !budget.admit(0),
        "a smaller one later would change the order"
    );
}

proptest! {
    #[test]
    fn pages_put_together_are_the_list(sizes in prop::collection::vec(0_usize..3_000_000, 0..60), count in 1_usize..20) {
        let mut rest: &[usize] = &sizes;
        let mut seen = Vec::new();
        loop {
            let (page, more) = cut(rest.iter().copied(), count, |size| *size);
            prop_assert!(page.len() <= count);
            prop_assert!(page.len() <= 1 || page.iter().sum::<usize>() <= MAX_BYTES);
            prop_assert_eq!(more, page.len() < rest.len());
            prop_assert!(!page.is_empty() || rest.is_empty());
            rest = &rest[page.len()..];
            seen.extend(page);
            if !more { break }
        }
        prop_assert_eq!(seen, sizes);
    }
}
