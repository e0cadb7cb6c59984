"""Writes docs/reference from what the programs, the contract and the sources say, or holds it against them.

Usage: run.py [--write] PATH-OF-MUSTER

Without --write it fails with what differs, and says what to do.
"""

import contextlib
import difflib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from words import EVENTS, HEALTH

ROOT = pathlib.Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
MADE = "<!-- Made by tests/reference/run.py. Change what it is made from, and run it with --write. -->\n"
PROGRAMS = ["offers-gateway", "worker-registry", "replica-manager", "worker-agent"]
# Where the kinds of events stand, by component.
EVENT_SOURCES = {
    "worker-registry": ["services/worker-registry/src/domain/event.rs", "services/worker-registry/src/domain/decide"],
    "replica-manager": ["services/replica-manager/src/domain/events", "services/replica-manager/src/domain/events.rs"],
}


class Program:
    """One of the programs, by a link to muster with its name."""

    def __init__(self, muster: pathlib.Path, folder: pathlib.Path, name: str):
        self.path = muster
        if name != "muster":
            self.path = folder / name
            self.path.symlink_to(muster)
        # Help shows what variables are set to.
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("MUSTER_")}

    def help(self, *words: str) -> str:
        done = subprocess.run([self.path, *words, "--help"], capture_output=True, text=True, check=True, env=self.environment)
        return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def commands(text: str) -> list[str]:
    """The commands that a help names."""
    if "Commands:" not in text:
        return []
    block = text.split("Commands:\n")[1].split("\n\n")[0]
    found = re.findall(r"^  ([a-z][a-z-]*)", block, re.MULTILINE)
    return [name for name in found if name != "help"]


def own_part(text: str, common: set[str]) -> str:
    """A command's help without the flags that every command has."""
    text = text.split("\nOptions of every command:")[0]
    kept = [block for block in flag_blocks(text) if block.split()[0:2] and first_flag(block) not in common]
    return "".join(kept).rstrip()


def first_flag(block: str) -> str:
    match = re.search(r"--[a-z-]+", block.split("\n")[0])
    return match.group() if match else block


def flag_blocks(text: str) -> list[str]:
    """A help, cut before each flag."""
    return re.split(r"(?m)^(?=  (?:-\w, |    )--)", text + "\n")


def flags(muster: Program, others: dict[str, Program]) -> str:
    parts = [MADE, "# Commands and flags\n"]
    parts.append("Every flag of a component has an environment twin: `--ops-listen` is `MUSTER_OPS_LISTEN`, and stands")
    parts.append("in its TOML file as `ops_listen`. The flag wins over the environment, that over the file.\n")
    whole = muster.help()
    parts += ["## muster\n", f"```text\n{whole}\n```\n"]
    common = {first_flag(block) for block in flag_blocks(whole)[1:]} - {"--version"}

    def describe(way: list[str]) -> None:
        text = muster.help(*way)
        inner = commands(text)
        parts.append(f"### muster {' '.join(way)}\n")
        parts.append(f"```text\n{own_part(text, common)}\n```\n")
        for name in inner:
            describe([*way, name])

    for name in commands(whole):
        describe([name])
    for name, program in others.items():
        parts += [f"## {name}\n", f"```text\n{program.help()}\n```\n"]
    return "\n".join(parts)


def descriptors() -> descriptor_pb2.FileDescriptorSet:
    proto = ROOT / "proto"
    known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(str(path) for path in (proto / "muster").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "set.bin")
        words = [f"-I{proto}", f"-I{known}", f"--descriptor_set_out={out}", "--include_source_info"]
        if protoc.main(["protoc", *words, *files]) != 0:
            raise SystemExit("the contract does not compile")
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def comment(file: descriptor_pb2.FileDescriptorProto, *path: int) -> str:
    for location in file.source_code_info.location:
        if list(location.path) == list(path):
            return " ".join(location.leading_comments.split())
    return ""


def calls(files: descriptor_pb2.FileDescriptorSet) -> str:
    parts = [MADE, "# Calls\n"]
    parts.append("Every call of the contract, and what it does. Requests and answers are described in [proto/](../../proto),")
    parts.append("field by field. A call that this version does not serve answers UNIMPLEMENTED with `NOT_IMPLEMENTED`.\n")
    for file in files.file:
        for place, service in enumerate(file.service):
            parts.append(f"## {file.package}.{service.name}\n")
            parts.append(comment(file, 6, place) + "\n")
            parts += ["| call | takes | answers | what it does |", "|---|---|---|---|"]
            for number, method in enumerate(service.method):
                asked, answer = (one.rsplit(".", 1)[1] for one in (method.input_type, method.output_type))
                answer = f"stream of {answer}" if method.server_streaming else answer
                asked = f"stream of {asked}" if method.client_streaming else asked
                parts.append(f"| {method.name} | {asked} | {answer} | {comment(file, 6, place, 2, number)} |")
            parts.append("")
    return "\n".join(parts)


def errors(files: descriptor_pb2.FileDescriptorSet) -> str:
    parts = [MADE, "# Error reasons\n"]
    parts.append("A failed call carries `google.rpc.ErrorInfo` with one of these as `reason` and the domain `muster.dev`.")
    parts.append("Messages are for people, and may change.\n")
    parts += ["| reason | code | when |", "|---|---|---|"]
    for file in files.file:
        for place, enum in enumerate(file.enum_type):
            if enum.name != "ErrorReason":
                continue
            for number, value in enumerate(enum.value):
                words = comment(file, 5, place, 2, number)
                code, _, when = words.rpartition(": ") if re.match(r"[A-Z_]+: ", words) is None else words.partition(": ")
                if value.number:
                    parts.append(f"| {value.name.removeprefix('ERROR_REASON_')} | {code} | {when or words} |")
    return "\n".join(parts) + "\n"


def kinds(component: str) -> list[str]:
    found = set()
    for name in EVENT_SOURCES[component]:
        path = ROOT / name
        for source in [path] if path.is_file() else sorted(path.rglob("*.rs")):
            if "tests" not in source.parts and source.name != "tests.rs":
                found |= set(re.findall(r'"((?:Worker|Accelerators|Drain|Allocation|Service|Replica|Update)(?:[A-Z][a-z]+)+)"', source.read_text()))
    return sorted(found)


def events() -> str:
    parts = [MADE, "# Events\n"]
    parts.append("What `muster events`, `ListEvents`, `ListWorkerEvents` and their watches tell. `kind` is one of these.\n")
    parts += ["| kind | of | what happened |", "|---|---|---|"]
    told = set()
    for component in EVENT_SOURCES:
        for kind in kinds(component):
            if kind not in EVENTS:
                raise SystemExit(f"tests/reference/words.py does not say what the event {kind} is")
            told.add(kind)
            parts.append(f"| {kind} | {component} | {EVENTS[kind]} |")
    if unknown := EVENTS.keys() - told:
        raise SystemExit(f"tests/reference/words.py describes events that there are not: {sorted(unknown)}")
    return "\n".join(parts) + "\n"


def keys(value, way: str = "") -> list[str]:
    """Every key of a JSON value, with its way; lists and maps of names by their values."""
    found = []
    if isinstance(value, dict) and way not in ("queues",):
        for key, inner in value.items():
            found += [f"{way}.{key}".lstrip("."), *keys(inner, f"{way}.{key}".lstrip("."))]
    if isinstance(value, list):
        for inner in value:
            found += keys(inner, f"{way}[]")
    return list(dict.fromkeys(found))


@contextlib.contextmanager
def running(program: Program):
    """A registry in memory; gives the address of its ops port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        ops = f"127.0.0.1:{probe.getsockname()[1]}"
    words = [program.path, "--listen=127.0.0.1:0", f"--ops-listen={ops}", "--store=memory:", "--log-filter=error"]
    process = subprocess.Popen(words, env=program.environment)
    try:
        yield ops
    finally:
        process.terminate()
        process.wait(60)


def ask(address: str) -> dict:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://{address}", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{address} does not answer")


def health(program: Program) -> str:
    parts = [MADE, "# Health\n", HEALTH["intro"]]
    with running(program) as ops:
        ask(f"{ops}/readyz")
        for path in ("/livez", "/readyz", "/version"):
            parts += [f"## {path}\n", HEALTH[path]["intro"], "| key | what it says |", "|---|---|"]
            described = HEALTH[path]["keys"]
            found = keys(ask(f"{ops}{path}"))
            if set(found) != described.keys():
                raise SystemExit(f"tests/reference/words.py and {path} differ in {sorted(set(found) ^ described.keys())}")
            parts += [f"| `{key}` | {described[key]} |" for key in found] + [""]
    return "\n".join(parts)


def pages(path: pathlib.Path) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        others = {one: Program(path, folder, one) for one in PROGRAMS}
        files = descriptors()
        return {
            "flags.md": flags(Program(path, folder, "muster"), others),
            "calls.md": calls(files),
            "errors.md": errors(files),
            "events.md": events(),
            "health.md": health(others["worker-registry"]),
        }


def main() -> int:
    write = "--write" in sys.argv
    [path] = [word for word in sys.argv[1:] if word != "--write"]
    stale = []
    for name, text in pages(pathlib.Path(path).resolve()).items():
        file = REFERENCE / name
        there = file.read_text() if file.exists() else ""
        if write:
            REFERENCE.mkdir(exist_ok=True)
            file.write_text(text)
        elif there != text:
            stale.append(name)
            sys.stdout.writelines(difflib.unified_diff(there.splitlines(True), text.splitlines(True), f"docs/reference/{name}", "as it is"))
    if stale:
        raise SystemExit(f"{', '.join(stale)}: not current; run tests/reference/run.py --write PATH-OF-MUSTER")
    print("docs/reference is written" if write else "docs/reference is current")
    return 0


if __name__ == "__main__":
    sys.exit(main())
