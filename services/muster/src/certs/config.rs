//! What goes with the certificates: a configuration file for each component that uses them, and
//! contexts for this program.

use std::{fmt::Write as _, path::Path};

use toml::Value;

use super::{AGENTS, Bearer, Leaf};

/// The first line of every file that is written here.
const MADE_BY: &str = "# Made by `muster certs init`.";

/// The file of contexts.
pub(crate) const CONTEXTS: &str = "contexts.toml";

/// The name of a component's or an agent's configuration file.
pub(crate) fn file_name(leaf: &Leaf) -> String {
    format!("{}.toml", leaf.file)
}

/// The configuration of the component or agent whose certificate `leaf` is. `folder` is absolute,
/// since components are started anywhere; `host` is where the others are.
pub(crate) fn component(folder: &Path, leaf: &Leaf, all: &[Leaf], host: &str) -> String {
    let mut text =
        format!("{MADE_BY} Flags and the environment win over it.\n\ntls = \"required\"\n");
    for (key, path) in [
        ("tls_cert", file(folder, &leaf.file, "crt")),
        ("tls_key", file(folder, &leaf.file, "key")),
        ("tls_client_ca", file(folder, "ca", "crt")),
        ("ca", file(folder, "ca", "crt")),
        ("cert", file(folder, &leaf.file, "crt")),
        ("key", file(folder, &leaf.file, "key")),
    ] {
        let _ = writeln!(text, "{key} = {path}");
    }
    for (key, port) in calls(leaf) {
        let _ = writeln!(text, "{key} = \"{}\"", url(host, *port));
    }
    for (name, role, san) in callers(all) {
        let _ = write!(
            text,
            "\n[[auth]]\nname = \"{name}\"\nrole = \"{role}\"\nsan = \"{san}\"\n"
        );
    }
    text
}

/// Contexts of this program, one for each person's certificate.
pub(crate) fn contexts(folder: &Path, all: &[Leaf], host: &str) -> String {
    let mut text = format!("{MADE_BY} Use one with `muster --context NAME`.\n");
    for leaf in all.iter().filter(|leaf| leaf.bearer == Bearer::Person) {
        let _ = writeln!(text, "\n[contexts.{}]", leaf.file);
        for (key, port) in [("offers", 7400), ("workers", 7401), ("replicas", 7402)] {
            let _ = writeln!(text, "{key}_addr = \"{}\"", url(host, port));
        }
        for (key, path) in [
            ("ca", file(folder, "ca", "crt")),
            ("cert", file(folder, &leaf.file, "crt")),
            ("key", file(folder, &leaf.file, "key")),
        ] {
            let _ = writeln!(text, "{key} = {path}");
        }
    }
    text
}

/// The addresses that a component or agent is told, with their ports.
fn calls(leaf: &Leaf) -> &'static [(&'static str, u16)] {
    match (leaf.bearer, leaf.file.as_str()) {
        (Bearer::Agent, _) => &[("workers_addr", 7401), ("replicas_addr", 7402)],
        (_, "replica-manager") => &[("workers_addr", 7401), ("offers_addr", 7400)],
        (Bearer::Component | Bearer::Person, _) => &[],
    }
}

/// Who is known to whoever serves: name, role and the name in the certificate.
fn callers(all: &[Leaf]) -> impl Iterator<Item = (&str, &str, String)> {
    let known = all.iter().filter_map(|leaf| {
        let role = match leaf.bearer {
            Bearer::Component => "component",
            Bearer::Person => leaf.file.as_str(),
            Bearer::Agent => return None,
        };
        Some((leaf.file.as_str(), role, leaf.identity.clone()))
    });
    // One entry for agents that are there and that come later.
    known.chain([("agents", "agent", format!("*.{AGENTS}"))])
}

fn file(folder: &Path, name: &str, ending: &str) -> Value {
    let path = folder.join(format!("{name}.{ending}"));
    Value::String(path.to_string_lossy().into_owned())
}

fn url(host: &str, port: u16) -> String {
    let brackets = host.contains(':');
    match brackets {
        true => format!("https://[{host}]:{port}"),
        false => format!("https://{host}:{port}"),
    }
}
