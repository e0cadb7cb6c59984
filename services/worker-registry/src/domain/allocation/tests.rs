use super::*;

fn token(epoch: &str, revision: u64) -> FencingToken {
    FencingToken {
        epoch: epoch.into(),
        revision,
    }
}

#[test]
fn fencing_tokens_order_as_texts_as_they_do_as_values() {
    let tokens = [
        token("000000000001-ffffffff", 999),
        token("000000000002-00000000", 0),
        token("000000000002-00000000", 9),
        token("000000000002-00000000", 10),
        token("000000000002-00000000", u64::MAX),
    ];
    for pair in tokens.windows(2) {
        assert!(pair[0] < pair[1]);
        assert!(pair[0].to_string() < pair[1].to_string());
    }
    for token in tokens {
        assert_eq!(token.to_string().parse(), Ok(token));
    }
}

#[test]
fn other_texts_are_no_fencing_tokens() {
    for text in [
        "",
        "-",
        "e-1",
        "-00000000000000000001",
        "e-0000000000000000000x",
        "e-99999999999999999999",
    ] {
        assert_eq!(
            text.parse::<FencingToken>(),
            Err(FencingTokenError),
            "{text}"
        );
    }
}

#[test]
fn owner_terms_order_by_epoch_before_revision() {
    let term = |epoch: &str, revision| OwnerTerm {
        epoch: epoch.into(),
        revision,
    };
    assert!(term("1", 9) < term("2", 1));
    assert!(term("2", 1) < term("2", 2));
}
