//! `muster certs init`: a development authority and the certificates that it signs. It never
//! overwrites what is there without being told to.

use std::{fmt::Display, io::Write as _, path::Path};

use muster_runtime::clock::Clock;

use crate::{
    args::CertsInit,
    certs::{
        self, Bearer, Leaf, config,
        folder::Folder,
        issue::{Authority, Validity},
    },
    failure::Failure,
    output::{style::Colours, table::Table},
    session,
};

/// What is done with what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Refuse,
    Keep,
    Replace,
}

/// Makes the files and says what to do with them.
pub(crate) fn init(args: &CertsInit) -> Result<(), Failure> {
    let existing = match (args.if_absent, args.force) {
        (true, _) => Existing::Keep,
        (_, true) => Existing::Replace,
        (false, false) => Existing::Refuse,
    };
    if args.valid_for.is_zero() {
        return Err(Failure::Usage(
            "--valid-for: must be more than 0".to_owned(),
        ));
    }
    let validity = Validity {
        now: Clock::system().now(),
        lasts: args.valid_for,
    };
    let leaves = certs::plan(&args.host, &args.agent);
    let host = args.host.iter().find(|host| !host.starts_with('*'));
    let host = host.map_or("localhost", String::as_str);
    let folder = Folder::open(&args.dir).map_err(|error| failed(args.dir.display(), error))?;
    let work = Work {
        folder,
        existing,
        validity,
    };
    let table = work.make(&leaves, host)?;
    show(&table, work.folder.path())
}

struct Work {
    folder: Folder,
    existing: Existing,
    validity: Validity,
}

impl Work {
    /// Makes everything, and shows it.
    fn make(&self, leaves: &[Leaf], host: &str) -> Result<Table, Failure> {
        self.clear(leaves, host)?;
        let mut table = Table::new(&["FILE", "IS", "FOR"]);
        let mut row = |file: String, made: bool, what: String| {
            let is = if made { "made" } else { "kept" };
            table.row(vec![file.into(), is.into(), what.into()]);
        };
        let (authority, made) = self.authority()?;
        row(
            "ca.crt, ca.key".to_owned(),
            made,
            "the authority".to_owned(),
        );
        for leaf in leaves {
            let (certificate, key) = (format!("{}.crt", leaf.file), format!("{}.key", leaf.file));
            let missing = !self.keeps(&certificate);
            if missing {
                self.sign(&authority, leaf)?;
            }
            let names = leaf.names().join(", ");
            row(format!("{certificate}, {key}"), missing, names);
        }
        for (file, text, what) in self.texts(leaves, host) {
            let missing = !self.keeps(&file);
            if missing {
                self.write(&file, &text)?;
            }
            row(file, missing, what);
        }
        Ok(table)
    }

    /// Makes sure that what is there may be touched, and is not there by half.
    fn clear(&self, leaves: &[Leaf], host: &str) -> Result<(), Failure> {
        let at = self.folder.path().display();
        let leaves_files = leaves.iter().map(|leaf| leaf.file.as_str());
        let pairs: Vec<_> = std::iter::once("ca")
            .chain(leaves_files)
            .map(|name| (format!("{name}.crt"), format!("{name}.key")))
            .collect();
        let texts = self.texts(leaves, host);
        let mut all = pairs
            .iter()
            .flat_map(|(certificate, key)| [certificate, key])
            .chain(texts.iter().map(|text| &text.0));
        match self.existing {
            Existing::Refuse => all.find(|file| self.folder.has(file)).map_or(Ok(()), |file| {
                Err(Failure::Failed(format!(
                    "{file} is in {at} already: give --if-absent to keep what is there and make the \
                     rest, or --force to make everything anew"
                )))
            }),
            Existing::Keep => {
                let mut pairs = pairs.iter();
                let half = |(certificate, key): &&(String, String)| {
                    self.folder.has(certificate) && !self.folder.has(key)
                };
                pairs.find(half).map_or(Ok(()), |(certificate, key)| {
                    Err(Failure::Failed(format!(
                        "{certificate} is in {at} without {key}: put the key back, or give --force \
                         to make everything anew"
                    )))
                })
            }
            // Gone first, so that what ends in the middle is not taken for whole by --if-absent.
            Existing::Replace => pairs.iter().try_for_each(|(certificate, _)| {
                let removed = self.folder.remove(certificate);
                removed.map_err(|error| failed(certificate, error))
            }),
        }
    }

    fn keeps(&self, file: &str) -> bool {
        self.existing == Existing::Keep && self.folder.has(file)
    }

    /// The authority, and whether it was made now.
    fn authority(&self) -> Result<(Authority, bool), Failure> {
        if self.keeps("ca.crt") {
            let key = self.folder.read("ca.key");
            let key = key.map_err(|error| failed("ca.key", error))?;
            let read = Authority::from_key(&key);
            return Ok((read.map_err(|error| failed("ca.key", error))?, false));
        }
        let (authority, pair) =
            Authority::generate(self.validity).map_err(|error| failed("the authority", error))?;
        let written = self.folder.write_pair("ca", &pair);
        written.map_err(|error| failed("ca.crt", error))?;
        Ok((authority, true))
    }

    fn sign(&self, authority: &Authority, leaf: &Leaf) -> Result<(), Failure> {
        let pair = authority
            .sign(leaf, self.validity)
            .map_err(|error| failed(&leaf.file, error))?;
        let written = self.folder.write_pair(&leaf.file, &pair);
        written.map_err(|error| failed(&leaf.file, error))
    }

    /// The files beside certificates: name, text, and what each is for.
    fn texts(&self, leaves: &[Leaf], host: &str) -> Vec<(String, String, String)> {
        let at = self.folder.path();
        let served = leaves.iter().filter(|leaf| leaf.bearer != Bearer::Person);
        let mut texts: Vec<_> = served
            .map(|leaf| {
                let text = config::component(at, leaf, leaves, host);
                (config::file_name(leaf), text, "--config".to_owned())
            })
            .collect();
        let contexts = config::contexts(at, leaves, host);
        texts.push((
            config::CONTEXTS.to_owned(),
            contexts,
            "this program's contexts".to_owned(),
        ));
        texts
    }

    fn write(&self, file: &str, text: &str) -> Result<(), Failure> {
        let written = self.folder.write_public(file, text);
        written.map_err(|error| failed(file, error))
    }
}

fn failed(what: impl Display, error: impl Display) -> Failure {
    Failure::Failed(format!("{what}: {error}"))
}

fn show(table: &Table, folder: &Path) -> Result<(), Failure> {
    let mut out = Vec::new();
    table.write(&mut out, Colours::of_stdout())?;
    let at = folder.display();
    writeln!(
        out,
        "\n\
         in {at}. What was kept has the names that it was made with, whatever is asked for now.\n\
         Next:\n  \
           worker-registry --config {at}/worker-registry.toml    # and so for each component\n  \
           worker-agent --config {at}/agent-NAME.toml --name NAME\n  \
           mkdir -p ~/.config/muster && cat {at}/{contexts} >> ~/.config/muster/config.toml\n  \
           muster --context admin health\n\
         Keep ca.key away from machines that only serve. This authority is for development.",
        contexts = config::CONTEXTS,
    )?;
    session::print(&String::from_utf8_lossy(&out))
}
