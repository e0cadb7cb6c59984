//! NVIDIA's accelerators, as the driver's own library (NVML) tells of them. Where there is no driver there are
//! none; one that cannot be read is left out, and said.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use muster_model::gpu;
use muster_proto::types::v1::{Gpu, GpuVendor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use tokio::time::timeout;

/// The library's name as the driver installs it; without the number it is only there with headers.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// A driver that is started by this may take seconds; one that hangs is as if it were not there.
const OPENS_WITHIN: Duration = Duration::from_secs(30);

/// The driver's library, if there is one. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nvidia(Option<Arc<Nvml>>);

impl Nvidia {
    /// Opens the driver's library.
    pub(crate) async fn open() -> Self {
        let opening = tokio::task::spawn_blocking(|| Self::load(LIBRARY.as_ref()));
        match timeout(OPENS_WITHIN, opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("NVIDIA's driver does not answer; no accelerator is registered");
                Self::default()
            }
        }
    }

    /// Opens a library; none where it is not there or has no driver to talk to.
    fn load(library: &OsStr) -> Self {
        match Nvml::builder().lib_path(library).init() {
            Ok(nvml) => Self(Some(Arc::new(nvml))),
            Err(NvmlError::LibloadingError(error)) => {
                tracing::debug!(%error, "no NVIDIA driver");
                Self(None)
            }
            Err(error) => {
                tracing::warn!(%error, "NVIDIA's driver cannot be used; no accelerator is registered");
                Self(None)
            }
        }
    }

    /// Every accelerator, in the driver's order.
    pub(crate) fn gpus(&self) -> Vec<Gpu> {
        self.each(gpu)
    }

    /// How busy each accelerator is, in percent, by its identifier. Blocks for a moment.
    pub(crate) fn busy(&self) -> BTreeMap<String, f64> {
        let busy = |device: &Device<'_>| {
            let percent = f64::from(device.utilization_rates()?.gpu);
            Ok((device.uuid()?, percent))
        };
        self.each(busy).into_iter().collect()
    }

    fn each<T>(&self, read: impl Fn(&Device<'_>) -> Result<T, NvmlError>) -> Vec<T> {
        let Some(nvml) = &self.0 else {
            return Vec::new();
        };
        let count = nvml.device_count().unwrap_or_else(|error| {
            tracing::warn!(%error, "accelerators cannot be counted");
            0
        });
        let one = |index| {
            let device = nvml.device_by_index(index);
            device
                .and_then(|device| read(&device))
                .inspect_err(|error| tracing::warn!(index, %error, "an accelerator cannot be read"))
                .ok()
        };
        (0..count).filter_map(one).collect()
    }
}

fn gpu(device: &Device<'_>) -> Result<Gpu, NvmlError> {
    let product_name = device.name()?;
    // Drivers of before 2022 do not tell it in a way that is asked for; the product's name has to do.
    let memory = device.memory_info().ok();
    let read_mib = memory.and_then(|memory| u32::try_from(memory.total >> 20).ok());
    let (name, memory) = gpu::identify(&product_name, read_mib);
    let capability = device.cuda_compute_capability();
    Ok(Gpu {
        uuid: device.uuid()?,
        name: name.as_str().to_owned(),
        vendor: GpuVendor::Nvidia.into(),
        memory_mib: memory.and_then(|mib| i32::try_from(mib).ok()).unwrap_or(0),
        product_name,
        compute_capability: capability
            .map(|version| format!("{}.{}", version.major, version.minor))
            .unwrap_or_default(),
        simulated: false,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    /// A driver's library that knows two cards and cannot read a third.
    const DRIVER: &str = r#"
#include <stdio.h>
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory;
typedef struct { unsigned int gpu, memory; } rates;
static int at[3] = {0, 1, 2};
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    *device = &at[index];
    return index == 2 ? 15 /* the card has fallen off the bus */ : 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned int length) {
    snprintf(name, length, *(int *)device ? "NVIDIA A100-SXM4-80GB" : "NVIDIA H100 80GB HBM3");
    return 0;
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-0000000%d", *(int *)device);
    return 0;
}
int nvmlDeviceGetMemoryInfo_v2(void *device, memory *info) {
    info->total = 81559ULL << 20;
    return 0;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    *major = *(int *)device ? 8 : 9;
    *minor = 0;
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, rates *use) {
    use->gpu = *(int *)device ? 7 : 93;
    use->memory = 0;
    return 0;
}
"#;

    /// Builds the library; the system's own C compiler is there wherever this is built.
    fn driver(folder: &std::path::Path) -> PathBuf {
        let (source, library) = (folder.join("driver.c"), folder.join("driver.so"));
        std::fs::write(&source, DRIVER).unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(&source)
            .status();
        assert!(built.unwrap().success());
        library
    }

    #[test]
    fn the_drivers_cards_are_told_by_their_identifiers_and_nominal_sizes() {
        let folder = tempfile::tempdir().unwrap();
        let nvidia = Nvidia::load(driver(folder.path()).as_os_str());
        let gpus = nvidia.gpus();
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
        // What cannot be read is left out, and the others are not.
        let expected = [
            ("GPU-00000000", "H100", 81_920, "9.0"),
            ("GPU-00000001", "A100-80GB", 81_920, "8.0"),
        ];
        assert_eq!(told, expected);
        for gpu in &gpus {
            assert_eq!(gpu.vendor(), GpuVendor::Nvidia);
            assert!(!gpu.simulated && gpu.product_name.starts_with("NVIDIA "));
        }
        let busy = nvidia.busy().into_iter();
        let busy: Vec<_> = busy.collect();
        let expected = [("GPU-00000000", 93.0), ("GPU-00000001", 7.0)];
        assert_eq!(busy, expected.map(|(uuid, use_)| (uuid.to_owned(), use_)));
    }

    #[test]
    fn without_a_driver_there_are_none() {
        let nvidia = Nvidia::load("libnone-such.so.1".as_ref());
        assert!(nvidia.gpus().is_empty() && nvidia.busy().is_empty());
    }
}
