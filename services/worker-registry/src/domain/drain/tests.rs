use super::*;
use crate::domain::fixture::{allocate, ask, at, book, drain_terms, item, join};

fn left(owners: &[&str]) -> Vec<Allocation> {
    let mut book = book();
    join(&mut book, "w1", &[("H100", 8)]);
    let mut allocation =
        Allocation::clone(&allocate(&mut book, &item("r1", ask("H100", 1))).unwrap());
    let of = |owner: &&str| {
        allocation.owner = (*owner).into();
        allocation.clone()
    };
    owners.iter().map(of).collect()
}

fn report(moved: u32, blocked: &[&str], eta: Option<u64>, said: u64) -> Report {
    let block = |reason: &&str| Block {
        allocation: "a-1".to_owned(),
        subject: "chat/0".to_owned(),
        reason: (*reason).to_owned(),
        message: String::new(),
    };
    Report {
        moved,
        blocked: blocked.iter().map(block).collect(),
        eta: eta.map(at),
        at: at(said),
    }
}

fn told(reports: &Reports, owners: &[&str], lost: bool, now: u64) -> Progress {
    let drain = Drain::begin(drain_terms(Cause::Operator), 2, at(0));
    let view = View {
        drain: &drain,
        reports,
        lost,
        silent_after: Duration::from_secs(30),
    };
    progress(view, left(owners).iter(), at(now))
}

fn reasons(progress: &Progress) -> Vec<&str> {
    progress
        .blocked
        .iter()
        .map(|block| block.reason.as_str())
        .collect()
}

#[test]
fn what_owners_say_is_summed() {
    let reports = Reports::from([
        ("a".into(), report(2, &["NO_CAPACITY"], Some(90), 10)),
        ("b".into(), report(1, &[], Some(70), 10)),
    ]);
    let progress = told(&reports, &["a", "a", "b"], false, 20);
    assert_eq!((progress.moved, progress.eta), (3, Some(at(90))));
    assert_eq!(reasons(&progress), ["NO_CAPACITY"]);
}

#[test]
fn an_owner_that_says_nothing_blocks_after_a_while() {
    let none = Reports::new();
    assert_eq!(reasons(&told(&none, &["a"], false, 29)), [""; 0]);
    assert_eq!(reasons(&told(&none, &["a"], false, 30)), ["OWNER_SILENT"]);
    let stale = Reports::from([("a".into(), report(0, &["NO_CAPACITY"], Some(90), 10))]);
    assert_eq!(reasons(&told(&stale, &["a"], false, 39)), ["NO_CAPACITY"]);
    let silent = told(&stale, &["a"], false, 40);
    assert_eq!(reasons(&silent), ["OWNER_SILENT"]);
    assert_eq!(silent.blocked[0].subject, "a");
}

#[test]
fn a_lost_worker_blocks_its_drain() {
    assert_eq!(reasons(&told(&Reports::new(), &["a"], true, 1)), ["LOST"]);
}

#[test]
fn nobody_expects_an_end_while_one_owner_does_not() {
    let reports = Reports::from([("a".into(), report(0, &[], Some(90), 10))]);
    assert_eq!(told(&reports, &["a", "b"], false, 20).eta, None);
}

#[test]
fn an_agents_shutdown_hurries_an_operators_drain_and_does_not_take_it_over() {
    let drain = Drain::begin(drain_terms(Cause::Operator), 2, at(0));
    let terms = Terms {
        deadline: Some(at(60)),
        after: AfterDeadline::Force,
        actor: "agent".into(),
        ..drain_terms(Cause::Shutdown)
    };
    let hurried = drain.with_terms(terms.clone(), at(1));
    assert_eq!(hurried.terms.cause, Cause::Operator);
    assert_eq!(&*hurried.terms.actor, "alice");
    assert_eq!(hurried.terms.deadline, Some(at(60)));
    assert_eq!(hurried.started, at(0));
    let begun = Drain::begin(terms, 2, at(0));
    assert_eq!(
        begun
            .with_terms(drain_terms(Cause::Operator), at(1))
            .terms
            .cause,
        Cause::Operator
    );
}

#[test]
fn an_agents_shutdown_never_slows_a_drain_that_it_does_not_take_over() {
    let force_at = |cause, seconds| Terms {
        deadline: Some(at(seconds)),
        after: AfterDeadline::Force,
        ..drain_terms(cause)
    };
    let begin =
        |terms: &Terms| Drain::begin(terms.clone(), 2, at(0)).with_terms(terms.clone(), at(1));
    let shutdown = force_at(Cause::Shutdown, 60);
    for cause in [Cause::Operator, Cause::Reclaim] {
        let forced = begin(&force_at(cause, 1)).with_terms(shutdown.clone(), at(2));
        assert!(forced.forced, "{cause:?}");
        assert_eq!(forced.terms, force_at(cause, 1));
        let earlier = begin(&force_at(cause, 30)).with_terms(shutdown.clone(), at(2));
        assert_eq!(
            (earlier.forced, earlier.terms),
            (false, force_at(cause, 30))
        );
        let later = begin(&force_at(cause, 90)).with_terms(shutdown.clone(), at(2));
        assert_eq!((later.forced, later.terms), (false, force_at(cause, 60)));
    }
    let waiting = Terms {
        after: AfterDeadline::Wait,
        max_parallel: 4,
        ..force_at(Cause::Operator, 30)
    };
    let hurried = begin(&waiting).with_terms(shutdown, at(2)).terms;
    assert_eq!(hurried.forces_at(), Some(at(60)));
    assert_eq!(hurried.max_parallel, 4);
    // Another's terms are taken as they are, also if they leave more time.
    let eased = begin(&force_at(Cause::Operator, 1)).with_terms(waiting.clone(), at(2));
    assert_eq!((eased.forced, eased.terms), (false, waiting));
}

#[test]
fn a_deadline_is_due_once_and_only_with_force() {
    let terms = |after| Terms {
        deadline: Some(at(10)),
        after,
        ..drain_terms(Cause::Operator)
    };
    let forced = Drain::begin(terms(AfterDeadline::Force), 1, at(0));
    assert!(!forced.is_due(at(9)));
    assert!(forced.is_due(at(10)));
    assert!(
        !Drain {
            forced: true,
            ..forced.clone()
        }
        .is_due(at(10))
    );
    assert!(
        !Drain {
            ended: Some(at(5)),
            left: 0,
            ..forced
        }
        .is_due(at(10))
    );
    assert!(!Drain::begin(terms(AfterDeadline::Wait), 1, at(0)).is_due(at(11)));
}
