//! Finds the commit that is built, for `muster --version`: what `MUSTER_COMMIT` says, else where the
//! repository's HEAD is, else none. It is run again only when either has changed, and this package
//! alone is built again for it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// How much of a commit's name is shown.
const SHOWN: usize = 12;

fn main() {
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MUSTER_COMMIT");
    let told = env::var("MUSTER_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty());
    let commit = told.or_else(|| folder.ancestors().find_map(head));
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let shown = match commit
        .as_deref()
        .and_then(|commit| commit.get(..SHOWN).or(Some(commit)))
    {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    };
    println!("cargo:rustc-env=MUSTER_LONG_VERSION={shown}");
}

/// The commit of the repository whose tree has its root in `folder`, if there is one.
fn head(folder: &Path) -> Option<String> {
    let own = repository(&folder.join(".git"))?;
    let head = own.join("HEAD");
    let text = fs::read_to_string(&head).ok()?;
    // The log gets a line whenever HEAD comes to stand elsewhere, by a commit or a checkout.
    for file in [head, own.join("logs/HEAD")] {
        if file.exists() {
            println!("cargo:rerun-if-changed={}", file.display());
        }
    }
    match text.trim().strip_prefix("ref: ") {
        Some(name) => resolve(&own, name),
        None => Some(text.trim().to_owned()),
    }
}

/// Where the repository is: the folder `.git`, or the one that a file of this name leads to.
fn repository(git: &Path) -> Option<PathBuf> {
    if git.is_dir() {
        return Some(git.to_owned());
    }
    let text = fs::read_to_string(git).ok()?;
    let path = text.trim().strip_prefix("gitdir: ")?;
    Some(git.parent()?.join(path))
}

/// The commit that a reference names, alone in its file or among those packed together.
fn resolve(own: &Path, name: &str) -> Option<String> {
    let common = fs::read_to_string(own.join("commondir"));
    let common = common.map_or_else(|_| own.to_owned(), |path| own.join(path.trim()));
    if let Ok(commit) = fs::read_to_string(common.join(name)) {
        return Some(commit.trim().to_owned());
    }
    let packed = fs::read_to_string(common.join("packed-refs")).ok()?;
    let line = packed
        .lines()
        .find(|line| line.ends_with(&format!(" {name}")))?;
    line.split(' ').next().map(str::to_owned)
}
