use super::*;

fn args() -> Args {
    Args {
        data: None,
        store: None,
        catalog: None,
        workers_addr: None,
        backend_timeout: Duration::from_secs(3),
        max_backend_timeout: Duration::from_secs(30),
    }
}

fn names(config: &Config) -> Vec<&str> {
    let names = config.backends.iter();
    names.map(|spec| spec.name.as_str()).collect()
}

#[test]
fn our_own_workers_are_offered_beside_the_built_in_lists_once_it_is_said_where_they_are() {
    let without = Config::new(args()).unwrap();
    assert_eq!(without.backends, built_in());
    let with = Config::new(Args {
        workers_addr: Some(WORKERS.parse().unwrap()),
        ..args()
    });
    let with = with.unwrap();
    assert_eq!(with.backends.len(), built_in().len() + 1);
    assert!(names(&with).contains(&FLEET));
}

#[test]
fn a_folder_and_a_file_go_together_and_a_name_stands_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("aws")).unwrap();
    std::fs::write(folder.path().join("aws/vms.csv"), "").unwrap();
    let file = |name: &str| Contents {
        backends: vec![Spec::new(name, Kind::Catalog(Place::File("x".into())))],
        outcomes: Policy::default(),
    };
    let with_folder = || Args {
        catalog: Some(folder.path().to_owned()),
        ..args()
    };
    let both = Config::with_file(with_folder(), Some(file("own"))).unwrap();
    assert_eq!(names(&both), ["aws", "own"]);
    let twice = Config::with_file(with_folder(), Some(file("aws"))).unwrap_err();
    assert!(twice.contains("\"aws\" is both"), "{twice}");
    let alone = Config::with_file(args(), Some(file("own"))).unwrap();
    assert_eq!(
        names(&alone),
        ["own"],
        "the built-in lists are for want of others"
    );
}

#[tokio::test]
async fn a_catalogue_that_is_away_is_a_backend_for_as_long_as_its_offers_are_kept() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["aws", "gcp", "never"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let file = folder.path().join("aws/vms.csv");
    let rows = "InstanceType,Price,Region\na,1,eu\n";
    std::fs::write(&file, rows).unwrap();
    let config = || {
        let args = Args {
            catalog: Some(folder.path().to_owned()),
            data: Some(data.path().to_owned()),
            ..args()
        };
        Config::new(args)
    };
    assert_eq!(names(&config().unwrap()), ["aws"]);
    let keeper = Keeper::open(&data.path().join(keeper::FOLDER)).unwrap();
    let told = crate::domain::backend::Told {
        snapshot: crate::domain::skypilot::read("aws", "vms.csv", rows.as_bytes())
            .unwrap()
            .into(),
        observed: std::time::UNIX_EPOCH,
        live_capacity: false,
    };
    let origin = config().unwrap().backends[0].kind.origin();
    let mut place = keeper.place("aws", &origin);
    place.keep(&told, "", false);
    place.settle().await;
    std::fs::remove_file(&file).unwrap();
    assert_eq!(names(&config().unwrap()), ["aws"]);
    std::fs::remove_dir(folder.path().join("aws")).unwrap();
    assert!(config().is_err(), "whoever removes the folder means it");
}

#[test]
fn a_list_that_is_away_when_all_is_read_again_costs_no_backend() {
    let folder = tempfile::tempdir().unwrap();
    let list = |name: &str| folder.path().join(name).join(PRICE_LIST);
    for name in ["aws", "gcp", "lambda"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        std::fs::write(list(name), "").unwrap();
    }
    let config = || {
        let catalog = Some(folder.path().to_owned());
        let args = Args { catalog, ..args() };
        Config::new(args).unwrap()
    };
    let mut in_force = config().backends;
    in_force.push(Spec::new("own", Kind::Catalog(Place::File("x".into()))));
    std::fs::remove_file(list("aws")).unwrap();
    std::fs::remove_dir_all(folder.path().join("gcp")).unwrap();
    let mut again = config();
    assert_eq!(names(&again), ["lambda"]);
    again.keep_away(&in_force);
    assert_eq!(names(&again), ["aws", "lambda"]);
}

#[test]
fn a_folder_does_not_displace_our_own_workers() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(FLEET)).unwrap();
    std::fs::write(folder.path().join(FLEET).join(PRICE_LIST), "").unwrap();
    let config = |workers_addr| {
        let catalog = Some(folder.path().to_owned());
        Config::new(Args {
            catalog,
            workers_addr,
            ..args()
        })
    };
    let refused = config(Some(WORKERS.parse().unwrap())).unwrap_err();
    assert!(refused.contains("call it something else"), "{refused}");
    assert_eq!(names(&config(None).unwrap()), [FLEET]);
}

#[test]
fn a_caller_waits_no_longer_than_the_most() {
    let config = Config::new(args()).unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(config.timeouts.of(None), seconds(3));
    assert_eq!(config.timeouts.of(Some(seconds(10))), seconds(10));
    assert_eq!(config.timeouts.of(Some(seconds(999))), seconds(30));
    let odd = Args {
        backend_timeout: seconds(60),
        ..args()
    };
    assert!(Config::new(odd).is_err());
}
