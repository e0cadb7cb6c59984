//! NVIDIA's accelerators, as the driver's own library (NVML) tells of them. Where there is no driver there are
//! none; one that cannot be read is left out, and why.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use muster_model::gpu;
use muster_proto::types::v1::{Gpu, GpuVendor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use serde::{Deserialize, Serialize};

/// The library's name as the driver installs it; without the number it is only there with headers.
pub(crate) const LIBRARY: &str = "libnvidia-ml.so.1";

/// Where the system looks for libraries that are named without a folder, beside what stands in its cache.
const FOLDERS: [&str; 9] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

/// What comes with a driver: where libraries are, which an installation writes anew, and the driver itself.
const SIGNS: [&str; 4] = [
    "/etc/ld.so.cache",
    "/proc/driver/nvidia/version",
    "/dev/nvidiactl",
    "/dev/dxg",
];

/// What there is of a driver, by the files that a library may come from: each with its inode, size and time, or
/// nothing. While it is the same, a library that could not be found cannot be found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Traces(Vec<Option<(u64, u64, i64, i64)>>);

/// Looks at names and times alone, and at no device: it hangs on no driver.
pub(crate) fn traces(library: &Path) -> Traces {
    let named = library
        .parent()
        .is_some_and(|folder| folder != Path::new(""));
    let own = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let own: Vec<PathBuf> = std::env::split_paths(&own).collect();
    let folders = own.into_iter().chain(FOLDERS.map(PathBuf::from));
    let places: Vec<PathBuf> = if named {
        vec![library.to_owned()]
    } else {
        let libraries = folders.map(|folder| folder.join(library));
        libraries.chain(SIGNS.map(PathBuf::from)).collect()
    };
    let trace = |place: &PathBuf| {
        let found = std::fs::metadata(place).ok()?;
        Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    Traces(places.iter().map(trace).collect())
}

/// What the driver says when it is asked which accelerators there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Look {
    /// No driver is installed.
    NoDriver,
    /// No program can use the driver now; why.
    Unusable(String),
    /// It answers.
    Cards {
        /// Those that can be used, in its order.
        read: Vec<Card>,
        /// Why each of the others cannot be, for all that is known: those that are lost are left out.
        unread: Vec<String>,
    },
}

/// What the driver says of an accelerator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Card {
    pub(crate) uuid: String,
    product_name: String,
    /// Drivers of before 2022 do not tell it in a way that is asked for; the product's name has to do.
    memory_mib: Option<u32>,
    /// Empty if it is not told.
    compute_capability: String,
}

impl Card {
    fn of(device: &Device<'_>) -> Result<Self, NvmlError> {
        // Names are told from memory also of one that is lost; this is asked of the card itself.
        let memory = match device.memory_info() {
            Err(NvmlError::GpuLost) => return Err(NvmlError::GpuLost),
            told => told.ok(),
        };
        let capability = device.cuda_compute_capability();
        Ok(Self {
            uuid: device.uuid()?,
            product_name: device.name()?,
            memory_mib: memory.and_then(|memory| u32::try_from(memory.total >> 20).ok()),
            compute_capability: capability
                .map(|version| format!("{}.{}", version.major, version.minor))
                .unwrap_or_default(),
        })
    }

    /// Whether the driver says what it is.
    pub(crate) fn has_name(&self) -> bool {
        !self.product_name.trim().is_empty()
    }

    /// The same in the registry's words.
    pub(crate) fn gpu(&self) -> Gpu {
        let (name, memory) = gpu::identify(&self.product_name, self.memory_mib);
        Gpu {
            uuid: self.uuid.clone(),
            name: name.as_str().to_owned(),
            vendor: GpuVendor::Nvidia.into(),
            memory_mib: memory.and_then(|mib| i32::try_from(mib).ok()).unwrap_or(0),
            product_name: self.product_name.clone(),
            compute_capability: self.compute_capability.clone(),
            simulated: false,
        }
    }
}

/// Asks a library which accelerators there are, and writes what it says to standard output: a program of its
/// own, since a library sees what there was when a process first opened it, and may hang or crash where a card
/// is broken.
pub(crate) fn tell(library: &OsStr) -> ExitCode {
    let told = look(library).map_err(|error| error.to_string());
    let told = told.and_then(|look| {
        let text = serde_json::to_vec(&look).map_err(|error| error.to_string())?;
        let written = io::stdout().write_all(&text);
        written.map_err(|error| error.to_string())
    });
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn look(library: &OsStr) -> Result<Look, NvmlError> {
    let nvml = match Nvml::builder().lib_path(library).init() {
        Ok(nvml) => nvml,
        Err(NvmlError::LibloadingError(_)) => return Ok(Look::NoDriver),
        Err(
            error @ (NvmlError::DriverNotLoaded
            | NvmlError::LibraryNotFound
            | NvmlError::LibRmVersionMismatch),
        ) => return Ok(Look::Unusable(error.to_string())),
        Err(error) => return Err(error),
    };
    let (mut read, mut unread) = (Vec::new(), Vec::new());
    for index in 0..nvml.device_count()? {
        let device = nvml.device_by_index(index);
        match device.and_then(|device| Card::of(&device)) {
            Ok(card) => read.push(card),
            // The driver's own word for one that has fallen off the bus.
            Err(NvmlError::GpuLost) => {}
            Err(error) => unread.push(format!("accelerator {index}: {error}")),
        }
    }
    Ok(Look::Cards { read, unread })
}

/// The driver's library as this process keeps it open, for what is asked often. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Nvidia(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    library: PathBuf,
    opened: Mutex<Option<Option<Nvml>>>,
    /// Whether what is open knows of all that there is.
    is_old: AtomicBool,
}

impl Nvidia {
    /// One that is opened when it is first asked.
    pub(crate) fn new(library: &Path) -> Self {
        Self(Arc::new(Inner {
            library: library.to_owned(),
            opened: Mutex::default(),
            is_old: false.into(),
        }))
    }

    /// Has it opened anew before it is asked again: a library knows only what there was when it was opened.
    pub(crate) fn reopen(&self) {
        self.0.is_old.store(true, Ordering::Relaxed);
    }

    /// How busy each accelerator is, in percent, by its identifier. Blocks for a moment.
    pub(crate) fn busy(&self) -> BTreeMap<String, f64> {
        let mut opened = self.0.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.is_old.swap(false, Ordering::Relaxed) {
            *opened = None;
        }
        let open = || {
            Nvml::builder()
                .lib_path(self.0.library.as_os_str())
                .init()
                .ok()
        };
        let Some(nvml) = opened.get_or_insert_with(open) else {
            return BTreeMap::new();
        };
        let busy = |index| {
            let device = nvml.device_by_index(index).ok()?;
            let percent = f64::from(device.utilization_rates().ok()?.gpu);
            Some((device.uuid().ok()?, percent))
        };
        let count = nvml.device_count().unwrap_or(0);
        (0..count).filter_map(busy).collect()
    }
}

#[cfg(test)]
#[path = "../../tests/agent/support/driver.rs"]
mod driver;

#[cfg(test)]
mod tests {
    use super::driver::Driver;
    use super::*;

    fn look_at(driver: &Driver) -> Look {
        look(driver.library().as_os_str()).unwrap()
    }

    fn cards(look: Look) -> (Vec<Card>, Vec<String>) {
        match look {
            Look::Cards { read, unread } => (read, unread),
            other @ (Look::NoDriver | Look::Unusable(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_drivers_cards_are_told_by_their_identifiers_and_nominal_sizes() {
        let driver = Driver::finding("HHL");
        let uuids = driver.uuids();
        let (read, unread) = cards(look_at(&driver));
        let gpus: Vec<Gpu> = read.iter().map(Card::gpu).collect();
        let told: Vec<_> = gpus
            .iter()
            .map(|gpu| {
                (
                    &*gpu.uuid,
                    &*gpu.name,
                    gpu.memory_mib,
                    &*gpu.compute_capability,
                )
            })
            .collect();
        let expected = [
            (&*uuids[0], "H100", 81_920, "9.0"),
            (&*uuids[1], "A100-80GB", 81_920, "8.0"),
        ];
        assert_eq!(told, expected);
        assert_eq!(unread, [""; 0], "one that is lost is not there");
        for gpu in &gpus {
            assert_eq!(gpu.vendor(), GpuVendor::Nvidia);
            assert!(!gpu.simulated && gpu.product_name.starts_with("NVIDIA "));
        }
    }

    #[test]
    fn a_lost_card_is_told_from_one_that_cannot_be_read() {
        let driver = Driver::finding("HMU");
        let (read, unread) = cards(look_at(&driver));
        assert_eq!(read.len(), 1);
        assert_eq!(
            unread,
            ["accelerator 2: an internal driver error occurred"],
            "the one that only its memory tells of is lost"
        );
        driver.find("--H");
        let (read, unread) = cards(look_at(&driver));
        assert_eq!((&read[0].uuid, unread.len()), (&driver.uuids()[2], 0));
        driver.find("");
        assert_eq!(cards(look_at(&driver)), (vec![], vec![]));
    }

    #[test]
    fn a_driver_that_no_program_can_use_is_told_from_none() {
        let driver = Driver::finding("!HH");
        let Look::Unusable(why) = look_at(&driver) else {
            panic!("it is of another version");
        };
        assert!(why.contains("version mismatch"), "{why}");
        assert_eq!(look("libnone-such.so.1".as_ref()).unwrap(), Look::NoDriver);
    }

    #[test]
    fn use_is_told_of_what_there_was_when_the_library_was_opened_last() {
        let driver = Driver::finding("HHM");
        let [first, second, third] = &driver.uuids();
        let nvidia = Nvidia::new(&driver.library());
        let busy = |percents: &[(&str, f64)]| -> BTreeMap<String, f64> {
            let each = percents.iter();
            each.map(|(uuid, use_)| ((*uuid).to_owned(), *use_))
                .collect()
        };
        let both = busy(&[(first, 93.0), (second, 7.0)]);
        assert_eq!(nvidia.busy(), both);
        driver.find("-HH");
        assert_eq!(nvidia.busy(), both);
        nvidia.reopen();
        let now = busy(&[(second, 7.0), (third, 7.0)]);
        assert_eq!(nvidia.busy(), now);
        let none = Nvidia::new("libnone-such.so.1".as_ref());
        assert!(none.busy().is_empty());
    }
}
