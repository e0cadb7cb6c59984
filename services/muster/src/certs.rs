//! Which certificates a stack has, and what each is for: a plan without files or keys. A name of
//! its own binds each certificate to its role, so that a machine's name proves nothing.

pub(crate) mod config;
pub(crate) mod folder;
pub(crate) mod issue;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::IpAddr};

use muster_model::name;

/// The components: each serves, and calls others in the role `component`.
const COMPONENTS: [&str; 3] = ["offers-gateway", "worker-registry", "replica-manager"];

/// People: a certificate for each of the roles that they can have.
const PEOPLE: [&str; 3] = ["admin", "operator", "viewer"];

/// The agent that there is a certificate for where none is named.
pub(crate) const DEFAULT_AGENT: &str = "worker-agent";

/// The names of this machine that every server answers to.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What agents' names end with: the one entry for all of them is a pattern over it.
pub(crate) const AGENTS: &str = "agent.muster";

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bearer {
    /// A component.
    Component,
    /// The agent of one worker.
    Agent,
    /// A person.
    Person,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// The name of its files, without their endings.
    pub(crate) file: String,
    /// Whom it is for.
    pub(crate) bearer: Bearer,
    /// The name that its role is bound to.
    pub(crate) identity: String,
    /// The names and addresses under which its bearer is called; empty if nobody calls it.
    pub(crate) hosts: Vec<String>,
}

impl Leaf {
    /// Every name in it, the identity first.
    pub(crate) fn names(&self) -> Vec<String> {
        let identity = std::iter::once(&self.identity);
        identity.chain(&self.hosts).cloned().collect()
    }
}

/// The certificates of a stack whose machines are reached as `hosts`, with these agents.
pub(crate) fn plan(hosts: &[String], agents: &[String]) -> Vec<Leaf> {
    let served_as = |own: &str| {
        let all = std::iter::once(own).chain(LOCAL);
        let mut seen = BTreeSet::new();
        let all = all.chain(hosts.iter().map(String::as_str));
        all.filter(|host| seen.insert(host.to_ascii_lowercase()))
            .map(str::to_owned)
            .collect()
    };
    let components = COMPONENTS.map(|name| Leaf {
        file: name.to_owned(),
        bearer: Bearer::Component,
        identity: format!("{name}.component.muster"),
        hosts: served_as(name),
    });
    let agents: BTreeSet<&str> = match agents {
        [] => BTreeSet::from([DEFAULT_AGENT]),
        named => named.iter().map(String::as_str).collect(),
    };
    let agents = agents.into_iter().map(|name| Leaf {
        file: format!("agent-{name}"),
        bearer: Bearer::Agent,
        identity: format!("{name}.{AGENTS}"),
        hosts: served_as(name),
    });
    let people = PEOPLE.map(|role| Leaf {
        file: role.to_owned(),
        bearer: Bearer::Person,
        identity: format!("{role}.person.muster"),
        hosts: Vec::new(),
    });
    components.into_iter().chain(agents).chain(people).collect()
}

/// Reads a host: an address, or a name in DNS, of which the first label may be `*`.
pub(crate) fn parse_host(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let label = |label: &str| {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(letters)
    };
    if text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && name.split('.').all(label)) {
        return Ok(text.to_owned());
    }
    Err(
        "write a name such as gpu-1.example.org or an address such as 10.0.0.1, \
         without scheme and port"
            .to_owned(),
    )
}

/// Reads the name of a worker.
pub(crate) fn parse_agent(text: &str) -> Result<String, name::Error> {
    name::check(text).map(|()| text.to_owned())
}
