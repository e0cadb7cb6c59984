//! What every program says of its flags, in `--help` and `--print-config`, and its exit codes.

use std::{collections::BTreeMap, path::Path, process::Output};

use muster_tests::fleet;

const COMPONENTS: [&str; 4] = [
    "offers-gateway",
    "worker-registry",
    "replica-manager",
    "worker-agent",
];

/// Flags that say what to do once, and so are no settings.
const ONCE: [&str; 3] = ["help", "version", "print-config"];

fn run(name: &str, args: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_component"));
    let mut command = fleet::command(program, name);
    command.env("XDG_CONFIG_HOME", "/nowhere");
    command.args(args).output().unwrap()
}

fn said(name: &str, args: &[&str]) -> String {
    let output = run(name, args);
    assert_eq!(output.status.code(), Some(0), "{name} {args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What the help text says of each long flag, in one line.
fn flags(help: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut current = None;
    for line in help.lines() {
        let text = line.trim_start();
        let flag = text.strip_prefix("-").and_then(|_| {
            let (_, after) = text.split_once("--")?;
            let name = after.split([' ', '<', '[', '=']).next()?;
            // Words about other flags stand deeper.
            (line.len() - text.len() <= 6).then(|| name.to_owned())
        });
        current = flag.or(current);
        if let Some(name) = &current {
            let words = found.entry(name.clone()).or_default();
            words.push_str(text);
            words.push(' ');
        }
    }
    found
}

#[test]
fn every_setting_of_a_component_has_its_words_default_and_environment_name() {
    for name in COMPONENTS {
        let flags = flags(&said(name, &["--help"]));
        let config = said(name, &["--print-config"]);
        assert!(flags.len() > 20, "{name}: {flags:?}");
        for (flag, words) in flags
            .iter()
            .filter(|(flag, _)| !ONCE.contains(&flag.as_str()))
        {
            let id = flag.replace('-', "_");
            let variable = format!("[env: MUSTER_{}=", id.to_uppercase());
            assert!(words.contains(&variable), "{name} --{flag}: {words}");
            // What is set although nobody set it must have said so.
            let set = config
                .lines()
                .any(|line| line.starts_with(&format!("{id} = ")));
            let shown = words.contains("[default: ");
            let switch = !words.contains('<');
            assert!(
                shown || !set || switch || config.contains(&format!("{id} = \"\"")),
                "{name} --{flag} has a default that is not shown: {words}"
            );
            let known = set || config.contains(&format!("# {id} is not set")) || flag == "config";
            assert!(known, "{name} --print-config does not show {id}");
        }
    }
}

#[test]
fn printed_settings_lead_to_the_same_settings() {
    for name in COMPONENTS {
        let printed = said(name, &["--print-config", "--threads=3"]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, &printed).unwrap();
        let again = said(
            name,
            &["--print-config", "--config", file.to_str().unwrap()],
        );
        let values = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines
                .map(|line| line.split("  # ").next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(values(&printed), values(&again), "{name}");
    }
}

#[test]
fn every_flag_of_the_command_line_that_all_commands_take_has_an_environment_name() {
    let flags = flags(&said("muster", &["workers", "--help"]));
    let global = [
        "offers-addr",
        "workers-addr",
        "replicas-addr",
        "context",
        "ca",
        "cert",
        "key",
        "token-file",
        "output",
    ];
    for flag in global {
        let variable = format!("[env: MUSTER_{}=", flag.replace('-', "_").to_uppercase());
        assert!(flags[flag].contains(&variable), "--{flag}: {}", flags[flag]);
    }
    for flag in ["offers-addr", "workers-addr", "replicas-addr", "output"] {
        assert!(
            flags[flag].contains("[default: "),
            "--{flag}: {}",
            flags[flag]
        );
    }
}

#[test]
fn exit_codes_say_what_went_wrong() {
    for name in COMPONENTS {
        assert_eq!(run(name, &["--nonsense"]).status.code(), Some(2), "{name}");
        let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let listen = format!("--listen={}", taken.local_addr().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let data = format!("--data={}", folder.path().display());
        let args: &[&str] = match name {
            "worker-agent" | "offers-gateway" => &[&listen, "--ops-listen=off", &data],
            _ => &[&listen, "--ops-listen=off", "--store=memory:"],
        };
        assert_eq!(run(name, args).status.code(), Some(1), "{name}");
    }
    let nowhere = "--workers-addr=http://127.0.0.1:1";
    assert_eq!(run("muster", &["workers", nowhere]).status.code(), Some(3));
    assert_eq!(run("muster", &["workers", "--what"]).status.code(), Some(2));
    let odd = ["workers", "--workers-addr=nowhere"];
    assert_eq!(run("muster", &odd).status.code(), Some(2));
}
