//! The probe's flags, read as Go's `flag` package reads them: one dash or two,
//! `-name=value` or `-name value`, and the first word that is no flag ends them.
//! Decides what was asked for; touches neither files nor the network.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use super::span::Span;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// Ask a server how it is.
    Check(Box<Options>),
    /// Say which program this is.
    Version,
}

/// What to ask of whom, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// Where the server is, as it was typed.
    pub(super) addr: String,
    /// The service that is asked about; empty is the whole server.
    pub(super) service: String,
    /// What the call is sent as.
    pub(super) user_agent: String,
    /// For the connection, tried again and again.
    pub(super) connect_timeout: Duration,
    /// For the call.
    pub(super) rpc_timeout: Duration,
    /// Sent with the call, names and values.
    pub(super) headers: Vec<(String, String)>,
    /// How to speak TLS; `None` is plaintext.
    pub(super) tls: Option<Tls>,
    /// Whether to compress.
    pub(super) gzip: bool,
    /// Whether to say what is done.
    pub(super) verbose: bool,
}

/// How to speak TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tls {
    /// Whose servers to believe.
    pub(super) verify: Verify,
    /// The certificate to present, and its private key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    /// The name that the server has to prove, if not the address's.
    pub(super) server_name: Option<String>,
}

/// Whose servers to believe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Verify {
    /// Those of the system's authorities.
    #[default]
    System,
    /// Those of the authorities in a file.
    Authorities(PathBuf),
    /// Everyone.
    Nobody,
}

/// The command line asks for nothing that could be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// What is wrong; empty where only the usage is asked for.
    pub(super) message: String,
    /// Whether the flags themselves are to be explained.
    pub(super) usage: bool,
}

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Switch,
    Text,
    Time,
    Header,
}

/// Every flag: its name, what it takes, and what it is for.
const FLAGS: [(&str, Kind, &str); 18] = [
    (
        "addr",
        Kind::Text,
        "where the server is, host:port or unix:path (required)",
    ),
    ("alts", Kind::Switch, "not supported"),
    (
        "connect-timeout",
        Kind::Time,
        "how long connecting may take (default 1s)",
    ),
    (
        "gzip",
        Kind::Switch,
        "compress the call, and take a compressed answer",
    ),
    (
        "rpc-header",
        Kind::Header,
        "a header to send, as 'name: value'; may be given again",
    ),
    (
        "rpc-timeout",
        Kind::Time,
        "how long the call may take (default 1s)",
    ),
    (
        "service",
        Kind::Text,
        "the service to ask about; none is the whole server",
    ),
    ("spiffe", Kind::Switch, "not supported"),
    (
        "tls",
        Kind::Switch,
        "speak TLS; without it the call is in plaintext",
    ),
    (
        "tls-ca-cert",
        Kind::Text,
        "with -tls: the file of authorities to verify the server by (default the system's)",
    ),
    (
        "tls-client-cert",
        Kind::Text,
        "with -tls: the file of the certificate to present; needs -tls-client-key",
    ),
    (
        "tls-client-key",
        Kind::Text,
        "with -tls: the file of that certificate's private key",
    ),
    (
        "tls-no-verify",
        Kind::Switch,
        "with -tls: take any certificate of the server (INSECURE)",
    ),
    (
        "tls-server-name",
        Kind::Text,
        "with -tls: the name that the server has to prove, in place of its address",
    ),
    (
        "user-agent",
        Kind::Text,
        "what the call is sent as (default \"grpc_health_probe\")",
    ),
    ("v", Kind::Switch, "say what is done"),
    ("version", Kind::Switch, "say which program this is"),
    ("h", Kind::Switch, "show this"),
];

/// The values of flags.
#[derive(Debug)]
struct Given {
    switches: Vec<&'static str>,
    texts: Vec<(&'static str, String)>,
    headers: Vec<(String, String)>,
    connect_timeout: Span,
    rpc_timeout: Span,
}

/// Reads the words behind the program's name.
pub(super) fn parse(words: impl IntoIterator<Item = String>) -> Result<Asked, Refused> {
    let mut given = Given {
        switches: Vec::new(),
        texts: Vec::new(),
        headers: Vec::new(),
        connect_timeout: Span::seconds(1),
        rpc_timeout: Span::seconds(1),
    };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let Some((name, value)) = split(&word)? else {
            break;
        };
        given.take(name, value, &mut words)?;
    }
    if given.has("version") {
        return Ok(Asked::Version);
    }
    given.check().map_err(|message| Refused {
        message: format!("error: {message}"),
        usage: false,
    })
}

/// The explanation of every flag.
pub(super) fn usage() -> String {
    let mut text = "Usage:\n".to_owned();
    for (name, kind, help) in FLAGS {
        let takes = match kind {
            Kind::Switch => "",
            Kind::Text => " string",
            Kind::Time => " duration",
            Kind::Header => " value",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  -{name}{takes}\n    \t{help}");
    }
    text
}

/// The name of a flag and the value that stands in the same word; `None` if the
/// word is no flag and ends them.
fn split(word: &str) -> Result<Option<(&str, Option<&str>)>, Refused> {
    let Some(rest) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
        return Ok(None);
    };
    let rest = match rest.strip_prefix('-') {
        Some("") => return Ok(None),
        Some(rest) => rest,
        None => rest,
    };
    if rest.starts_with(['-', '=']) {
        return Err(wrong(format!("bad flag syntax: {word}")));
    }
    Ok(Some(match rest.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (rest, None),
    }))
}

fn wrong(message: String) -> Refused {
    Refused {
        message,
        usage: true,
    }
}

impl Given {
    fn take(
        &mut self,
        name: &str,
        value: Option<&str>,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), Refused> {
        if matches!(name, "h" | "help") {
            return Err(wrong(String::new()));
        }
        let known = FLAGS.iter().find(|(known, _, _)| *known == name);
        let &(name, kind, _) =
            known.ok_or_else(|| wrong(format!("flag provided but not defined: -{name}")))?;
        if kind == Kind::Switch {
            return self.switch(name, value);
        }
        let value = value.map(str::to_owned).or_else(|| rest.next());
        let value = value.ok_or_else(|| wrong(format!("flag needs an argument: -{name}")))?;
        self.set(name, kind, &value)
            .map_err(|why| wrong(format!("invalid value {value:?} for flag -{name}: {why}")))
    }

    fn switch(&mut self, name: &'static str, value: Option<&str>) -> Result<(), Refused> {
        let on = match value {
            None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
            Some(value) => {
                let message = format!("invalid boolean value {value:?} for -{name}: parse error");
                return Err(wrong(message));
            }
        };
        self.switches.retain(|known| *known != name);
        if on {
            self.switches.push(name);
        }
        Ok(())
    }

    fn set(&mut self, name: &'static str, kind: Kind, value: &str) -> Result<(), String> {
        match (kind, name) {
            (Kind::Time, "connect-timeout") => self.connect_timeout = span(value)?,
            (Kind::Time, _) => self.rpc_timeout = span(value)?,
            (Kind::Header, _) => self.headers.push(header(value)?),
            (Kind::Switch | Kind::Text, _) => {
                self.texts.retain(|(known, _)| *known != name);
                self.texts.push((name, value.to_owned()));
            }
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.switches.contains(&name)
    }

    /// The text of a flag; `None` also if it is empty, which is the same as not given.
    fn text(&self, name: &str) -> Option<String> {
        let mut texts = self.texts.iter();
        let found = texts.find(|(known, text)| *known == name && !text.is_empty());
        found.map(|(_, text)| text.clone())
    }

    /// What the flags come to together.
    fn check(&self) -> Result<Asked, String> {
        let above_zero = |name: &str, span: Span| {
            let zero = || format!("-{name} must be greater than zero (specified: {span})");
            span.positive().ok_or_else(zero)
        };
        let addr = self.text("addr").ok_or("-addr not specified")?;
        let connect_timeout = above_zero("connect-timeout", self.connect_timeout)?;
        let rpc_timeout = above_zero("rpc-timeout", self.rpc_timeout)?;
        for name in ["alts", "spiffe"] {
            if self.has(name) {
                return Err(format!("-{name} is not supported by this probe"));
            }
        }
        Ok(Asked::Check(Box::new(Options {
            addr,
            service: self.text("service").unwrap_or_default(),
            user_agent: self.user_agent(),
            connect_timeout,
            rpc_timeout,
            headers: self.headers.clone(),
            tls: self.tls()?,
            gzip: self.has("gzip"),
            verbose: self.has("v"),
        })))
    }

    fn user_agent(&self) -> String {
        self.text("user-agent")
            .unwrap_or_else(|| super::NAME.to_owned())
    }

    fn tls(&self) -> Result<Option<Tls>, String> {
        let no_verify = self.has("tls-no-verify");
        let [ca, cert, key, server_name] = [
            "tls-ca-cert",
            "tls-client-cert",
            "tls-client-key",
            "tls-server-name",
        ]
        .map(|name| self.text(name));
        if !self.has("tls") {
            self.without_tls(no_verify)?;
        }
        let identity = match (cert, key) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            (Some(_), None) => return Err(without("tls-client-cert", "tls-client-key")),
            (None, Some(_)) => return Err(without("tls-client-key", "tls-client-cert")),
        };
        let useless = |name: &str, what: &str| {
            format!("cannot specify -{name} with -tls-no-verify ({what} would not be used)")
        };
        let verify = match (no_verify, ca) {
            (true, Some(_)) => return Err(useless("tls-ca-cert", "CA cert")),
            (true, None) if server_name.is_some() => {
                return Err(useless("tls-server-name", "server name"));
            }
            (true, None) => Verify::Nobody,
            (false, Some(file)) => Verify::Authorities(file.into()),
            (false, None) => Verify::System,
        };
        Ok(self.has("tls").then_some(Tls {
            verify,
            identity,
            server_name,
        }))
    }

    /// That nothing is said of TLS where there is none.
    fn without_tls(&self, no_verify: bool) -> Result<(), String> {
        if no_verify {
            return Err(without("tls-no-verify", "tls"));
        }
        for name in ["tls-ca-cert", "tls-client-cert", "tls-server-name"] {
            if self.text(name).is_some() {
                return Err(without(name, "tls"));
            }
        }
        Ok(())
    }
}

fn without(given: &str, missing: &str) -> String {
    format!("specified -{given} without specifying -{missing}")
}

fn span(value: &str) -> Result<Span, String> {
    value
        .parse()
        .map_err(|error: super::span::NoSpan| error.to_string())
}

fn header(text: &str) -> Result<(String, String), String> {
    let none = || format!("invalid RPC header, expected 'name: value', got {text}");
    let (name, value) = text.split_once(':').ok_or_else(none)?;
    Ok((name.to_ascii_lowercase(), value.trim_start().to_owned()))
}

#[cfg(test)]
mod tests;
