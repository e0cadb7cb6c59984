//! Lists of prices in a foreign format: in a file, read again when it has changed; at an address,
//! fetched again when its server says that it has; and those that come with the gateway.

use std::fs::Metadata;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::http::{Answer, Ask, Body, Client, Expected, Known, Session};
use super::{Failure, Fetched, Offers, archive, blocking};
use crate::builtin::PriceList;
use crate::domain::{gpuhunt, skypilot};
use crate::spec::{Place, Url};

/// The largest list read, in bytes: five times all real catalogues together.
pub(super) const MAX_BYTES: usize = 64 << 20;

/// What names the built-in list's one state.
const BUILT_IN: &str = concat!("built-in ", env!("CARGO_PKG_VERSION"));

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// SkyPilot's CSV.
    Skypilot,
    /// gpuhunt's CSV, plain or in a zip.
    Gpuhunt,
}

/// A list somewhere.
#[derive(Debug)]
pub(super) struct List {
    place: Place,
    format: Format,
    /// Held while the file is read: a disk that hangs keeps hold of one thread, not of one for each
    /// attempt until there are none left for others.
    reading: Arc<Mutex<()>>,
}

/// The list that comes with the gateway.
pub(super) async fn built_in(
    backend: &str,
    list: &'static PriceList,
    validator: &str,
) -> Result<Fetched, Failure> {
    if validator == BUILT_IN {
        return Ok(Fetched::Unchanged);
    }
    let backend = backend.to_owned();
    let text = list.text.as_bytes();
    blocking(move || {
        let read = Format::Skypilot.read(&backend, "built-in list", text, BUILT_IN.to_owned());
        read.map(|offers| Offers {
            snapshot: offers.snapshot.dated(list.date),
            ..offers
        })
    })
    .await?
    .map(Fetched::of)
}

impl List {
    /// A list in such a place. Nothing is opened yet.
    pub(super) fn new(place: Place, format: Format) -> Self {
        Self {
            place,
            format,
            reading: Arc::default(),
        }
    }

    /// Reads it, unless it is still as `validator` says.
    pub(super) async fn fetch(
        &self,
        backend: &str,
        validator: &str,
        client: &Client,
        patience: std::time::Duration,
    ) -> Result<Fetched, Failure> {
        match &self.place {
            Place::Url(url) => {
                self.download(url, backend, validator, client.session(patience)?)
                    .await
            }
            Place::File(path) => {
                let Ok(reading) = Arc::clone(&self.reading).try_lock_owned() else {
                    let path = path.display();
                    return Err(Failure::late(format!(
                        "{path} is still being read since an earlier attempt: does its disk hang?"
                    )));
                };
                let (path, format) = (path.clone(), self.format);
                let (backend, validator) = (backend.to_owned(), validator.to_owned());
                blocking(move || {
                    let _reading = reading;
                    read_file(&path, format, &backend, &validator)
                })
                .await?
            }
        }
    }

    async fn download(
        &self,
        url: &Url,
        backend: &str,
        validator: &str,
        session: Session<'_>,
    ) -> Result<Fetched, Failure> {
        let ask = Ask {
            url,
            provider: None,
            key: None,
            post: None,
            expected: Expected::File,
            known: known(url, validator),
            limit: MAX_BYTES,
        };
        let body = match session.ask(&ask).await? {
            Answer::Unchanged => return Ok(Fetched::Unchanged),
            Answer::Body(body) => body,
        };
        let validator = validator_of(url, &body);
        let (format, backend, name) = (self.format, backend.to_owned(), url.to_string());
        blocking(move || format.read(&backend, &name, &body.bytes, validator))
            .await?
            .map(Fetched::of)
    }
}

impl Format {
    fn read(
        self,
        backend: &str,
        name: &str,
        text: &[u8],
        validator: String,
    ) -> Result<Offers, Failure> {
        let read = match self {
            Self::Skypilot => skypilot::read(backend, name, text),
            Self::Gpuhunt if archive::is_zip(text) => {
                let text = archive::member(text, backend, MAX_BYTES)
                    .map_err(|why| Failure::lasting(format!("{name}: {why}")))?;
                gpuhunt::read(backend, name, &text)
            }
            Self::Gpuhunt => gpuhunt::read(backend, name, text),
        };
        let snapshot = read.map_err(|error| Failure::lasting(format!("{name}: {error}")))?;
        Ok(Offers {
            snapshot,
            validator,
            live_capacity: false,
        })
    }
}

/// What names a state of what is at an address: of which address, read by which version of ours,
/// then in the words of its server.
fn validator_of(url: &Url, body: &Body) -> String {
    format!("{}\n{}\n{}", head(url), body.etag, body.modified)
}

fn head(url: &Url) -> String {
    format!("{} {url}", env!("CARGO_PKG_VERSION"))
}

/// The words of the server in a validator; none if it is of another address or version.
fn known<'a>(url: &Url, validator: &'a str) -> Known<'a> {
    let mut lines = validator.split('\n');
    if lines.next() != Some(head(url).as_str()) {
        return Known::default();
    }
    Known {
        etag: lines.next().unwrap_or_default(),
        modified: lines.next().unwrap_or_default(),
    }
}

fn read_file(
    path: &Path,
    format: Format,
    backend: &str,
    validator: &str,
) -> Result<Fetched, Failure> {
    // SkyPilot keeps each provider's list in a folder of its own.
    let inside = (format == Format::Skypilot && path.is_dir()).then(|| path.join("vms.csv"));
    let path = inside.as_deref().unwrap_or(path);
    let open = |error: std::io::Error| unreadable(path, &error);
    let file = std::fs::File::open(path).map_err(open)?;
    let metadata = file.metadata().map_err(open)?;
    let state = state(&metadata);
    if state == validator {
        return Ok(Fetched::Unchanged);
    }
    let too_large = || {
        let path = path.display();
        Failure::lasting(format!("{path} is larger than {} MiB", MAX_BYTES >> 20))
    };
    let limit = MAX_BYTES as u64;
    if metadata.len() > limit {
        return Err(too_large());
    }
    let mut text = Vec::new();
    // It may grow while it is read.
    file.take(limit + 1).read_to_end(&mut text).map_err(open)?;
    if text.len() > MAX_BYTES {
        return Err(too_large());
    }
    let name = path.file_name().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    );
    format.read(backend, &name, &text, state).map(Fetched::of)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let path = path.display();
    if error.kind() == ErrorKind::NotFound {
        Failure::lasting(format!("there is no file {path}"))
    } else if error.kind() == ErrorKind::PermissionDenied {
        Failure::lasting(format!("no permission to read {path}"))
    } else {
        Failure::passing(format!("{path}: {error}"))
    }
}

/// What changes with the file, and with the version of ours that has read it. Another one in its place
/// may have its size and its date, as copies that keep dates do.
fn state(metadata: &Metadata) -> String {
    format!(
        "{} {} bytes of {}.{:09}, inode {} of {}.{:09}",
        env!("CARGO_PKG_VERSION"),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ino(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::archive::tests::packed;

    const ROW: &str = "instance_name,location,price,spot\nbig,eu,20,False\n";

    #[test]
    fn a_list_is_read_plain_and_out_of_a_zip() {
        let zip = packed(&[("aws.csv", ROW.as_bytes()), ("gcp.csv", b"no list")]);
        for text in [ROW.as_bytes(), zip.as_slice()] {
            let offers = Format::Gpuhunt.read("aws", "f", text, "v".to_owned());
            let offers = offers.unwrap();
            assert_eq!((offers.snapshot.len(), offers.live_capacity), (1, false));
        }
        let failure = |backend: &str| {
            let read = Format::Gpuhunt.read(backend, "f", &zip, String::new());
            read.unwrap_err().fault.message
        };
        assert!(failure("gcp").starts_with("f: not a catalogue"));
        assert!(failure("oci").contains("none is oci.csv"));
    }

    #[tokio::test]
    async fn a_file_that_hangs_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("vms.csv");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        let list = List::new(Place::File(pipe.clone()), Format::Gpuhunt);
        let client = Client::new();
        let second = std::time::Duration::from_secs(1);
        // It hangs until somebody writes.
        let mut first = Box::pin(list.fetch("aws", "", &client, second));
        assert!(futures_util::poll!(&mut first).is_pending());
        drop(first);
        let failure = list.fetch("aws", "", &client, second).await.unwrap_err();
        assert!(failure.fault.timed_out, "{failure:?}");
        assert!(
            failure.fault.message.contains("still being read"),
            "{failure:?}"
        );
        std::fs::write(&pipe, ROW).unwrap();
        drop(list.reading.lock().await);
        std::fs::remove_file(&pipe).unwrap();
        std::fs::write(&pipe, ROW).unwrap();
        let fetched = list.fetch("aws", "", &client, second).await;
        assert!(matches!(fetched, Ok(Fetched::Offers(_))), "{fetched:?}");
    }

    #[test]
    fn a_catalogue_is_read_from_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let read = |format| read_file(folder.path(), format, "aws", "");
        let missing = read(Format::Skypilot).unwrap_err().fault.message;
        assert!(missing.contains("there is no file"), "{missing}");
        let rows = "InstanceType,Price,Region\na,1,eu\n";
        std::fs::write(folder.path().join("vms.csv"), rows).unwrap();
        assert!(matches!(read(Format::Skypilot), Ok(Fetched::Offers(_))));
        assert!(read(Format::Gpuhunt).is_err());
    }

    #[test]
    fn a_file_is_another_one_though_its_size_and_date_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (path, draft) = (folder.path().join("a.csv"), folder.path().join("b.csv"));
        std::fs::write(&path, ROW).unwrap();
        std::fs::write(&draft, ROW.replace("20", "30")).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        let draft_file = std::fs::File::options().write(true).open(&draft).unwrap();
        draft_file
            .set_modified(metadata.modified().unwrap())
            .unwrap();
        let before = state(&metadata);
        let read = read_file(&path, Format::Gpuhunt, "aws", &before).unwrap();
        assert!(matches!(read, Fetched::Unchanged));
        std::fs::rename(&draft, &path).unwrap();
        let read = read_file(&path, Format::Gpuhunt, "aws", &before).unwrap();
        assert!(matches!(read, Fetched::Offers(_)));
    }

    #[test]
    fn a_file_that_another_version_has_read_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, ROW).unwrap();
        let read = |validator: &str| read_file(&path, Format::Gpuhunt, "aws", validator).unwrap();
        let Fetched::Offers(offers) = read("") else {
            panic!("it has not been read yet")
        };
        assert!(matches!(read(&offers.validator), Fetched::Unchanged));
        let before = offers.validator.replace(env!("CARGO_PKG_VERSION"), "0.0.0");
        assert!(matches!(read(&before), Fetched::Offers(_)));
    }

    #[test]
    fn what_is_known_of_one_address_is_not_known_of_another() {
        let one: Url = "https://host/one.csv?signature=a".parse().unwrap();
        let other: Url = "https://host/other.csv".parse().unwrap();
        let body = Body {
            bytes: Vec::new(),
            etag: "\"e\"".to_owned(),
            modified: "m".to_owned(),
        };
        let validator = validator_of(&one, &body);
        assert!(!validator.contains("signature"));
        let expected = Known {
            etag: "\"e\"",
            modified: "m",
        };
        assert_eq!(known(&one, &validator), expected);
        assert_eq!(known(&other, &validator), Known::default());
        assert_eq!(known(&one, ""), Known::default());
    }
}
