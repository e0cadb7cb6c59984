"""Follows docs/getting-started.md to the letter: each command has to succeed, and what the guide shows of its output
has to begin as it does here.

Usage: run.py PATH-OF-MUSTER

Building is left out, since it was done. `buf` has to be there; grpc_health_probe is muster by that name if it is not.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "getting-started.md"
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What the guide's replicas sleep, and what they sleep here: nothing else is killed with them.
SLEEP = ("sleep 3600", f"sleep {100_000 + os.getpid()}")
PATIENCE = 300


class Steps:
    """The guide's commands, each with what it shows of their output."""

    def __init__(self, text: str):
        self.steps = []
        for kind, body in BLOCK.findall(text.replace(*SLEEP)):
            if kind == "sh":
                self.steps.append([body, ""])
            else:
                self.steps[-1][1] = body

    def __iter__(self):
        return iter(self.steps)


def run(script: str, folder: pathlib.Path, environment: dict) -> str:
    # Not as an argument, where the guide's pkill would find what it looks for.
    words = ["bash", "-euo", "pipefail", "-s"]
    done = subprocess.run(
        words, input=script, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    if done.returncode != 0:
        raise SystemExit(f"the guide's command\n{script}ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def begins_alike(shown: str, output: str) -> bool:
    """Whether the first line of what is shown, a table's header or a message, is in the output."""
    first = " ".join(shown.splitlines()[0].split())
    return any(first == " ".join(line.split()) for line in output.splitlines())


def tools(muster: pathlib.Path, folder: pathlib.Path) -> dict:
    programs = folder / "bin"
    programs.mkdir()
    (programs / "muster").symlink_to(muster)
    if not shutil.which("grpc_health_probe"):
        (programs / "grpc_health_probe").symlink_to(muster)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    path = f"{programs}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**clean, "PATH": path, "XDG_CONFIG_HOME": str(folder / "config")}


def follow(steps: Steps, folder: pathlib.Path, environment: dict) -> None:
    stack = None
    try:
        for script, shown in steps:
            if "cargo build" in script:
                continue
            if script.startswith("muster up"):
                stack = subprocess.Popen(["bash", "-c", f"exec {script}"], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
                wait_ready(folder, environment)
                continue
            print("\n".join(f"  {line}" for line in script.splitlines()), flush=True)
            output = run(script, folder, environment)
            if shown and not begins_alike(shown, output):
                raise SystemExit(f"the guide shows\n{shown}and there was\n{output}")
    finally:
        if stack is not None:
            stack.send_signal(signal.SIGINT)
            code = stack.wait(PATIENCE)
    if code != 0:
        raise SystemExit(f"muster up ended with {code}")


def wait_ready(folder: pathlib.Path, environment: dict) -> None:
    """A reader takes longer to change terminals than the stack takes to start."""
    words = "muster health >/dev/null 2>&1 && test $(muster workers | grep -c ACTIVE) = 2"
    end = time.monotonic() + PATIENCE
    while subprocess.run(["bash", "-c", words], cwd=folder, env=environment).returncode != 0:
        if time.monotonic() > end:
            raise SystemExit("muster up does not start")
        time.sleep(0.2)


def main() -> int:
    muster = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        try:
            follow(Steps(GUIDE.read_text()), folder, tools(muster, folder))
        finally:
            # What runs outlives the stack, also when the guide does not hold.
            subprocess.run(["pkill", "-9", "-f", SLEEP[1]])
    print("the guide holds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
