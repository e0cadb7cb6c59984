use std::ffi::OsString;
use std::io::Write as _;

use super::*;
use crate::context::Context;
use crate::process::{Component, NoFile, Renewed};
use crate::server::Listeners;

/// A component with flags of its own.
#[derive(Debug)]
struct Sample;

#[derive(Debug, clap::Args)]
struct Own {
    /// Names
    #[arg(long)]
    label: Vec<String>,
    /// A required one
    #[arg(long)]
    data: PathBuf,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    backend: Vec<toml::Table>,
}

impl Component for Sample {
    const NAME: &'static str = "sample";
    const VERSION: &'static str = "1.2.3";
    const ABOUT: &'static str = "A sample";
    const DEFAULTS: &'static [(&'static str, &'static str)] = &[
        ("listen", "127.0.0.1:7400"),
        ("ops-listen", "127.0.0.1:7410"),
    ];
    type Args = Own;
    type File = File;
    type Config = ();

    fn configure(_: &CommonArgs, _: Own, _: File) -> Result<(), String> {
        Ok(())
    }

    async fn run((): (), _: Renewed<()>, _: Context, _: Listeners) -> anyhow::Result<()> {
        Ok(())
    }
}

fn parsed(words: &[&str]) -> Result<Parsed<Sample>, clap::Error> {
    let words: Vec<OsString> = std::iter::once("sample")
        .chain(words.iter().copied())
        .map(OsString::from)
        .collect();
    parse::<Sample>(&words)
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn defaults_are_the_components() {
    let parsed = parsed(&["--data", "/d"]).unwrap();
    assert_eq!(parsed.common.listen, "127.0.0.1:7400".parse().unwrap());
    assert_eq!(parsed.common.ops_listen.to_string(), "127.0.0.1:7410");
    assert_eq!(parsed.common.threads, 2);
    assert_eq!(parsed.own.data, PathBuf::from("/d"));
}

#[test]
fn the_file_gives_flags_lists_and_sections_and_flags_win() {
    let file = file(
        r#"
        listen = "0.0.0.0:1"
        insecure = true
        threads = 4
        label = ["a=1", "b=2"]
        data = "/from/file"
        [[auth]]
        name = "alice"
        role = "admin"
        san = "alice.example.org"
        [[backend]]
        kind = "x"
        "#,
    );
    let path = file.path().to_str().unwrap();
    let parsed = parsed(&["--config", path, "--threads", "8"]).unwrap();
    assert_eq!(parsed.common.listen, "0.0.0.0:1".parse().unwrap());
    assert!(parsed.common.insecure);
    assert_eq!(parsed.common.threads, 8);
    assert_eq!(parsed.own.label, ["a=1", "b=2"]);
    assert_eq!(parsed.own.data, PathBuf::from("/from/file"));
    assert_eq!(parsed.file.backend.len(), 1);
    assert_eq!(parsed.auth[0].name, "alice");
}

#[test]
fn wrong_files_and_values_are_usage_errors() {
    let unknown = file("colour = \"red\"");
    let broken = file("listen = ");
    let bad_value = file("listen = \"nowhere\"");
    let bad_role = file("[[auth]]\nname = \"a\"\nrole = \"king\"\nsan = \"x\"");
    for (file, words) in [
        (&bad_role, "king"),
        (&unknown, "colour"),
        (&broken, "config file"),
        (&bad_value, "listen: "),
    ] {
        let error =
            parsed(&["--data", "/d", "--config", file.path().to_str().unwrap()]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(words), "{error}");
    }
    for args in [
        &["--data", "/d", "--config", "/nowhere"][..],
        &["--tls", "maybe"],
        &["--nope"],
        &[],
    ] {
        assert_eq!(parsed(args).unwrap_err().exit_code(), 2, "{args:?}");
    }
}

/// What is said of a file, without where the file is.
fn said_of(text: &str) -> String {
    let file = file(text);
    let path = file.path().to_str().unwrap();
    let error = parsed(&["--data", "/d", "--config", path]).unwrap_err();
    let said = error.to_string();
    let line = said.lines().next().unwrap();
    let place = format!("error: config file {path}: ");
    line.strip_prefix(&place)
        .unwrap_or_else(|| panic!("{place:?} is not in {said}"))
        .to_owned()
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_line() {
    let entry = |line: &str| {
        format!(
            "threads = 4\n\n[[auth]]\nname = \"a\"\nrole = \"viewer\"\nsan = \"x\"\n\n\
             [[auth]]\nname = \"b\"\n{line}\nsan = \"y\"\n"
        )
    };
    for (text, expected) in [
        (
            "threads = 4\n\ncolour = \"red\"\n".to_owned(),
            "line 3: unknown field `colour`",
        ),
        ("threads = 4\nlisten = ".to_owned(), "line 2: not TOML: "),
        (
            "\nthreads = \"many\"".to_owned(),
            "line 2: threads: invalid digit",
        ),
        (
            "tls = \"maybe\"".to_owned(),
            "line 1: tls: there are off, optional, required",
        ),
        (
            "\n\nlame_duck = \"1\"".to_owned(),
            "line 3: lame_duck: \"1\" is no time",
        ),
        (
            "\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]".to_owned(),
            "line 2: listen: takes one value, not a list",
        ),
        (
            entry("role = \"king\""),
            "line 8: [[auth]] \"b\": unknown role \"king\"",
        ),
        (
            entry("roll = \"viewer\""),
            "line 8: [[auth]] unknown field `roll`",
        ),
        ("\nauth = 3".to_owned(), "line 2: [[auth]] invalid type"),
        (
            "backend = 3".to_owned(),
            "line 1: invalid type: integer `3`",
        ),
    ] {
        let said = said_of(&text);
        assert!(said.starts_with(expected), "{text}: {said}");
    }
}

#[test]
fn a_flag_that_is_wrong_is_not_taken_for_the_file() {
    let file = file("threads = 4");
    let path = file.path().to_str().unwrap();
    let words = ["--data", "/d", "--config", path, "--threads", "many"];
    let said = parsed(&words).unwrap_err().to_string();
    assert!(said.starts_with("error: invalid value 'many'"), "{said}");
}

#[test]
fn what_is_said_of_a_file_holds_nothing_of_its_lines() {
    let said = said_of("threads = 4\ntoken = \"hush");
    assert!(!said.contains("hush"), "{said}");
    let file = file("threads = 4\ntoken = \"hush");
    let path = file.path().to_str().unwrap();
    let whole = parsed(&["--data", "/d", "--config", path]).unwrap_err();
    assert!(!whole.to_string().contains("hush"), "{whole}");
}

#[test]
fn every_flag_has_an_environment_twin_and_help() {
    use clap::CommandFactory as _;
    #[derive(clap::Parser)]
    struct Bare {
        #[command(flatten)]
        _common: CommonArgs,
    }
    let bare = Bare::command();
    assert!(bare.get_arguments().all(|arg| arg.get_help().is_some()));
    let help = parsed(&["--help"]).unwrap_err().to_string();
    for twin in [
        "MUSTER_OPS_LISTEN",
        "MUSTER_LABEL",
        "MUSTER_TLS_CLIENT_CA",
        "MUSTER_CONFIG",
    ] {
        assert!(help.contains(twin), "{twin} in {help}");
    }
    assert!(!help.contains("MUSTER_PRINT_CONFIG"));
}

#[test]
fn what_is_printed_leads_to_the_same_settings() {
    let printed = parsed(&[
        "--data",
        "/d",
        "--label",
        "a=1",
        "--listen",
        "[::1]:9",
        "--print-config",
    ])
    .unwrap();
    assert!(
        printed.shown.contains("listen = \"[::1]:9\"  # flag"),
        "{}",
        printed.shown
    );
    let file = file(&printed.shown);
    let again = parsed(&["--config", file.path().to_str().unwrap()]).unwrap();
    assert_eq!(again.common.listen, printed.common.listen);
    assert_eq!(again.own.label, printed.own.label);
    assert_eq!(again.common.ops_listen, printed.common.ops_listen);
    assert!(
        again.shown.contains("listen = \"[::1]:9\"  # file"),
        "{}",
        again.shown
    );
    assert!(
        printed.shown.contains("threads = \"2\"  # default"),
        "{}",
        printed.shown
    );
    assert_eq!(again.common.max_deadline, printed.common.max_deadline);
}

#[test]
fn nothing_but_flags_is_a_file_too() {
    let nothing: NoFile = toml::Table::new().try_into().unwrap();
    let _ = nothing;
}

#[test]
fn what_is_printed_holds_no_secrets() {
    let file = file(
        "[[backend]]\nname = \"a\"\nkey = \"hush1\"\nkey_env = \"A_KEY\"\n\
         url = \"https://me:hush2@host/vms.csv?signature=hush3\"\n\
         address = \"http://host:9000\"\n",
    );
    let path = file.path().to_str().unwrap();
    let shown = parsed(&["--data", "/d", "--config", path]).unwrap().shown;
    assert!(!shown.contains("hush"), "{shown}");
    for kept in ["A_KEY", "https://***@host/vms.csv?***", "http://host:9000"] {
        assert!(shown.contains(kept), "{kept} is not in {shown}");
    }
    for store in [
        "etcd:https://me:hu@sh@a:1,b:2/prefix?ca=/ca.pem",
        "etcd:https://me:hu/sh@a:1,b:2/prefix?ca=/ca.pem",
    ] {
        let shown = parsed(&["--data", store]).unwrap().shown;
        assert!(
            shown.contains("\"etcd:https://***@a:1,b:2/prefix?ca=/ca.pem\""),
            "{shown}"
        );
    }
}
