//! The invariants of ARCHITECTURE.md that a program can check: who may know
//! whom, what a domain may not touch, and how the contract names its fields.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use prost::Message as _;
use prost_types::{FileDescriptorSet, field_descriptor_proto::Type};

const COMPONENTS: [&str; 4] = [
    "offers-gateway",
    "worker-registry",
    "replica-manager",
    "worker-agent",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn manifest(package: &str) -> toml::Table {
    let folder = match package {
        "proto" | "tests" => root().join(package),
        _ => root().join("services").join(package),
    };
    fs::read_to_string(folder.join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap()
}

/// The packages of this workspace that `package` needs outside its own tests.
fn needs(package: &str) -> BTreeSet<String> {
    let members = [
        "muster-proto",
        "muster-model",
        "muster-store",
        "muster-runtime",
        "offers-gateway",
        "worker-registry",
        "replica-manager",
        "worker-agent",
        "muster",
        "muster-tests",
    ];
    let manifest = manifest(package);
    ["dependencies", "build-dependencies"]
        .iter()
        .filter_map(|table| manifest.get(*table)?.as_table())
        .flat_map(|table| table.keys())
        .filter(|name| members.contains(&name.as_str()))
        .cloned()
        .collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn what_lies_below_knows_nothing_of_what_lies_above() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("proto", &[][..]),
        ("model", &[][..]),
        ("store", &[][..]),
        ("runtime", &["muster-proto", "muster-store"][..]),
    ]);
    for (package, allowed) in allowed {
        for need in needs(package) {
            assert!(
                allowed.contains(&need.as_str()),
                "{package} may not depend on {need}"
            );
        }
    }
}

#[test]
fn components_meet_on_the_wire_only() {
    for package in COMPONENTS {
        for need in needs(package) {
            assert!(
                !COMPONENTS.contains(&need.as_str()) && need != "muster",
                "{package} may not depend on {need}",
            );
        }
    }
}

#[test]
fn a_domain_is_pure() {
    let foreign = [
        "tokio",
        "tonic",
        "prost",
        "muster_proto",
        "muster_runtime",
        "muster_store",
        "Instant::now",
        "SystemTime::now",
        "std::fs",
        "std::net",
        "std::env",
        "getrandom",
        "std::process",
        "std::thread",
    ];
    let mut read = 0;
    let mut folders: Vec<PathBuf> = COMPONENTS
        .iter()
        .map(|package| root().join("services").join(package).join("src/domain"))
        .collect();
    folders.push(root().join("services/model/src"));
    for folder in folders {
        for source in sources(&folder) {
            read += 1;
            let text = fs::read_to_string(&source).unwrap();
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for word in foreign {
                    assert!(
                        !code.contains(word),
                        "{}:{}: a domain may not touch {word}",
                        source.display(),
                        number + 1,
                    );
                }
            }
        }
    }
    assert!(read > 20, "only {read} files of the domains were found");
}

#[test]
fn programs_only_start_their_library() {
    for package in COMPONENTS.iter().chain(&["muster"]) {
        let main = root().join("services").join(package).join("src/main.rs");
        let lines = fs::read_to_string(&main).unwrap().lines().count();
        assert!(
            lines <= 20,
            "{}: {lines} lines, more than 20",
            main.display()
        );
    }
}

/// What is generic, or an `async fn`, is compiled with whoever uses it: a component whose `main` or `serve` is one
/// would be compiled whole with each program that it is in.
#[test]
fn a_component_is_compiled_once() {
    for package in COMPONENTS {
        let folder = root().join("services").join(package);
        let main = fs::read_to_string(folder.join("src/main.rs")).unwrap();
        let own = format!("{}::main()", package.replace('-', "_"));
        assert!(main.contains(&own), "{package}: not only {own}");
        let files = sources(&folder.join("src"));
        let text = files.iter().map(|file| fs::read_to_string(file).unwrap());
        let all: String = text.collect();
        assert!(all.contains("pub fn serve("), "{package}: no `serve`");
        assert!(!all.contains("pub async fn serve("), "{package}: not boxed");
    }
}

/// Every source file of the packages that is not a test.
fn product() -> Vec<PathBuf> {
    let mut found = sources(&root().join("proto/src"));
    found.extend(sources(&root().join("tests/src")));
    for package in fs::read_dir(root().join("services")).unwrap() {
        found.extend(sources(&package.unwrap().path().join("src")));
    }
    let is_test = |path: &PathBuf| {
        let mut parts = path.components().rev().map(|part| part.as_os_str());
        parts.any(|part| part == "tests.rs" || part == "testing.rs") || in_tests_folder(path)
    };
    found.retain(|path| !is_test(path));
    assert!(found.len() > 200, "only {} files were found", found.len());
    found
}

/// Whether a file belongs to the tests of a module: `src/…/tests/….rs`.
fn in_tests_folder(path: &Path) -> bool {
    let inside = path.strip_prefix(root()).unwrap();
    let folders = inside.parent().unwrap().components().skip(2);
    folders
        .map(|part| part.as_os_str())
        .any(|part| part == "tests")
}

#[test]
fn every_file_says_what_it_is_for() {
    let says = |path: &PathBuf| fs::read_to_string(path).unwrap().starts_with("//!");
    let without: Vec<PathBuf> = product().into_iter().filter(|path| !says(path)).collect();
    assert!(
        without.is_empty(),
        "files that do not open with `//!`: {without:#?}"
    );
}

#[test]
fn no_module_is_named_after_its_folder() {
    for source in product() {
        assert!(
            !source.ends_with("mod.rs"),
            "{}: use foo.rs beside foo/",
            source.display()
        );
    }
}

/// Words that cannot name a field in one of the languages that people call
/// Muster from: Python, Rust, Go, Java, C# and TypeScript.
const KEYWORDS: &str = "
    False None True and as assert async await break class continue def del elif else except finally for from global
    if import in is lambda nonlocal not or pass raise return try while with yield
    abstract become box const crate do dyn enum extern false final fn gen impl let loop macro match mod move mut override
    priv pub ref self static struct super trait true type typeof unsafe unsized use virtual where
    chan case default defer fallthrough func go goto interface map package range select switch var
    boolean byte catch char double extends float implements instanceof int long native new private protected public
    short strictfp synchronized this throw throws transient void volatile
    base bool checked decimal delegate event explicit fixed foreach implicit internal is lock namespace null object
    operator out params readonly sbyte sealed sizeof stackalloc string uint ulong unchecked ushort using
    debugger delete export function
";

#[test]
fn no_field_is_named_by_a_keyword() {
    let keywords: BTreeSet<&str> = KEYWORDS.split_whitespace().collect();
    let files = FileDescriptorSet::decode(muster_proto::DESCRIPTORS).unwrap();
    let mut fields = 0;
    for file in files
        .file
        .iter()
        .filter(|file| file.package().starts_with("muster."))
    {
        for message in &file.message_type {
            for field in &message.field {
                fields += 1;
                let place = format!("{}.{}.{}", file.package(), message.name(), field.name());
                assert!(!keywords.contains(field.name()), "{place} is a keyword");
                if field.r#type() == Type::Message
                    && field.type_name() == ".google.protobuf.Timestamp"
                {
                    assert!(
                        field.name() == "time" || field.name().ends_with("_time"),
                        "{place} is a time: name it so"
                    );
                }
            }
        }
    }
    assert!(fields > 500, "only {fields} fields were found");
}

#[test]
fn every_call_has_messages_of_its_own() {
    let files = FileDescriptorSet::decode(muster_proto::DESCRIPTORS).unwrap();
    let mut calls = 0;
    for file in files
        .file
        .iter()
        .filter(|file| file.package().starts_with("muster."))
    {
        for service in &file.service {
            for method in &service.method {
                calls += 1;
                let name = format!(".{}.{}", file.package(), method.name());
                assert_eq!(method.input_type(), format!("{name}Request"));
                assert_eq!(method.output_type(), format!("{name}Response"));
            }
        }
    }
    assert!(calls > 70, "only {calls} calls were found");
}
