//! `muster backup` and `muster restore`: a component's state as a file, and a new
//! store from it. A file is whole or not there, and nothing that is there is
//! replaced unless that is asked for. `-` is standard output or input, where only
//! the exit code can say that half of it came.

use std::{
    io::{self, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use muster_proto::ops::v1::StreamBackupRequest;
use muster_store::{Options, RestoreError, Restored};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::{
    args::{self, Format},
    commands::health,
    failure::Failure,
    output::json,
    session::{Component, Session},
};

/// What was backed up.
#[derive(Debug, Default)]
struct Copied {
    revision: i64,
    epoch: String,
    bytes: u64,
}

/// Copies a component's state into a file, or to standard output.
pub(crate) async fn run(session: &Session, args: &args::Backup) -> Result<(), Failure> {
    let component = health::named(&args.component)?;
    if is_standard(&args.file) {
        return to_stdout(session, component, args).await;
    }
    if !args.force && args.file.exists() {
        return Err(exists(&args.file));
    }
    let mut file = NamedTempFile::new_in(folder(&args.file)).map_err(at(&args.file))?;
    let place = Place {
        name: &args.file,
        half: "nothing is kept",
    };
    let copied = copy(session, component, &mut file, &place).await?;
    keep(file, args)?;
    session.print(&said(session.format, component.name(), args, &copied))
}

/// Hands the parts on as they come: there may be no room here for all of them.
async fn to_stdout(
    session: &Session,
    component: Component,
    args: &args::Backup,
) -> Result<(), Failure> {
    let mut out = io::stdout();
    if out.is_terminal() {
        let words = "a backup is not for a terminal: send standard output to a file or a program";
        return Err(Failure::Usage(words.to_owned()));
    }
    let place = Place {
        name: Path::new("standard output"),
        half: "what was written is no backup",
    };
    let copied = copy(session, component, &mut out, &place).await?;
    let said = said(session.format, component.name(), args, &copied);
    // Nowhere is left to say that stderr is closed.
    let _ = io::stderr().write_all(said.as_bytes());
    Ok(())
}

/// Whether a file is standard output or input, as its name says.
fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn folder(file: &Path) -> PathBuf {
    let parent = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new(".")).to_owned()
}

/// What an error of the file is, said with its name.
fn at(file: &Path) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Failed(format!("{}: {error}", file.display()))
}

fn exists(file: &Path) -> Failure {
    Failure::Usage(format!(
        "{} exists already: move it away, or give --force to replace it",
        file.display()
    ))
}

/// Where a backup goes.
struct Place<'a> {
    name: &'a Path,
    /// What is there of one that is not whole.
    half: &'static str,
}

/// Writes the parts, and checks that they are all there.
async fn copy(
    session: &Session,
    component: Component,
    out: &mut impl Write,
    place: &Place<'_>,
) -> Result<Copied, Failure> {
    let request = StreamBackupRequest {};
    let mut parts = session
        .call(component, session.ops(component).stream_backup(request))
        .await?;
    let refused = |status| session.failure(component, status);
    let mut copied = Copied::default();
    let mut sum = Sha256::new();
    while let Some(part) = parts.message().await.map_err(refused)? {
        if !part.epoch.is_empty() {
            copied.epoch = part.epoch;
            copied.revision = part.revision;
        }
        if !part.sha256.is_empty() {
            if sum.finalize().as_slice() != part.sha256 {
                let why = "what came is not what was sent: its checksum differs";
                return Err(damaged(why, place));
            }
            out.flush().map_err(at(place.name))?;
            return Ok(copied);
        }
        sum.update(&part.data);
        copied.bytes += part.data.len() as u64;
        out.write_all(&part.data).map_err(at(place.name))?;
    }
    Err(damaged("the component ended before the backup did", place))
}

fn damaged(why: &str, place: &Place<'_>) -> Failure {
    Failure::Failed(format!("{why}; {}, try again", place.half))
}

/// Puts the whole backup in its place, on disk.
fn keep(file: NamedTempFile, args: &args::Backup) -> Result<(), Failure> {
    let failed = at(&args.file);
    file.as_file().sync_all().map_err(&failed)?;
    let kept = if args.force {
        file.persist(&args.file)
    } else {
        file.persist_noclobber(&args.file)
    };
    match kept {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(exists(&args.file));
        }
        Err(error) => return Err(failed(error.error)),
    }
    let folder = std::fs::File::open(folder(&args.file)).and_then(|folder| folder.sync_all());
    folder.map_err(failed)
}

fn said(format: Format, component: &str, args: &args::Backup, copied: &Copied) -> String {
    let Copied {
        revision,
        epoch,
        bytes,
    } = copied;
    let file = if is_standard(&args.file) {
        "standard output".to_owned()
    } else {
        args.file.display().to_string()
    };
    let text = format!(
        "{component} as of revision {revision} is in {file}, {bytes} bytes\n\
         it holds every secret that the component has: keep it where only you can read it\n"
    );
    let value = serde_json::json!({
        "component": component, "file": file, "revision": revision.to_string(),
        "epoch": epoch, "bytes": bytes.to_string(),
    });
    shown(format, text, &value)
}

fn shown(format: Format, text: String, value: &serde_json::Value) -> String {
    match format {
        Format::Table | Format::Wide | Format::Name => text,
        Format::Json => format!("{value:#}\n"),
        Format::Yaml => json::yaml(value),
    }
}

/// Makes a new store from a backup, and says what to do with it.
pub(crate) async fn restore(args: &args::Restore, format: Format) -> Result<String, Failure> {
    let file = if !is_standard(&args.file) {
        &*args.file
    } else if io::stdin().is_terminal() {
        let words = "a backup is expected on standard input, which is a terminal";
        return Err(Failure::Usage(words.to_owned()));
    } else {
        Path::new("/dev/stdin")
    };
    let restored = muster_store::restore(file, &args.store, Options::default()).await;
    let Restored {
        epoch,
        revision,
        records,
    } = restored.map_err(|error| match error {
        RestoreError::Memory => Failure::Usage(format!("--store: {error}")),
        RestoreError::Backup { .. }
        | RestoreError::Exists { .. }
        | RestoreError::Taken { .. }
        | RestoreError::CutShort { .. }
        | RestoreError::Target(_) => Failure::Failed(error.to_string()),
    })?;
    let store = &args.store;
    let text = format!(
        "{records} records as of revision {} are in {store}, in a new epoch {epoch}\n\
         start the component with `--store {store}`; agents register again, and nothing that \
         runs is stopped\n",
        revision.0
    );
    let value = serde_json::json!({
        "store": store.to_string(), "epoch": epoch.to_string(),
        "revision": revision.0.to_string(), "records": records,
    });
    Ok(shown(format, text, &value))
}
