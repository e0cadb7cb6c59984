use super::*;
use crate::domain::replica::{Phase, Replica, Role, State};
use crate::domain::service::command::Identity;
use crate::domain::spec::testing::spec;
use crate::domain::spec::{Count, Scaling, defaults};

fn at(second: u64) -> Time {
    Time::default() + Duration::from_secs(1_000_000 + second)
}

/// A service that scales by the use of processors, with so many ready replicas.
fn ready(replicas: u32) -> Service {
    let mut spec = spec("chat");
    spec.replicas = Count { min: 1, max: 9 };
    spec.scaling = Some(Scaling {
        metric: Metric::Cpu,
        target: 10.0,
        up_delay: defaults::UP_DELAY,
        down_delay: defaults::DOWN_DELAY,
        port: 0,
        path: String::new(),
    });
    let identity = Identity {
        project: "default".to_owned(),
        uid: "uid".to_owned(),
    };
    let mut service = Service::create(identity, spec, true, at(0));
    for ordinal in 0..replicas {
        let mut replica = Replica::new(ordinal, Role::Member, service.header.edition, at(0));
        replica.state = State::Running(Phase::Ready);
        service.replicas.insert(ordinal, Arc::new(replica));
    }
    service
}

/// A service that scales by what is reported.
fn reported_to() -> Service {
    let mut service = ready(1);
    let mut spec = service.spec().clone();
    spec.scaling = spec.scaling.map(|scaling| Scaling {
        metric: Metric::Load,
        ..scaling
    });
    service.applied = Arc::new(spec);
    service
}

#[test]
fn a_clock_that_was_set_back_lets_no_value_count_for_longer() {
    let (service, loads) = (reported_to(), Loads::default());
    let measure = |second| {
        let measure = loads.measure(&service, at(second));
        measure.map(|measure| (measure.total, measure.at))
    };
    loads.report("uid", "gone", 5.0, at(90_000));
    assert_eq!(measure(90_000), Some((5.0, at(90_000))));
    assert_eq!(measure(0), Some((5.0, at(0))), "it is that day again");
    loads.report("uid", "here", 1.0, at(10));
    assert_eq!(measure(10), Some((6.0, at(10))));
    assert_eq!(measure(61), Some((1.0, at(10))));

    let (service, loads) = (ready(1), Loads::default());
    let measure = |second| {
        let measure = loads.measure(&service, at(second));
        measure.map(|measure| (measure.total, measure.at))
    };
    loads.sample("uid", 0, sample(90_000, 7.0));
    assert_eq!(measure(90_000), Some((7.0, at(90_000))));
    assert_eq!(measure(0), Some((7.0, at(0))));
    loads.sample("uid", 0, sample(25, 3.0));
    assert_eq!(measure(25), Some((3.0, at(25))));
}

fn sample(second: u64, used: f64) -> Sample {
    Sample {
        at: at(second),
        taken: at(second),
        metric: None,
        cpu_percent: Some(used),
        gpu_percent: None,
    }
}

/// Takes (second, ordinal, use) one after the other; the totals that are news, each when it is.
fn news(service: &Service, samples: &[(u64, u32, f64)]) -> Vec<(u64, f64)> {
    let (loads, mut last, mut told) = (Loads::default(), None, Vec::new());
    for (second, ordinal, used) in samples {
        loads.sample("uid", *ordinal, sample(*second, *used));
        let measure = loads.measure(service, at(*second));
        if let Some(measure) = measure.filter(|measure| last.is_none_or(|at| at < measure.at)) {
            last = Some(measure.at);
            told.push((*second, measure.total));
        }
    }
    told
}

#[test]
fn one_odd_sample_is_part_of_one_measure_however_many_others_are_measured_meanwhile() {
    let samples = [
        (0, 0, 20.0),
        (1, 1, 20.0),
        (2, 2, 20.0),
        (5, 0, 20.0),
        (6, 1, 2.0),
        (7, 2, 20.0),
        (10, 0, 20.0),
        (11, 1, 20.0),
        (12, 2, 20.0),
    ];
    let expected = [(2, 60.0), (7, 42.0), (12, 60.0)];
    assert_eq!(news(&ready(3), &samples), expected);
}

#[test]
fn a_sample_that_comes_twice_is_no_news() {
    let samples = [(0, 0, 20.0), (0, 0, 20.0), (5, 0, 20.0), (5, 0, 20.0)];
    assert_eq!(news(&ready(1), &samples), [(0, 20.0), (5, 20.0)]);
}

#[test]
fn one_that_is_not_measured_any_more_is_waited_for_but_not_for_long() {
    let samples = [
        (0, 0, 20.0),
        (1, 1, 20.0),
        (5, 0, 30.0),
        (10, 0, 30.0),
        (15, 0, 30.0),
        (20, 0, 30.0),
        (25, 0, 30.0),
        (30, 0, 30.0),
    ];
    let told = news(&ready(2), &samples);
    assert_eq!(told, [(1, 40.0), (25, 50.0), (30, 50.0)]);
}

#[test]
fn one_that_is_ready_but_not_measured_yet_has_the_others_mean_only_after_a_while() {
    let samples = [
        (0, 0, 30.0),
        (5, 0, 30.0),
        (15, 0, 30.0),
        (20, 0, 30.0),
        (25, 0, 30.0),
    ];
    assert_eq!(news(&ready(2), &samples), [(20, 60.0), (25, 60.0)]);
    let samples = [(0, 0, 30.0), (5, 0, 30.0), (6, 1, 2.0)];
    assert_eq!(news(&ready(2), &samples), [(6, 32.0)]);
}

#[test]
fn without_another_sample_there_is_no_news_until_all_is_forgotten() {
    let (loads, service) = (Loads::default(), ready(1));
    loads.sample("uid", 0, sample(30, 20.0));
    let measure = loads.measure(&service, at(30));
    assert_eq!(measure.map(|measure| measure.total), Some(20.0));
    for second in [31, 55, 89] {
        assert_eq!(loads.measure(&service, at(second)), measure, "at {second}");
    }
    assert_eq!(loads.measure(&service, at(90)), None);
}

#[test]
fn samples_count_whatever_the_clock_of_their_machine_says() {
    let service = ready(1);
    for wrong in [0_u64, 1_000_000, 2_000_000] {
        let taken = |second| Time::default() + Duration::from_secs(wrong + second);
        let loads = Loads::default();
        let take = |received, taken, used| {
            let taken = Sample {
                taken,
                ..sample(received, used)
            };
            loads.sample("uid", 0, taken);
            loads
                .measure(&service, at(received))
                .map(|m| (m.at, m.total))
        };
        assert_eq!(take(100, taken(500), 40.0), Some((at(100), 40.0)));
        // Repeated, it is no news; nor is an older one that comes later.
        assert_eq!(take(105, taken(500), 40.0), Some((at(100), 40.0)));
        assert_eq!(take(106, taken(490), 10.0), Some((at(100), 40.0)));
        assert_eq!(take(110, taken(510), 50.0), Some((at(110), 50.0)));
        // The clock is set back.
        assert_eq!(take(115, taken(15), 60.0), Some((at(110), 50.0)));
        assert_eq!(take(130, taken(30), 60.0), Some((at(130), 60.0)));
        assert_eq!(take(135, taken(35), 70.0), Some((at(135), 70.0)));
    }
}
