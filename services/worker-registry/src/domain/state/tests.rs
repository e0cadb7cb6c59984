use super::Event::{Activate, Delete, Disable, Drain, Emptied, Enable, Force, Register, Resume};
use super::State::{Active, Disabled, Draining, Provisioning};
use super::*;

fn all_facts() -> impl Iterator<Item = Facts> {
    (0..32).map(|bits| Facts {
        empty: bits & 1 != 0,
        gone: bits & 2 != 0,
        proved: bits & 4 != 0,
        shutdown: bits & 8 != 0,
        unended: bits & 16 != 0,
    })
}

/// The design's table in its own words, written apart from the code: where a pair leads, or `None`
/// where it is refused.
fn expected(from: State, on: Event, facts: Facts) -> Option<Next> {
    let go = |state| Some(Next::State(state));
    match on {
        Register if matches!(from, Draining | Disabled) && !facts.shutdown => go(from),
        Register => go(Provisioning),
        Activate => match from {
            Provisioning => go(Active),
            Active | Draining => go(from),
            Disabled => None,
        },
        Drain => match from {
            Provisioning if facts.empty => None,
            Provisioning | Active | Draining => go(Draining),
            Disabled => None,
        },
        Resume if from == Draining => go(if facts.proved { Active } else { Provisioning }),
        Resume => None,
        Emptied => go(if from == Draining { Disabled } else { from }),
        Disable if from != Disabled && facts.empty => go(Disabled),
        Disable => None,
        Force if from == Disabled => None,
        Force => go(if facts.empty || facts.gone {
            Disabled
        } else {
            Draining
        }),
        Enable => (from == Disabled).then_some(Next::State(Provisioning)),
        Delete => (from == Disabled && !facts.unended).then_some(Next::Deleted),
    }
}

#[test]
fn each_pair_is_allowed_or_refused_with_what_to_do_first() {
    for from in State::ALL {
        for on in Event::ALL {
            for facts in all_facts() {
                let next = from.on(on, facts);
                assert_eq!(
                    next.ok(),
                    expected(from, on, facts),
                    "{from} {on:?} {facts:?}"
                );
                if let Err(rejected) = next {
                    let text = rejected.to_string();
                    assert!(text.contains(from.as_str()), "{text}");
                    assert!(rejected.first.len() > 10, "{text}");
                }
            }
        }
    }
}

#[test]
fn each_rule_is_reachable_and_each_pair_ends_with_one_that_always_applies() {
    for (at, rule) in TABLE.iter().enumerate() {
        let pair = |other: &&Rule| other.from == rule.from && other.on == rule.on;
        let reached = all_facts().any(|facts| {
            let first = TABLE
                .iter()
                .filter(pair)
                .find(|other| other.when.holds(facts));
            first.is_some_and(|first| std::ptr::eq(first, rule))
        });
        assert!(reached, "rule {at} is never reached: {rule:?}");
    }
    for from in State::ALL {
        for on in Event::ALL {
            let last = TABLE
                .iter()
                .rfind(|rule| rule.from == from && rule.on == on);
            assert_eq!(
                last.map(|rule| rule.when),
                Some(When::Always),
                "{from} {on:?}"
            );
        }
    }
}

#[test]
fn only_an_empty_worker_or_one_whose_agent_is_gone_is_ever_disabled() {
    for from in [Provisioning, Active, Draining] {
        for on in Event::ALL {
            for facts in all_facts().filter(|facts| !facts.empty && !facts.gone) {
                if on != Emptied {
                    assert_ne!(
                        from.on(on, facts),
                        Ok(Next::State(Disabled)),
                        "{from} {on:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn only_proved_checks_lead_to_active() {
    for from in [Provisioning, Draining, Disabled] {
        for on in Event::ALL {
            for facts in all_facts().filter(|facts| !facts.proved) {
                if on != Activate {
                    assert_ne!(from.on(on, facts), Ok(Next::State(Active)), "{from} {on:?}");
                }
            }
        }
    }
}
