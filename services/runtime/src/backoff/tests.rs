use super::*;

const POLICY: Policy = Policy::doubling(Duration::from_millis(100), Duration::from_secs(3));

#[test]
fn delays_grow_by_the_factor_up_to_the_maximum() {
    let plain = Policy {
        jitter: 0.0,
        ..POLICY
    };
    let delays: Vec<_> = (0..7)
        .map(|retry| plain.delay(retry, 1).as_millis())
        .collect();
    assert_eq!(delays, [100, 200, 400, 800, 1600, 3000, 3000]);
}

#[test]
fn jitter_only_shortens_and_keeps_the_other_part() {
    for seed in 0..500 {
        for retry in [0, 1, 5, 40, u32::MAX] {
            let whole = Policy {
                jitter: 0.0,
                ..POLICY
            }
            .delay(retry, seed);
            let delay = POLICY.delay(retry, seed);
            assert!(
                delay <= whole && delay >= whole / 2,
                "{seed} {retry}: {delay:?}"
            );
        }
    }
}

#[test]
fn the_seed_alone_decides_and_spreads() {
    let first: Vec<_> = (0..100)
        .map(|retry| POLICY.delay(retry, seed("a")))
        .collect();
    let again: Vec<_> = (0..100)
        .map(|retry| POLICY.delay(retry, seed("a")))
        .collect();
    assert_eq!(first, again);
    let tenths: std::collections::BTreeSet<_> = (0..200)
        .map(|caller| {
            (unit(seed(&format!("caller-{caller}")), 0) * 10.0)
                .floor()
                .to_string()
        })
        .collect();
    assert_eq!(
        tenths.len(),
        10,
        "200 callers fall into every tenth of the range"
    );
}

#[test]
fn a_series_counts_failures_and_begins_anew() {
    let mut series = Backoff::new(
        Policy {
            jitter: 0.0,
            ..POLICY
        },
        7,
    );
    assert_eq!(series.next_delay(), Duration::from_millis(100));
    assert_eq!(series.next_delay(), Duration::from_millis(200));
    assert_eq!(series.failures(), 2);
    series.reset();
    assert_eq!(series.next_delay(), Duration::from_millis(100));
}
