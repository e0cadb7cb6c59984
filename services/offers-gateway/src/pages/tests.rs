use super::*;

fn stand(revision: u64) -> Arc<Stand> {
    Arc::new(Stand {
        revision,
        content: revision,
        ..Stand::default()
    })
}

#[tokio::test(start_paused = true)]
async fn stands_are_kept_for_their_time_and_number() {
    let pages = Pages::default();
    for revision in 1..=9 {
        pages.keep(&stand(revision));
    }
    assert!(pages.find(1).is_none(), "the oldest made room");
    assert!(pages.find(2).is_some());
    tokio::time::advance(KEPT_FOR / 2).await;
    pages.keep(&stand(2));
    tokio::time::advance(KEPT_FOR / 2 + Duration::from_secs(1)).await;
    assert!(pages.find(9).is_none(), "its time has passed");
    assert!(pages.find(2).is_some(), "a page was sent from it meanwhile");
}

#[test]
fn selections_are_remembered_up_to_a_number() {
    let pages = Pages::default();
    let question = |number: usize| Question {
        revision: 1,
        asked: number.to_be_bytes().to_vec(),
    };
    let selection = Arc::new(Selection::default());
    for number in 0..MAX_PLANS + 10 {
        assert!(pages.recall(&question(0)).is_some() || number == 0);
        pages.remember(question(number), &selection);
    }
    assert!(
        pages.recall(&question(1)).is_none(),
        "the one unused for longest"
    );
    assert!(
        pages.recall(&question(0)).is_some(),
        "it was used all the time"
    );
    assert!(
        pages
            .recall(&Question {
                revision: 2,
                ..question(0)
            })
            .is_none()
    );
}
