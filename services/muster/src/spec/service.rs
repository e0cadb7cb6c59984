//! The fields of a service: what it runs, on what, and where.

use muster_model::gpu_syntax;
use muster_proto::{
    replicas::v1::{
        ContainerRuntime, EnvVar, OnDisconnect, Placement, Port, PortProtocol, ProcessRuntime,
        ReplicaCount, RunSpec, ServiceSpec, SpotPolicy, Spread, StartPolicy, StopPolicy, Volume,
        env_var, run_spec, volume,
    },
    types::v1::{CpuArchitecture, GpuRequest, Price, Requirements},
};

use super::{
    document::Value,
    policies,
    reader::{Entry, Problems},
};

/// What is looked for at the top and stands deeper, with its path.
pub(super) const ELSEWHERE: [(&str, &str); 16] = [
    ("command", "run.command"),
    ("commands", "run.command"),
    ("env", "run.env"),
    ("image", "run.image"),
    ("ports", "run.ports"),
    ("volumes", "run.volumes"),
    ("working_dir", "run.working_dir"),
    ("cpu", "resources.cpu"),
    ("disk", "resources.disk"),
    ("gpu", "resources.gpu"),
    ("memory", "resources.memory"),
    ("max_price", "placement.max_price"),
    ("region", "placement.regions"),
    ("regions", "placement.regions"),
    ("spot", "placement.spot"),
    ("spread", "placement.spread"),
];

/// The service that a document describes; absent if it is no mapping.
pub(super) fn read(document: &Entry<'_>, problems: &mut Problems) -> Option<ServiceSpec> {
    let mut fields = document.fields(problems)?;
    let spec = ServiceSpec {
        name: fields
            .take("name")
            .and_then(|entry| entry.text(problems))
            .unwrap_or_default(),
        replicas: fields
            .take("replicas")
            .and_then(|entry| replicas(&entry, problems)),
        run: fields.take("run").and_then(|entry| run(&entry, problems)),
        resources: fields
            .take("resources")
            .and_then(|entry| resources(&entry, problems)),
        placement: fields
            .take("placement")
            .and_then(|entry| placement(&entry, problems)),
        start: fields
            .take("start")
            .and_then(|entry| start(&entry, problems)),
        probes: fields
            .take("probes")
            .and_then(|entry| policies::probes(&entry, problems)),
        min_healthy: fields
            .take("min_healthy")
            .and_then(|entry| entry.count(problems)),
        retry: fields
            .take("retry")
            .and_then(|entry| policies::retry(&entry, problems)),
        scaling: fields
            .take("scaling")
            .and_then(|entry| policies::scaling(&entry, problems)),
        update: fields
            .take("update")
            .and_then(|entry| policies::update(&entry, problems)),
        stop: fields.take("stop").and_then(|entry| stop(&entry, problems)),
        on_disconnect: fields
            .take("on_disconnect")
            .and_then(|entry| on_disconnect(&entry, problems))
            .unwrap_or_default(),
        labels: fields
            .take("labels")
            .map(|entry| entry.text_map(problems))
            .unwrap_or_default(),
        nodes: fields
            .take("nodes")
            .and_then(|entry| entry.count(problems))
            .unwrap_or_default(),
    };
    fields.finish_knowing(&ELSEWHERE, problems);
    Some(spec)
}

/// `2`, or `{min: 2, max: 8}`.
fn replicas(entry: &Entry<'_>, problems: &mut Problems) -> Option<ReplicaCount> {
    if !entry.is_map() {
        let min = entry.count(problems)?;
        return Some(ReplicaCount {
            min: Some(min),
            max: None,
        });
    }
    let mut fields = entry.fields(problems)?;
    let count = ReplicaCount {
        min: fields.take("min").and_then(|entry| entry.count(problems)),
        max: fields.take("max").and_then(|entry| entry.count(problems)),
    };
    fields.finish(problems);
    Some(count)
}

fn run(entry: &Entry<'_>, problems: &mut Problems) -> Option<RunSpec> {
    let mut fields = entry.fields(problems)?;
    let image = fields.take("image").and_then(|entry| entry.text(problems));
    let runtime = match image {
        Some(image) => run_spec::Runtime::Container(ContainerRuntime { image }),
        None => run_spec::Runtime::Process(ProcessRuntime {}),
    };
    let run = RunSpec {
        runtime: Some(runtime),
        command: fields
            .take("command")
            .map(|entry| command(&entry, problems))
            .unwrap_or_default(),
        env: fields
            .take("env")
            .map(|entry| env(&entry, problems))
            .unwrap_or_default(),
        ports: each(fields.take("ports"), problems, port),
        volumes: each(fields.take("volumes"), problems, volume),
        working_dir: fields
            .take("working_dir")
            .and_then(|entry| entry.text(problems))
            .unwrap_or_default(),
    };
    fields.finish(problems);
    Some(run)
}

fn each<T>(
    entry: Option<Entry<'_>>,
    problems: &mut Problems,
    read: impl Fn(&Entry<'_>, &mut Problems) -> Option<T>,
) -> Vec<T> {
    let items = entry.map(|entry| entry.items(problems)).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| read(item, problems))
        .collect()
}

/// A list is a program and its arguments; a text is a line for the shell.
pub(super) fn command(entry: &Entry<'_>, problems: &mut Problems) -> Vec<String> {
    match entry.node.value {
        Value::List(_) => entry.texts(problems),
        Value::Plain(_) | Value::Quoted(_) | Value::Map(_) => match entry.text(problems) {
            Some(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
            None => Vec::new(),
        },
    }
}

/// `{NAME: value}`, or `{NAME: {secret: name}}`.
fn env(entry: &Entry<'_>, problems: &mut Problems) -> Vec<EnvVar> {
    let entries = entry.entries(problems);
    entries
        .into_iter()
        .filter_map(|(name, entry)| {
            let source = if entry.is_map() {
                let mut fields = entry.fields(problems)?;
                let secret = fields.take("secret").and_then(|entry| entry.text(problems));
                fields.finish(problems);
                env_var::Source::Secret(secret?)
            } else if entry.node.is_null() {
                env_var::Source::Value(String::new())
            } else {
                env_var::Source::Value(entry.text(problems)?)
            };
            Some(EnvVar {
                name,
                source: Some(source),
            })
        })
        .collect()
}

/// `8000`, or `{number: 8000, name: http}`.
fn port(entry: &Entry<'_>, problems: &mut Problems) -> Option<Port> {
    if !entry.is_map() {
        return Some(Port {
            number: entry.count(problems)?,
            ..Port::default()
        });
    }
    let protocols = [("tcp", PortProtocol::Tcp), ("udp", PortProtocol::Udp)];
    let mut fields = entry.fields(problems)?;
    let port = Port {
        number: fields
            .take("number")
            .and_then(|entry| entry.count(problems))
            .unwrap_or_default(),
        name: fields
            .take("name")
            .and_then(|entry| entry.text(problems))
            .unwrap_or_default(),
        protocol: fields
            .take("protocol")
            .and_then(|entry| entry.word(problems, &protocols))
            .map(i32::from)
            .unwrap_or_default(),
        host_port: fields
            .take("host_port")
            .and_then(|entry| entry.truth(problems))
            .unwrap_or_default(),
    };
    fields.finish(problems);
    Some(port)
}

/// `/on/host:/in/replica[:ro]`, or the fields.
fn volume(entry: &Entry<'_>, problems: &mut Problems) -> Option<Volume> {
    if !entry.is_map() {
        return entry.parsed(problems, short_volume);
    }
    let mut fields = entry.fields(problems)?;
    let host_path = fields
        .take("host_path")
        .and_then(|entry| entry.text(problems));
    let volume = Volume {
        source: host_path.map(volume::Source::HostPath),
        mount_path: fields
            .take("mount_path")
            .and_then(|entry| entry.text(problems))
            .unwrap_or_default(),
        read_only: fields
            .take("read_only")
            .and_then(|entry| entry.truth(problems))
            .unwrap_or_default(),
    };
    fields.finish(problems);
    Some(volume)
}

fn short_volume(text: &str) -> Result<Volume, &'static str> {
    let parts: Vec<&str> = text.split(':').collect();
    let (host, mount, read_only) = match parts[..] {
        [host, mount] => (host, mount, false),
        [host, mount, "ro"] => (host, mount, true),
        _ => return Err("has to be HOST_PATH:MOUNT_PATH or HOST_PATH:MOUNT_PATH:ro"),
    };
    Ok(Volume {
        source: Some(volume::Source::HostPath(host.to_owned())),
        mount_path: mount.to_owned(),
        read_only,
    })
}

fn resources(entry: &Entry<'_>, problems: &mut Problems) -> Option<Requirements> {
    let architectures = [
        ("x86_64", CpuArchitecture::X8664),
        ("arm64", CpuArchitecture::Arm64),
    ];
    let mut fields = entry.fields(problems)?;
    let mut needs = Requirements {
        gpu_any_of: fields
            .take("gpu")
            .map(|entry| gpus(&entry, problems))
            .unwrap_or_default(),
        cpu_milli: fields
            .take("cpu")
            .and_then(|entry| entry.parsed(problems, crate::text::cpu))
            .unwrap_or_default(),
        memory_mib: fields
            .take("memory")
            .and_then(|entry| entry.parsed(problems, crate::text::memory))
            .unwrap_or_default(),
        disk_mib: fields
            .take("disk")
            .and_then(|entry| entry.parsed(problems, crate::text::memory))
            .unwrap_or_default(),
        architecture: 0,
    };
    if let Some(architecture) = fields
        .take("arch")
        .and_then(|entry| entry.word(problems, &architectures))
    {
        needs.set_architecture(architecture);
    }
    fields.finish(problems);
    Some(needs)
}

/// `H100:2`, or a list of alternatives.
fn gpus(entry: &Entry<'_>, problems: &mut Problems) -> Vec<GpuRequest> {
    let alternatives = match entry.node.value {
        Value::List(_) => entry.items(problems),
        Value::Plain(_) | Value::Quoted(_) | Value::Map(_) => vec![entry.clone()],
    };
    alternatives
        .iter()
        .filter_map(|item| item.parsed(problems, gpu_syntax::parse))
        .map(|request| crate::convert::render_gpu_request(&request))
        .collect()
}

fn placement(entry: &Entry<'_>, problems: &mut Problems) -> Option<Placement> {
    let spreads = [("worker", Spread::Worker), ("none", Spread::None)];
    let spots = [
        ("auto", SpotPolicy::Auto),
        ("spot", SpotPolicy::Spot),
        ("on-demand", SpotPolicy::OnDemand),
    ];
    let mut fields = entry.fields(problems)?;
    let mut texts = |name| {
        let entry: Option<Entry<'_>> = fields.take(name);
        entry.map(|entry| entry.texts(problems)).unwrap_or_default()
    };
    let mut placement = Placement {
        regions: texts("regions"),
        zones: texts("zones"),
        backends: texts("backends"),
        ..Placement::default()
    };
    placement.labels = fields
        .take("labels")
        .map(|entry| entry.text_map(problems))
        .unwrap_or_default();
    if let Some(spread) = fields
        .take("spread")
        .and_then(|entry| entry.word(problems, &spreads))
    {
        placement.set_spread(spread);
    }
    if let Some(spot) = fields
        .take("spot")
        .and_then(|entry| entry.word(problems, &spots))
    {
        placement.set_spot(spot);
    }
    let price = fields
        .take("max_price")
        .and_then(|entry| entry.parsed(problems, crate::text::price));
    placement.max_price = price.map(|price| Price {
        micro_usd_per_hour: price.0,
    });
    fields.finish(problems);
    Some(placement)
}

fn start(entry: &Entry<'_>, problems: &mut Problems) -> Option<StartPolicy> {
    let mut fields = entry.fields(problems)?;
    let timeout = fields
        .take("timeout")
        .and_then(|entry| policies::duration(&entry, problems));
    fields.finish(problems);
    Some(StartPolicy { timeout })
}

fn stop(entry: &Entry<'_>, problems: &mut Problems) -> Option<StopPolicy> {
    let mut fields = entry.fields(problems)?;
    let grace = fields
        .take("grace")
        .and_then(|entry| policies::duration(&entry, problems));
    fields.finish(problems);
    Some(StopPolicy { grace })
}

fn on_disconnect(entry: &Entry<'_>, problems: &mut Problems) -> Option<i32> {
    let words = [("keep", OnDisconnect::Keep), ("stop", OnDisconnect::Stop)];
    entry.word(problems, &words).map(i32::from)
}
