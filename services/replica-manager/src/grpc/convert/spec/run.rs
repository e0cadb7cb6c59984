//! What to run, and how it is found out that it is well.

use muster_proto::replicas::v1 as wire;
use muster_runtime::status::Violations;

use super::super::{count, known, natural, render_span, span};
use crate::domain::spec::{Check, MASKED, Port, Probe, Probes, Run, Runtime, Volume, defaults};

pub(super) fn parse_run(run: Option<wire::RunSpec>, faults: &mut Violations) -> Run {
    if run.is_none() {
        faults.add("run", "is required");
    }
    let run = run.unwrap_or_default();
    let runtime = match run.runtime {
        Some(wire::run_spec::Runtime::Container(container)) => Runtime::Container {
            image: container.image,
        },
        // Without an image it is a plain process.
        Some(wire::run_spec::Runtime::Process(_)) | None => Runtime::Process,
    };
    Run {
        runtime,
        command: run.command,
        env: parse_env(run.env, faults),
        ports: parse_ports(run.ports, faults),
        volumes: parse_volumes(run.volumes, faults),
        working_dir: run.working_dir,
    }
}

fn parse_env(env: Vec<wire::EnvVar>, faults: &mut Violations) -> Vec<(String, String)> {
    let variables = env.into_iter().enumerate();
    let parsed = variables.map(|(index, variable)| {
        let value = match variable.source {
            Some(wire::env_var::Source::Value(value)) => value,
            Some(wire::env_var::Source::Secret(_)) => {
                faults.add(format!("run.env[{index}].secret"), "is not served yet");
                String::new()
            }
            None => String::new(),
        };
        (variable.name, value)
    });
    parsed.collect()
}

fn parse_ports(ports: Vec<wire::Port>, faults: &mut Violations) -> Vec<Port> {
    let ports = ports.into_iter().enumerate();
    let parsed = ports.map(|(index, port)| {
        let path = format!("run.ports[{index}]");
        let protocol: wire::PortProtocol =
            known(port.protocol, &format!("{path}.protocol"), faults);
        Port {
            number: natural(port.number, &format!("{path}.number"), faults),
            name: port.name,
            udp: protocol == wire::PortProtocol::Udp,
            host_port: port.host_port,
        }
    });
    parsed.collect()
}

fn parse_volumes(volumes: Vec<wire::Volume>, faults: &mut Violations) -> Vec<Volume> {
    let volumes = volumes.into_iter().enumerate();
    let parsed = volumes.map(|(index, volume)| {
        if volume.source.is_none() {
            faults.add(format!("run.volumes[{index}].host_path"), "is required");
        }
        let host_path = volume
            .source
            .map(|wire::volume::Source::HostPath(path)| path);
        Volume {
            // A missing one is reported already.
            host_path: host_path.unwrap_or_else(|| "/".to_owned()),
            mount_path: volume.mount_path,
            read_only: volume.read_only,
        }
    });
    parsed.collect()
}

pub(super) fn parse_probes(probes: wire::Probes, faults: &mut Violations) -> Probes {
    let ready = probes
        .ready
        .and_then(|probe| parse_probe("probes.ready", probe, faults));
    let alive = probes
        .alive
        .and_then(|probe| parse_probe("probes.alive", probe, faults));
    Probes { ready, alive }
}

fn parse_probe(path: &str, probe: wire::Probe, faults: &mut Violations) -> Option<Probe> {
    use wire::probe::Check as Wire;
    let at = |field: &str| format!("{path}.{field}");
    let Some(check) = probe.check else {
        faults.add(path, "needs one of http, tcp, grpc and command");
        return None;
    };
    let check = match check {
        Wire::Http(http) => Check::Http {
            port: natural(http.port, &at("http.port"), faults),
            path: if http.path.is_empty() {
                "/".to_owned()
            } else {
                http.path
            },
        },
        Wire::Tcp(tcp) => Check::Tcp {
            port: natural(tcp.port, &at("tcp.port"), faults),
        },
        Wire::Grpc(grpc) => Check::Grpc {
            port: natural(grpc.port, &at("grpc.port"), faults),
            service: grpc.service,
        },
        Wire::Command(exec) => Check::Exec {
            command: exec.command,
        },
    };
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    Some(Probe {
        check,
        interval: span(
            probe.interval,
            defaults::PROBE_INTERVAL,
            &at("interval"),
            faults,
        ),
        timeout: span(
            probe.timeout,
            defaults::PROBE_TIMEOUT,
            &at("timeout"),
            faults,
        ),
        successes: or(
            natural(probe.successes, &at("successes"), faults),
            defaults::PROBE_SUCCESSES,
        ),
        failures: or(
            natural(probe.failures, &at("failures"), faults),
            defaults::PROBE_FAILURES,
        ),
    })
}

pub(crate) fn render_run(run: &Run) -> wire::RunSpec {
    wire::RunSpec {
        runtime: Some(match &run.runtime {
            Runtime::Process => wire::run_spec::Runtime::Process(wire::ProcessRuntime {}),
            Runtime::Container { image } => {
                wire::run_spec::Runtime::Container(wire::ContainerRuntime {
                    image: image.clone(),
                })
            }
        }),
        command: run.command.clone(),
        env: run.env.iter().map(render_env).collect(),
        ports: run.ports.iter().map(render_port).collect(),
        volumes: run.volumes.iter().map(render_volume).collect(),
        working_dir: run.working_dir.clone(),
    }
}

fn render_env((name, value): &(String, String)) -> wire::EnvVar {
    wire::EnvVar {
        name: name.clone(),
        source: Some(wire::env_var::Source::Value(value.clone())),
    }
}

/// Leaves only the names of what the environment holds.
pub(crate) fn mask_values(spec: &mut wire::ServiceSpec) {
    for variable in spec.run.iter_mut().flat_map(|run| &mut run.env) {
        if let Some(wire::env_var::Source::Value(value)) = &mut variable.source {
            MASKED.clone_into(value);
        }
    }
}

fn render_port(port: &Port) -> wire::Port {
    wire::Port {
        number: count(port.number),
        name: port.name.clone(),
        protocol: match port.udp {
            true => wire::PortProtocol::Udp,
            false => wire::PortProtocol::Tcp,
        }
        .into(),
        host_port: port.host_port,
    }
}

fn render_volume(volume: &Volume) -> wire::Volume {
    wire::Volume {
        source: Some(wire::volume::Source::HostPath(volume.host_path.clone())),
        mount_path: volume.mount_path.clone(),
        read_only: volume.read_only,
    }
}

pub(crate) fn render_probes(probes: &Probes) -> wire::Probes {
    wire::Probes {
        ready: probes.ready.as_ref().map(render_probe),
        alive: probes.alive.as_ref().map(render_probe),
    }
}

fn render_probe(probe: &Probe) -> wire::Probe {
    use wire::probe::Check as Wire;
    let check = match &probe.check {
        Check::Http { port, path } => Wire::Http(wire::HttpProbe {
            port: count(*port),
            path: path.clone(),
        }),
        Check::Tcp { port } => Wire::Tcp(wire::TcpProbe { port: count(*port) }),
        Check::Grpc { port, service } => Wire::Grpc(wire::GrpcProbe {
            port: count(*port),
            service: service.clone(),
        }),
        Check::Exec { command } => Wire::Command(wire::ExecProbe {
            command: command.clone(),
        }),
    };
    wire::Probe {
        check: Some(check),
        interval: Some(render_span(probe.interval)),
        timeout: Some(render_span(probe.timeout)),
        successes: count(probe.successes),
        failures: count(probe.failures),
    }
}
