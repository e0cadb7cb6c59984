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

#[tokio::test(start_paused = true)]
async fn stands_of_the_same_offers_make_no_room_for_each_other() {
    let pages = Pages::default();
    let same_offers = |revision| {
        Arc::new(Stand {
            revision,
            content: 1,
            ..Stand::default()
        })
    };
    for revision in 1..=100 {
        pages.keep(&same_offers(revision));
    }
    for revision in 101..=107 {
        pages.keep(&stand(revision));
    }
    assert!(pages.find(1).is_some() && pages.find(100).is_some());
    pages.keep(&stand(108));
    assert!(pages.find(1).is_none() && pages.find(100).is_none());
    assert!(pages.find(101).is_some());
    for revision in 200..200 + MAX_STANDS as u64 + 1 {
        pages.keep(&same_offers(revision));
    }
    assert!(pages.find(200).is_none(), "there is a bound on all of them");
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

#[test]
fn long_questions_are_not_remembered() {
    let pages = Pages::default();
    let question = |bytes| Question {
        revision: 1,
        asked: vec![0; bytes],
    };
    let selection = Arc::new(Selection::default());
    for bytes in [1000, 4 << 20] {
        pages.remember(question(bytes), &selection);
    }
    assert!(pages.recall(&question(1000)).is_some());
    assert!(pages.recall(&question(4 << 20)).is_none());
}
