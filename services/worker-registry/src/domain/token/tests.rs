use std::time::Duration;

use super::*;
use crate::domain::fixture::at;

fn token() -> JoinToken {
    JoinToken {
        id: "t1".into(),
        secret_hash: [7; 32],
        worker: None,
        max_uses: Some(2),
        uses: 0,
        expires: Some(at(100)),
        created: at(0),
        actor: "alice".into(),
        labels: Labels::new(),
    }
}

#[test]
fn a_token_lets_in_as_often_as_it_may() {
    let fresh = token();
    assert_eq!(fresh.admits("w1", at(1)), Ok(()));
    assert_eq!(fresh.used().admits("w1", at(1)), Ok(()));
    assert_eq!(fresh.used().used().admits("w1", at(1)), Err(Unfit::UsedUp));
    let unbounded = JoinToken {
        max_uses: None,
        uses: u32::MAX,
        ..token()
    };
    assert_eq!(unbounded.used().admits("w1", at(1)), Ok(()));
}

#[test]
fn a_token_ends_at_its_time() {
    let last = at(100) - Duration::from_nanos(1);
    assert_eq!(token().admits("w1", last), Ok(()));
    assert_eq!(token().admits("w1", at(100)), Err(Unfit::Expired));
    let endless = JoinToken {
        expires: None,
        ..token()
    };
    assert_eq!(endless.admits("w1", at(1 << 40)), Ok(()));
}

#[test]
fn a_bound_token_lets_in_nobody_else() {
    let bound = JoinToken {
        worker: Some("w1".into()),
        ..token()
    };
    assert_eq!(bound.admits("w1", at(1)), Ok(()));
    assert_eq!(bound.admits("w2", at(1)), Err(Unfit::OtherWorker));
}
