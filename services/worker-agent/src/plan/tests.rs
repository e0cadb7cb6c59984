use muster_proto::replicas::v1::{self as wire, EnvVar, HttpProbe, ProcessRuntime, TcpProbe};

use super::*;

fn assignment(ports: &[i32]) -> Assignment {
    Assignment {
        attempt_id: "abc.0.1".into(),
        replica: "chat/0".into(),
        service: "chat".into(),
        gpu_uuids: vec!["GPU-1".into(), "GPU-2".into()],
        run: Some(RunSpec {
            runtime: Some(Runtime::Process(ProcessRuntime {})),
            command: vec!["serve".into()],
            ports: ports
                .iter()
                .map(|number| wire::Port {
                    number: *number,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn ports() -> Vec<Port> {
    let port = |logical, real| Port {
        logical,
        name: String::new(),
        real,
        udp: false,
    };
    vec![port(8000, 20_001), port(9000, 20_002)]
}

fn variable(name: &str, source: Option<Source>) -> EnvVar {
    EnvVar {
        name: name.into(),
        source,
    }
}

#[test]
fn a_process_sees_what_only_we_know() {
    let mut assignment = assignment(&[8000, 9000]);
    assignment.run.as_mut().unwrap().env = vec![
        variable("PORT", Some(Source::Value("1".into()))),
        variable("MODEL", Some(Source::Value("llama".into()))),
        variable("PATH", Some(Source::Value("/opt/bin".into()))),
    ];
    let inherited = |name: &str| {
        ["PATH", "HOME", "SECRET"]
            .contains(&name)
            .then(|| "ours".to_owned())
    };
    let env = process_env(&assignment, &ports(), inherited).unwrap();
    let expected = [
        ("CUDA_VISIBLE_DEVICES", "GPU-1,GPU-2"),
        ("HOME", "ours"),
        ("MODEL", "llama"),
        ("MUSTER_ATTEMPT", "abc.0.1"),
        ("MUSTER_PORT_8000", "20001"),
        ("MUSTER_PORT_9000", "20002"),
        ("MUSTER_REPLICA", "chat/0"),
        ("MUSTER_SERVICE", "chat"),
        ("PATH", "/opt/bin"),
        ("PORT", "20001"),
    ];
    let found: Vec<(&str, &str)> = env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_container_listens_on_its_logical_ports() {
    let env = container_env(&assignment(&[8000]), &ports()).unwrap();
    assert!(env.contains(&("PORT".to_owned(), "8000".to_owned())));
    assert!(env.contains(&("MUSTER_PORT_9000".to_owned(), "9000".to_owned())));
}

#[test]
fn a_container_sees_no_accelerators_but_its_own() {
    let visible = |gpus: &[&str], own: Option<&str>| {
        let mut assignment = assignment(&[]);
        assignment.gpu_uuids = gpus.iter().map(|gpu| (*gpu).to_owned()).collect();
        let value = |value: &str| Source::Value(value.to_owned());
        assignment.run.as_mut().unwrap().env =
            vec![variable("NVIDIA_VISIBLE_DEVICES", own.map(value))];
        let env = container_env(&assignment, &[]).unwrap();
        let is_it = |(name, _): &&(String, String)| name == "NVIDIA_VISIBLE_DEVICES";
        env.iter().find(is_it).unwrap().1.clone()
    };
    for own in [None, Some("all"), Some("GPU-9")] {
        assert_eq!(visible(&[], own), "void");
        assert_eq!(visible(&["GPU-simulated-H100-0"], own), "void");
        assert_eq!(visible(&["GPU-1", "GPU-2"], own), "GPU-1,GPU-2");
    }
}

#[test]
fn a_probe_asks_the_real_port() {
    let http = |port, path: &str| Probe {
        check: Some(Check::Http(HttpProbe {
            port,
            path: path.into(),
        })),
        ..Default::default()
    };
    for (port, path, real, asked) in [
        (0, "", 20_001, "/"),
        (8000, "/health", 20_001, "/health"),
        (9000, "x", 20_002, "/x"),
    ] {
        let expected = Target::Http {
            port: real,
            path: asked.into(),
        };
        assert_eq!(target(&http(port, path), &ports()), Ok(expected));
    }
    assert!(
        target(&http(7, ""), &ports())
            .unwrap_err()
            .contains("port 7")
    );
    assert!(
        target(&http(0, ""), &[])
            .unwrap_err()
            .contains("needs a port")
    );
    assert!(target(&Probe::default(), &ports()).is_err());
}

#[test]
fn what_can_never_run_is_told() {
    assert_eq!(misfit(&assignment(&[8000])), None);
    let check = |word: &str, change: &dyn Fn(&mut Assignment)| {
        let mut changed = assignment(&[8000]);
        change(&mut changed);
        let why = misfit(&changed).unwrap_or_default();
        assert!(why.contains(word), "{word}: {why:?}");
    };
    fn run(assignment: &mut Assignment) -> &mut RunSpec {
        assignment.run.as_mut().unwrap()
    }
    check("nothing to run", &|a| a.run = None);
    check("runtime", &|a| run(a).runtime = None);
    check("command", &|a| run(a).command.clear());
    check("no port", &|a| run(a).ports[0].number = 70_000);
    check("no port", &|a| run(a).ports[0].number = 0);
    check("secrets", &|a| {
        run(a).env = vec![variable("A", Some(Source::Secret("s".into())))];
    });
    check("no name", &|a| run(a).env = vec![variable("A=B", None)]);
    check("zero byte", &|a| {
        run(a).env = vec![variable("A", Some(Source::Value("\0".into())))];
    });
    check("volumes", &|a| {
        run(a).volumes = vec![Volume::default()];
    });
    check("image", &|a| {
        run(a).runtime = Some(Runtime::Container(wire::ContainerRuntime::default()));
    });
    check("port 1", &|a| {
        let tcp = Check::Tcp(TcpProbe { port: 1 });
        let ready = Probe {
            check: Some(tcp),
            ..Default::default()
        };
        a.probes = Some(wire::Probes {
            ready: Some(ready),
            alive: None,
        });
    });
}
