use std::collections::{BTreeSet, HashSet};
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::domain::assignment::Terms;
use crate::domain::end::ExitCause;
use crate::domain::end::FailureClass::Interruption;
use crate::domain::probe;

const PROBE: probe::Terms = probe::Terms {
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(1),
    successes: 1,
    failures: 1,
};
const GRACE: Duration = Duration::from_secs(5);

fn at(secs: u64) -> Now {
    Now {
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + secs),
        boot: Duration::from_secs(1_000 + secs),
    }
}

fn attempt(id: &str) -> AttemptId {
    AttemptId::parse(id).unwrap()
}

fn allocation(id: &str) -> AllocationId {
    AllocationId::parse(id).unwrap()
}

/// The attempt `x1` with the allocation `a-x1`, and so on.
fn assignment(id: &str) -> Assignment {
    Assignment {
        attempt: attempt(id),
        intent: Intent::Run,
        allocation: allocation(&format!("a-{id}")),
        token: FencingToken("e-1".into()),
        replaces: None,
        gpus: vec![],
        terms: Terms {
            start_timeout: Duration::from_secs(60),
            ready: Some(PROBE),
            alive: None,
            stop_grace: GRACE,
        },
        reason: String::new(),
    }
}

fn run(id: &str) -> Input {
    Input::Assigned(assignment(id), None)
}

fn stop(id: &str) -> Input {
    let assignment = Assignment {
        intent: Intent::Stop,
        reason: "scaled down".into(),
        ..assignment(id)
    };
    Input::Assigned(assignment, None)
}

fn on_gpu(id: &str, token: &str) -> Input {
    let assignment = Assignment {
        token: FencingToken(token.into()),
        gpus: vec!["GPU-0".into()],
        ..assignment(id)
    };
    Input::Assigned(assignment, None)
}

fn replacing(id: &str, replaced: &str) -> Input {
    let assignment = Assignment {
        replaces: Some(allocation(replaced)),
        ..assignment(id)
    };
    Input::Assigned(assignment, None)
}

fn exited(id: &str) -> Input {
    exited_by(ExitCause::Exited, id)
}

fn exited_by(cause: ExitCause, id: &str) -> Input {
    Input::Exited(
        attempt(id),
        Exit {
            cause,
            code: Some(1),
            signal: None,
            out_of_memory: false,
            time: at(9).wall,
            message: String::new(),
        },
    )
}

fn runs(id: &str) -> Input {
    Input::Runs(attempt(id), at(1).wall)
}

fn start(id: &str) -> Action {
    Action::Start(attempt(id))
}

fn stopping(id: &str, cause: StopCause) -> Action {
    Action::Stop(attempt(id), cause, GRACE)
}

fn remember(id: &str) -> Action {
    Action::RememberEnded(allocation(id))
}

/// Holdings that have heard some inputs, at 0 s.
fn after(inputs: impl IntoIterator<Item = Input>) -> Holdings {
    let mut holdings = Holdings::default();
    for input in inputs {
        holdings.apply(input, at(0));
    }
    holdings
}

fn held(holdings: &Holdings) -> Vec<(&str, HeldPhase)> {
    holdings
        .held()
        .into_iter()
        .map(|(id, phase)| (id.as_str(), phase))
        .collect()
}

#[test]
fn what_is_assigned_is_started_once() {
    let mut holdings = Holdings::default();
    assert_eq!(holdings.apply(run("x1"), at(0)), [start("x1")]);
    assert_eq!(holdings.apply(run("x1"), at(0)), []);
    holdings.apply(runs("x1"), at(1));
    assert_eq!(holdings.apply(run("x1"), at(2)), []);
    assert_eq!(held(&holdings), [("a-x1", HeldPhase::Running)]);
}

#[test]
fn what_is_assigned_to_stop_is_stopped_and_never_started() {
    let told = StopCause::Assigned("scaled down".into());
    let mut holdings = after([run("x1"), runs("x1")]);
    assert_eq!(holdings.apply(stop("x1"), at(2)), [stopping("x1", told)]);
    assert_eq!(holdings.apply(stop("x1"), at(3)), []);
    assert_eq!(holdings.apply(exited("x1"), at(4)), []);
    assert_eq!(holdings.apply(run("x1"), at(5)), []);
    assert_eq!(held(&holdings), [("a-x1", HeldPhase::Ended)]);

    let mut holdings = Holdings::default();
    assert_eq!(holdings.apply(stop("x2"), at(0)), [remember("a-x2")]);
    assert_eq!(holdings.apply(run("x2"), at(0)), []);
    assert!(holdings.get(&attempt("x2")).unwrap().is_ended());
}

#[test]
fn an_end_that_no_folder_may_keep_is_remembered() {
    for cause in [ExitCause::NotStarted, ExitCause::FolderGone] {
        let mut holdings = after([run("x1")]);
        let ended = holdings.apply(exited_by(cause, "x1"), at(1));
        assert_eq!(ended, [remember("a-x1")], "{cause:?}");
        assert_eq!(held(&holdings), [("a-x1", HeldPhase::Ended)]);
    }
}

#[test]
fn a_notice_stops_what_runs_with_its_own_grace() {
    let mut holdings = after([run("x1"), runs("x1")]);
    let notice = |grace| Input::Ending(allocation("a-x1"), grace);
    let short = Duration::from_secs(1);
    assert_eq!(
        holdings.apply(notice(Some(Duration::from_secs(9))), at(2)),
        [Action::Stop(
            attempt("x1"),
            StopCause::Released,
            Duration::from_secs(9)
        )]
    );
    assert_eq!(holdings.apply(notice(None), at(3)), []);
    assert_eq!(
        holdings.apply(notice(Some(short)), at(3)),
        [Action::Stop(attempt("x1"), StopCause::Released, short)]
    );
    holdings.apply(exited("x1"), at(4));
    assert_eq!(holdings.apply(notice(None), at(5)), []);
    assert!(
        holdings
            .get(&attempt("x1"))
            .unwrap()
            .end()
            .unwrap()
            .interrupted
    );
}

#[test]
fn an_unknown_allocation_that_has_to_end_is_named_ended_and_never_starts() {
    let mut holdings = Holdings::default();
    let before = holdings.held_revision();
    let notice = || Input::Ending(allocation("a-x1"), None);
    assert_eq!(holdings.apply(notice(), at(0)), [remember("a-x1")]);
    assert!(holdings.held_revision() > before);
    assert_eq!(holdings.apply(notice(), at(0)), []);
    assert_eq!(held(&holdings), [("a-x1", HeldPhase::Ended)]);
    holdings.apply(Input::Forgotten(allocation("a-x1")), at(0));
    assert_eq!(held(&holdings), []);
    assert_eq!(holdings.apply(run("x1"), at(0)), []);
    let end = holdings.get(&attempt("x1")).unwrap().end().unwrap();
    assert!(end.stopped && end.interrupted, "{end:?}");
}

#[test]
fn a_replacement_waits_for_what_it_replaces() {
    let mut holdings = after([run("x1"), runs("x1")]);
    assert_eq!(holdings.apply(replacing("x2", "a-x1"), at(1)), []);
    assert_eq!(
        held(&holdings),
        [("a-x1", HeldPhase::Running), ("a-x2", HeldPhase::Waiting)]
    );
    assert_eq!(holdings.apply(exited("x1"), at(2)), [start("x2")]);
}

#[test]
fn what_was_replaced_unseen_never_starts_beside_its_replacement() {
    let mut holdings = Holdings::default();
    assert_eq!(
        holdings.apply(replacing("x2", "a-x1"), at(0)),
        [remember("a-x1"), start("x2")]
    );
    assert_eq!(holdings.apply(run("x1"), at(0)), []);
    assert!(holdings.get(&attempt("x1")).unwrap().is_ended());
}

#[test]
fn of_two_for_one_accelerator_the_later_is_served() {
    let token = |text: &str| Action::RememberToken("GPU-0".into(), FencingToken(text.into()));
    let mut holdings = Holdings::default();
    assert_eq!(
        holdings.apply(on_gpu("x1", "e-1"), at(0)),
        [token("e-1"), start("x1")]
    );
    assert_eq!(
        holdings.apply(on_gpu("x2", "e-2"), at(1)),
        [stopping("x1", StopCause::Outranked)]
    );
    assert_eq!(
        holdings.apply(exited("x1"), at(2)),
        [token("e-2"), start("x2")]
    );
    assert_eq!(
        holdings.apply(on_gpu("x0", "e-0"), at(3)),
        [remember("a-x0")]
    );
    assert!(
        holdings
            .get(&attempt("x0"))
            .unwrap()
            .end()
            .unwrap()
            .interrupted
    );
}

#[test]
fn a_recalled_token_still_counts() {
    let tokens = BTreeMap::from([("GPU-0".to_owned(), FencingToken("e-2".into()))]);
    let ended = BTreeMap::from([(allocation("a-x9"), true)]);
    let mut holdings = Holdings::recalled(ended, tokens);
    assert_eq!(
        holdings.apply(on_gpu("x1", "e-1"), at(0)),
        [remember("a-x1")]
    );
    assert_eq!(holdings.apply(run("x9"), at(0)), []);
    assert!(holdings.get(&attempt("x9")).unwrap().is_ended());
    assert_eq!(holdings.apply(on_gpu("x2", "e-2"), at(0)), [start("x2")]);
}

#[test]
fn a_forced_drain_stops_everything_while_it_lasts() {
    let mut holdings = after([run("x1"), runs("x1"), replacing("x2", "a-x1")]);
    assert_eq!(
        holdings.apply(Input::Forced(true), at(1)),
        [stopping("x1", StopCause::ForcedDrain), remember("a-x2")]
    );
    assert_eq!(holdings.apply(run("x3"), at(1)), [remember("a-x3")]);
    holdings.apply(exited("x1"), at(2));
    assert!(!holdings.is_running());
    holdings.apply(Input::Forced(false), at(3));
    assert_eq!(holdings.apply(run("x4"), at(4)), [start("x4")]);
}

#[test]
fn a_superseded_machine_stops_everything_for_good() {
    let mut holdings = after([run("x1")]);
    assert_eq!(
        holdings.apply(Input::Superseded, at(1)),
        [stopping("x1", StopCause::Superseded)]
    );
    holdings.apply(Input::Forced(false), at(1));
    assert_eq!(holdings.apply(run("x2"), at(1)), [remember("a-x2")]);
}

/// These are the machine's accelerators.
fn there(gpus: &[&str]) -> Input {
    Input::Accelerators(gpus.iter().map(|gpu| (*gpu).to_owned()).collect())
}

fn gone() -> StopCause {
    StopCause::AcceleratorGone("GPU-0".into())
}

#[test]
fn a_gone_accelerator_ends_what_holds_it_and_nothing_else() {
    let inputs = [
        there(&["GPU-0", "GPU-1"]),
        on_gpu("x1", "e-1"),
        runs("x1"),
        run("x2"),
    ];
    let mut holdings = after(inputs);
    // It waits for the one before it to end.
    assert_eq!(
        holdings.apply(on_gpu("x3", "e-2"), at(1)),
        [stopping("x1", StopCause::Outranked)]
    );
    assert_eq!(holdings.apply(there(&["GPU-0"]), at(2)), []);
    assert_eq!(holdings.apply(there(&["GPU-1"]), at(3)), [remember("a-x3")]);
    let end = holdings.get(&attempt("x3")).unwrap().end().unwrap();
    assert_eq!((end.class, end.stopped), (Some(Interruption), false));
    assert!(end.message.contains("GPU-0"), "{}", end.message);
    assert_eq!(
        held(&holdings),
        [
            ("a-x1", HeldPhase::Stopping),
            ("a-x2", HeldPhase::Running),
            ("a-x3", HeldPhase::Ended)
        ]
    );

    let mut holdings = after([on_gpu("x1", "e-1"), runs("x1"), run("x2")]);
    assert_eq!(holdings.apply(there(&[]), at(2)), [stopping("x1", gone())]);
    assert_eq!(holdings.apply(there(&[]), at(3)), []);
    holdings.apply(exited_by(ExitCause::Stopped, "x1"), at(4));
    let end = holdings.get(&attempt("x1")).unwrap().end().unwrap();
    assert_eq!((end.class, end.stopped), (Some(Interruption), false));
}

#[test]
fn nothing_is_started_on_an_accelerator_that_is_gone_until_it_is_back() {
    let mut holdings = after([there(&["GPU-1"])]);
    assert_eq!(
        holdings.apply(on_gpu("x1", "e-1"), at(1)),
        [remember("a-x1")]
    );
    holdings.apply(there(&["GPU-0", "GPU-1"]), at(2));
    assert_eq!(holdings.apply(on_gpu("x1", "e-1"), at(3)), []);
    let token = Action::RememberToken("GPU-0".into(), FencingToken("e-2".into()));
    assert_eq!(
        holdings.apply(on_gpu("x2", "e-2"), at(3)),
        [token, start("x2")]
    );
}

#[test]
fn an_end_is_told_until_both_have_heard_it() {
    let mut holdings = after([run("x1"), runs("x1"), exited("x1")]);
    assert_eq!(holdings.apply(Input::Settled(attempt("x1")), at(1)), []);
    assert_eq!(held(&holdings), [("a-x1", HeldPhase::Ended)]);
    assert_eq!(
        holdings.apply(Input::Forgotten(allocation("a-x1")), at(2)),
        [Action::Forget(attempt("x1"))]
    );
    assert_eq!(held(&holdings), []);
    holdings.apply(run("x1"), at(3));
    assert!(
        holdings.get(&attempt("x1")).unwrap().is_ended(),
        "named ended: never again"
    );
}

#[test]
fn nobody_forgets_what_still_runs() {
    let mut holdings = after([run("x1"), runs("x1")]);
    holdings.apply(Input::Settled(attempt("x1")), at(1));
    holdings.apply(Input::Forgotten(allocation("a-x1")), at(1));
    assert_eq!(held(&holdings), [("a-x1", HeldPhase::Running)]);
}

#[test]
fn what_cannot_be_run_has_failed() {
    let mut holdings = Holdings::default();
    let unfit = Input::Assigned(assignment("x1"), Some("no such runtime".into()));
    assert_eq!(holdings.apply(unfit, at(0)), [remember("a-x1")]);
    let end = holdings.get(&attempt("x1")).unwrap().end().unwrap();
    assert_eq!(end.class, Some(crate::domain::end::FailureClass::Config));
    assert!(!end.stopped);
}

#[test]
fn readiness_is_remembered_and_told() {
    let mut holdings = after([run("x1"), runs("x1")]);
    let probed = |outcome| Input::Probed(attempt("x1"), Kind::Ready, outcome);
    let revision = |holdings: &Holdings| holdings.attempts()[&attempt("x1")].revision();
    let before = revision(&holdings);
    let remember = [Action::RememberReadiness(attempt("x1"))];
    assert_eq!(holdings.apply(probed(Ok(())), at(2)), remember);
    assert!(revision(&holdings) > before);
    let before = (revision(&holdings), holdings.held_revision());
    assert_eq!(holdings.apply(probed(Ok(())), at(3)), []);
    assert_eq!((revision(&holdings), holdings.held_revision()), before);
    assert_eq!(
        holdings.apply(probed(Err("refused".into())), at(4)),
        remember
    );
}

#[test]
fn a_later_assignment_changes_the_terms() {
    let mut holdings = after([run("x1"), runs("x1")]);
    let mut changed = assignment("x1");
    changed.terms.stop_grace = Duration::from_secs(1);
    holdings.apply(Input::Assigned(changed, None), at(1));
    assert_eq!(
        holdings.apply(Input::Ending(allocation("a-x1"), None), at(1)),
        [Action::Stop(
            attempt("x1"),
            StopCause::Released,
            Duration::from_secs(1)
        )]
    );
}

fn inputs() -> impl Strategy<Value = Input> {
    let id = || (0_usize..5).prop_map(|n| format!("x{n}"));
    prop_oneof![
        4 => (id(), 0_u8..4, any::<bool>(), proptest::option::of(id())).prop_map(|(id, token, gpu, replaces)| {
            let mut wanted = assignment(&id);
            wanted.token = FencingToken(format!("e-{token}"));
            wanted.gpus = if gpu { vec!["GPU-0".into()] } else { vec![] };
            wanted.replaces = replaces.map(|id| allocation(&format!("a-{id}")));
            Input::Assigned(wanted, None)
        }),
        2 => id().prop_map(|id| stop(&id)),
        4 => id().prop_map(|id| runs(&id)),
        4 => id().prop_map(|id| exited(&id)),
        1 => (id(), any::<bool>()).prop_map(|(id, well)| {
            let outcome = if well { Ok(()) } else { Err("no".into()) };
            Input::Probed(attempt(&id), Kind::Ready, outcome)
        }),
        2 => id().prop_map(|id| Input::Ending(allocation(&format!("a-{id}")), None)),
        2 => id().prop_map(|id| Input::Forgotten(allocation(&format!("a-{id}")))),
        2 => id().prop_map(|id| Input::Settled(attempt(&id))),
        1 => any::<bool>().prop_map(Input::Forced),
        1 => any::<bool>().prop_map(|gone| there(if gone { &[] } else { &["GPU-0"] })),
        1 => Just(Input::Tick),
    ]
}

/// Attempts of which something may run.
fn live(holdings: &Holdings) -> Vec<&Assignment> {
    let attempts = holdings.attempts().values().map(Held::attempt);
    attempts
        .filter(|attempt| !attempt.is_ended() && *attempt.phase() != Phase::Waiting)
        .map(Attempt::assignment)
        .collect()
}

proptest! {
    #[test]
    fn the_promises_hold(inputs in proptest::collection::vec(inputs(), 0..60)) {
        let mut holdings = Holdings::default();
        let mut started = HashSet::new();
        let mut named_ended: BTreeSet<AllocationId> = BTreeSet::new();
        let mut gone = None;
        for (second, input) in inputs.into_iter().enumerate() {
            if let Input::Accelerators(all) = &input {
                gone = Some(all.is_empty());
            }
            let now = at(second as u64);
            let before = holdings.held_revision();
            let held_before: Vec<_> = held(&holdings).iter().map(|(id, phase)| ((*id).to_owned(), *phase)).collect();
            for action in holdings.apply(input, now) {
                if let Action::Start(id) = &action {
                    let assignment = holdings.get(id).unwrap().assignment();
                    prop_assert!(started.insert(id.clone()), "{id} started twice");
                    prop_assert!(!named_ended.contains(&assignment.allocation), "{id} had been named ended");
                    prop_assert!(gone.is_none_or(|gone| !gone || assignment.gpus.is_empty()), "{id} on what is gone");
                }
            }
            let live = live(&holdings);
            for held in holdings.attempts().values().filter(|_| gone == Some(true)) {
                let runs_on = !held.attempt.is_ended() && !matches!(held.attempt.phase(), Phase::Stopping(_));
                prop_assert!(!runs_on || held.attempt.assignment().gpus.is_empty(), "runs on what is gone");
            }
            let on_gpu = live.iter().filter(|one| !one.gpus.is_empty()).count();
            prop_assert!(on_gpu <= 1, "{on_gpu} on one accelerator");
            let rooms: HashSet<_> = live.iter().map(|one| &one.allocation).collect();
            prop_assert_eq!(rooms.len(), live.len());
            for one in &live {
                let replaced = |other: &&&Assignment| one.replaces.as_ref() == Some(&other.allocation) && other.attempt != one.attempt;
                prop_assert!(live.iter().find(replaced).is_none(), "runs beside what it replaces");
            }
            let held_after: Vec<_> = held(&holdings).iter().map(|(id, phase)| ((*id).to_owned(), *phase)).collect();
            prop_assert!(held_before == held_after || holdings.held_revision() > before, "a change without a beat");
            named_ended.extend(holdings.held().iter().filter(|(_, phase)| **phase == HeldPhase::Ended).map(|(id, _)| (*id).clone()));
            prop_assert_eq!(holdings.apply(Input::Tick, now), [], "a second look does nothing");
        }
    }
}
