//! `docs/metrics.md` against what the components really export.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use muster_tests::fleet::{self, Process};

const COMPONENTS: [&str; 4] = [
    "offers-gateway",
    "worker-registry",
    "replica-manager",
    "worker-agent",
];

/// A metric, as it is exported or documented.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    components: BTreeSet<String>,
    meaning: String,
}

/// The line of the document that says this.
fn line(name: &str, metric: &Metric) -> String {
    let Metric {
        kind,
        labels,
        components,
        meaning,
    } = metric;
    let join = |words: &BTreeSet<String>| words.iter().cloned().collect::<Vec<_>>().join(", ");
    let components = if components.len() == COMPONENTS.len() {
        "all".to_owned()
    } else {
        join(components)
    };
    format!(
        "| `{name}` | {kind} | {} | {components} | {meaning} |",
        join(labels)
    )
}

/// What a document says.
fn documented(text: &str) -> BTreeMap<String, Metric> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, components, meaning] = cells[..] else {
            panic!("not five cells: {row}");
        };
        let words = |cell: &str| {
            let words = cell
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty());
            words.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let components = match components {
            "all" => COMPONENTS.map(str::to_owned).into(),
            some => words(some),
        };
        let metric = Metric {
            kind: kind.to_owned(),
            labels: words(labels),
            components,
            meaning: meaning.to_owned(),
        };
        (name.trim_matches('`').to_owned(), metric)
    })
    .collect()
}

/// The labels of a sample's line, but for the bounds of buckets.
fn labels(sample: &str) -> BTreeSet<String> {
    let Some((_, rest)) = sample.split_once('{') else {
        return BTreeSet::new();
    };
    let inside = rest.split_once("} ").map_or("", |(inside, _)| inside);
    let names = inside
        .split("\",")
        .filter_map(|pair| Some(pair.split_once('=')?.0));
    let names = names.filter(|name| *name != "le").map(str::to_owned);
    names.collect()
}

/// Adds what a component exports.
fn scrape(component: &str, process: &Process, found: &mut BTreeMap<String, Metric>) {
    let text = process.get("/metrics");
    let mut helps = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            helps.insert(name.to_owned(), help.trim_end_matches('.').to_owned());
        } else if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').unwrap();
            let ending = if kind == "counter" { "_total" } else { "" };
            current = format!("{name}{ending}");
            let metric = found.entry(current.clone()).or_default();
            kind.clone_into(&mut metric.kind);
            metric.meaning.clone_from(&helps[name]);
            metric.components.insert(component.to_owned());
        } else if !line.starts_with('#')
            && line.starts_with(current.trim_end_matches("_total"))
            && let Some(metric) = found.get_mut(&current)
        {
            metric.labels.extend(labels(line));
        }
    }
}

/// What all components export, after a life before and some calls.
async fn exported() -> BTreeMap<String, Metric> {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_component"));
    // A collector that is not there, so that spans are counted.
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")];
    let mut found = BTreeMap::new();
    let registry = fleet::free_port();
    for component in COMPONENTS {
        let address = match component {
            "worker-registry" => registry,
            _ => fleet::free_port(),
        };
        let store = format!("--store=embedded:{}", at.join(component).display());
        let data = format!("--data={}", at.join(format!("{component}-data")).display());
        let workers = format!("--workers-addr=http://{registry}");
        let args = match component {
            "worker-agent" => vec!["--name=w1".to_owned(), data, workers],
            "replica-manager" => vec![store, workers],
            "offers-gateway" => vec![store, data],
            _ => vec![store],
        };
        // Twice, since the first life is told of in the second.
        fleet::start(&program, at, component, address, &args, &environment)
            .await
            .terminate()
            .await;
        let again = fleet::start(&program, at, component, address, &args, &environment).await;
        scrape(component, &again, &mut found);
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_names_every_metric_and_no_other() {
    let exported = exported().await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let documented = documented(&fs::read_to_string(path).unwrap_or_default());
    let mut wrong = Vec::new();
    for (name, metric) in &exported {
        let Some(said) = documented.get(name) else {
            wrong.push(format!("add to docs/metrics.md:\n{}", line(name, metric)));
            continue;
        };
        // The document may know labels that nothing was counted under here.
        let labels = metric.labels.union(&said.labels).cloned().collect();
        let wanted = Metric {
            labels,
            ..metric.clone()
        };
        if *said != wanted {
            let (old, new) = (line(name, said), line(name, &wanted));
            wrong.push(format!("replace in docs/metrics.md:\n{old}\nby:\n{new}"));
        }
    }
    let gone = documented
        .keys()
        .filter(|name| !exported.contains_key(*name));
    wrong.extend(gone.map(|name| format!("nothing exports `{name}`: take its line out")));
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
