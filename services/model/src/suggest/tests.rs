use super::*;

#[test]
fn the_nearest_word_is_found_if_it_is_near_enough() {
    let keys = ["replicas", "resources", "placement", "retry", "run", "a"];
    let cases = [
        ("replica", Some("replicas")),
        ("relpicas", Some("replicas")),
        ("Resorces", Some("resources")),
        ("rnu", Some("run")),
        ("retyr", Some("retry")),
        ("placment", Some("placement")),
        ("volumes", None),
        ("x", None),
        ("", None),
    ];
    for (word, found) in cases {
        assert_eq!(nearest(word, keys), found, "{word}");
    }
    assert_eq!(nearest("run", []), None);
    // Of equals the first.
    assert_eq!(nearest("cat", ["bat", "hat"]), Some("bat"));
}

#[test]
fn a_hint_ends_a_message() {
    assert_eq!(hint("replica", ["replicas"]), " (did you mean `replicas`?)");
    assert_eq!(hint("volumes", ["replicas"]), "");
}

#[test]
fn a_distance_counts_letters_put_in_left_out_replaced_and_swapped() {
    let cases = [
        ("", "", 0),
        ("a", "", 1),
        ("", "ab", 2),
        ("ab", "ba", 1),
        ("abc", "axc", 1),
        ("kitten", "sitting", 3),
    ];
    for (from, to, expected) in cases {
        let letters = |text: &str| text.chars().collect::<Vec<_>>();
        assert_eq!(
            distance(&letters(from), &letters(to)),
            expected,
            "{from} {to}"
        );
        assert_eq!(
            distance(&letters(to), &letters(from)),
            expected,
            "{to} {from}"
        );
    }
}
