//! Holds the table of accelerators against real price catalogues, where they are at hand.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use muster_model::gpu;
use std::collections::BTreeSet;
use std::path::Path;

/// Each distinct value of the column `AcceleratorName`. No name has a comma; text behind a
/// quoted comma does not matter, since the column stands before every quoted one.
fn accelerator_names(file: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines = text.lines();
    let column = lines
        .next()
        .unwrap()
        .split(',')
        .position(|name| name == "AcceleratorName")
        .unwrap();
    let names = lines.filter_map(|line| line.split(',').nth(column));
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_accelerator_of_the_catalogues_is_known() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/catalog");
    let Ok(clouds) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: there are no catalogues in {}", folder.display());
        return;
    };
    let files: Vec<_> = clouds
        .map(|cloud| cloud.unwrap().path().join("vms.csv"))
        .filter(|file| file.exists())
        .collect();
    assert!(!files.is_empty(), "no catalogue in {}", folder.display());
    let names: BTreeSet<String> = files
        .iter()
        .flat_map(|file| accelerator_names(file))
        .collect();
    let unknown: Vec<&String> = names
        .iter()
        .filter(|name| gpu::lookup(name).is_none())
        .collect();
    assert_eq!(unknown, Vec::<&String>::new(), "of {} names", names.len());
}
