use proptest::prelude::*;

use super::*;

/// `"ab"` is an answer that tells of `a` and `b` and of no other; `"a?"` one that may lack some.
fn sight(text: &str) -> Sight {
    let whole = !text.ends_with('?');
    let read = text.chars().filter(|one| *one != '?');
    Sight {
        read: read.map(String::from).collect(),
        whole,
    }
}

fn letters(set: &BTreeSet<String>) -> String {
    set.iter().map(String::as_str).collect()
}

/// What is offered, and what there is, after each of some answers; `-` while nothing is certain.
fn check(answers: &[(&str, &str, &str)]) {
    let mut accelerators = Accelerators::default();
    for (at, (answer, offered, there)) in answers.iter().enumerate() {
        match at {
            0 => accelerators = Accelerators::first(Some(sight(answer))),
            _ => drop(accelerators.take(&sight(answer))),
        }
        let found = (
            letters(accelerators.offered()),
            accelerators.there().map_or("-".to_owned(), letters),
        );
        assert_eq!(found, ((*offered).into(), (*there).into()), "answer {at}");
    }
}

#[test]
fn what_is_not_listed_twice_is_gone_and_what_is_listed_twice_has_come() {
    check(&[
        ("ab", "ab", "-"),
        ("ab", "ab", "ab"),
        ("a", "ab", "ab"),
        ("a", "a", "a"),
        ("ab", "a", "ab"),
        ("ab", "ab", "ab"),
    ]);
}

#[test]
fn an_answer_that_is_taken_back_at_once_changes_nothing() {
    check(&[
        ("ab", "ab", "-"),
        ("a", "ab", "ab"),
        ("ab", "ab", "ab"),
        ("", "ab", "ab"),
        ("abc", "ab", "abc"),
        ("ab", "ab", "abc"),
        ("ab", "ab", "ab"),
    ]);
}

#[test]
fn what_merely_cannot_be_read_is_not_offered_and_not_gone() {
    check(&[
        ("ab", "ab", "-"),
        ("ab", "ab", "ab"),
        ("a?", "ab", "ab"),
        ("a?", "a", "ab"),
        ("?", "a", "ab"),
        ("?", "", "ab"),
        // Now it is certain, and only at the second time.
        ("b", "", "ab"),
        ("b", "b", "b"),
    ]);
}

#[test]
fn what_comes_and_goes_hides_no_loss_of_another() {
    check(&[
        ("abc", "abc", "-"),
        ("ab", "abc", "abc"),
        ("ac", "abc", "abc"),
        ("a", "ac", "ac"),
        ("ac", "ac", "ac"),
    ]);
}

#[test]
fn without_a_first_answer_nothing_is_offered_until_two_agree() {
    let mut accelerators = Accelerators::first(None);
    assert!(accelerators.take(&sight("a")));
    assert_eq!(letters(accelerators.offered()), "");
    assert!(!accelerators.take(&sight("a")));
    assert_eq!(letters(accelerators.offered()), "a");
    assert!(accelerators.take(&sight("a?")));
}

#[test]
fn only_a_whole_answer_says_that_something_is_gone() {
    let gpus = ["a".to_owned(), "b".to_owned()];
    assert_eq!(sight("a").gone(&gpus), Some(&gpus[1]));
    assert_eq!(sight("ab").gone(&gpus), None);
    assert_eq!(sight("a?").gone(&gpus), None);
    assert_eq!(sight("").gone(&[]), None);
}

proptest! {
    /// Whatever the answers: what the last two told is offered, what neither told is not, and nothing that
    /// either told is taken for gone.
    #[test]
    fn the_last_two_answers_decide(answers in prop::collection::vec("[a-d]{0,4}\\??", 2..12)) {
        let mut accelerators = Accelerators::first(Some(sight(&answers[0])));
        for pair in answers.windows(2) {
            let (before, now) = (sight(&pair[0]), sight(&pair[1]));
            let again = accelerators.take(&now);
            prop_assert_eq!(again, before != now);
            let offered = accelerators.offered();
            prop_assert!(before.read.intersection(&now.read).all(|gpu| offered.contains(gpu)));
            prop_assert!(offered.iter().all(|gpu| before.read.contains(gpu) || now.read.contains(gpu)));
            if let Some(there) = accelerators.there() {
                prop_assert!(now.read.is_subset(there));
                prop_assert!(!before.whole || !now.whole || offered.is_subset(there));
            }
        }
    }
}
