//! Generates the Rust of every package below this folder. The compiler is
//! protox, so that building needs no protoc.

use std::{env, error::Error, fs, path::Path, path::PathBuf};

use prost::Message as _;
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut files = Vec::new();
    for package in ["grpc", "muster"] {
        println!("cargo:rerun-if-changed={package}");
        collect(&root.join(package), &mut files)?;
    }
    files.sort();
    let descriptors = protox::compile(&files, [&root])?;
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    fs::write(out.join("methods.rs"), methods(&descriptors))?;
    // Names let a message find its descriptor again, for JSON.
    let mut config = prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .btree_map(".")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

/// The methods of every service, as the value of a constant.
fn methods(descriptors: &FileDescriptorSet) -> String {
    let mut text = String::from("&[\n");
    for file in &descriptors.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            for method in &service.method {
                let path = format!("/{name}/{}", method.name());
                let streams = method.client_streaming() || method.server_streaming();
                text += &format!("    Method {{ path: {path:?}, streams: {streams} }},\n");
            }
        }
    }
    text + "]\n"
}

/// Adds every `.proto` file below `folder`.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|end| end == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
