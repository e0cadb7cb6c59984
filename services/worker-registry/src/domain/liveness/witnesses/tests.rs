use super::*;

const S: Duration = Duration::from_secs(1);

fn witnesses() -> Witnesses {
    Witnesses::new(Patience {
        silent_after: 10 * S,
        lease: 90 * S,
    })
}

fn ids(names: &[&str]) -> BTreeSet<Text> {
    names.iter().map(|name| Text::from(*name)).collect()
}

fn complete() -> Heard {
    Heard {
        complete: true,
        ..Heard::default()
    }
}

#[test]
fn an_instance_alone_needs_no_word() {
    let mut witnesses = witnesses();
    assert_eq!(witnesses.round(&ids(&[]), &ids(&[]), S), complete());
}

#[test]
fn all_that_hold_seats_have_to_answer() {
    let mut witnesses = witnesses();
    let seats = ids(&["a", "b"]);
    assert_eq!(witnesses.round(&seats, &seats, S), complete());
    assert_eq!(
        witnesses.round(&seats, &ids(&["a"]), 2 * S),
        Heard::default()
    );
    assert_eq!(witnesses.round(&seats, &seats, 3 * S), complete());
}

#[test]
fn who_goes_may_have_heard_workers_until_then() {
    let mut witnesses = witnesses();
    let both = ids(&["a", "b"]);
    witnesses.round(&both, &both, S);
    let left = ids(&["a"]);
    let heard = witnesses.round(&left, &left, 2 * S);
    assert!(heard.trust && heard.complete);
    assert_eq!(witnesses.round(&left, &left, 3 * S), complete());
}

#[test]
fn who_is_silent_for_too_long_is_evicted_and_its_lease_waited_out() {
    let mut witnesses = witnesses();
    let seats = ids(&["a"]);
    let nobody = ids(&[]);
    assert_eq!(witnesses.round(&seats, &nobody, S), Heard::default());
    assert_eq!(witnesses.round(&seats, &nobody, 10 * S), Heard::default());
    let heard = witnesses.round(&seats, &nobody, 11 * S);
    assert_eq!(heard.evict, vec![Text::from("a")]);
    assert!(!heard.complete);
    // Its seat is gone, yet it may not know.
    assert_eq!(witnesses.round(&nobody, &nobody, 12 * S), Heard::default());
    assert_eq!(witnesses.round(&nobody, &nobody, 100 * S), Heard::default());
    let over = witnesses.round(&nobody, &nobody, 101 * S);
    assert!(over.trust && over.complete);
    assert_eq!(witnesses.round(&nobody, &nobody, 102 * S), complete());
}

#[test]
fn who_is_back_with_a_seat_after_it_was_evicted_speaks_for_itself() {
    let mut witnesses = witnesses();
    let seats = ids(&["a"]);
    let nobody = ids(&[]);
    witnesses.round(&seats, &nobody, S);
    assert!(!witnesses.round(&seats, &nobody, 11 * S).evict.is_empty());
    witnesses.round(&nobody, &nobody, 12 * S);
    assert_eq!(witnesses.round(&seats, &seats, 13 * S), complete());
}
