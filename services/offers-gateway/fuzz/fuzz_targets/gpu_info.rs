//! Reads any text as a GpuInfo, and makes sense of whatever size it tells.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offers_gateway::domain::gpu_info::{self, Sizes};

fuzz_target!(|text: &str| {
    let told = gpu_info::parse(text);
    let (size, count) = (told.size.unwrap_or_default(), told.count.unwrap_or(1));
    let mut sizes = Sizes::default();
    for name in ["H100", "A100", text] {
        sizes.observe(name, count, size);
        assert!(sizes.of_one(name, count, size) <= size);
    }
});
