"""Runs the programs of docs/clients against `muster up`, each through a connection that breaks under its watch.

Usage: examples.py PATH-OF-MUSTER [python] [typescript]

Python needs the packages of tests/python/requirements.txt, TypeScript those of docs/clients/typescript
(`npm ci`), and both `buf`. Clients are generated as docs/clients/README.md says.
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from run import ADDRESSES, wait_serving

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "docs" / "clients"
TYPESCRIPT = CLIENTS / "typescript"
# How long a program may take on a loaded machine.
PATIENCE = 300


class Proxy:
    """Passes connections on to a server, until they are cut."""

    def __init__(self, target: str):
        host, port = target.split(":")
        self.target = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.target)
            except OSError:
                return
            self.open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            close(one)

    def cut(self):
        """Ends every connection as a failing network does."""
        for one in self.open:
            close(one)
        self.open = []


def close(one: socket.socket):
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def generate(out: pathlib.Path, language: str) -> None:
    """Generates a language's client into `out`, by its file alone: nobody has what all the others need."""
    command = ["buf", "generate", "--template", f"docs/clients/{language}.gen.yaml", "--output", str(out)]
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PATH": path})


class Stack:
    """`muster up` and its command line."""

    def __init__(self, muster: pathlib.Path, folder: pathlib.Path):
        self.path = muster
        command = [str(muster), "up", "--data", str(folder / "data"), "--workers", "2", "--gpus", "H100:8"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def muster(self, *words: str) -> str:
        done = subprocess.run([str(self.path), *words], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"muster {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def until_empty(self) -> None:
        """Waits until the service that the program deleted is gone."""
        for _ in range(PATIENCE * 5):
            if not self.muster("services", "-o", "name").strip():
                return
            time.sleep(0.2)
        raise SystemExit("a service is still there")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SystemExit("muster up did not stop") from None
        if code != 0:
            raise SystemExit(f"muster up ended with {code}")


def play(name: str, command: list[str], stack: Stack, environment: dict) -> None:
    """Runs a program. Its service finds no worker before the connection under its watch was cut."""
    proxy = Proxy(ADDRESSES[2])
    for worker in ("w1", "w2"):
        stack.muster("disable", worker, "--reason", "nothing is to be placed yet")
    environment = {**os.environ, **environment, "OFFERS": ADDRESSES[0], "WORKERS": ADDRESSES[1], "REPLICAS": proxy.address}
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    watchdog = threading.Timer(PATIENCE, program.kill)
    watchdog.start()
    said = []
    try:
        for line in program.stdout:
            said.append(line.rstrip())
            print(f"  {line.rstrip()}", flush=True)
            if " is " in line and "PENDING" in line and not broke(said):
                proxy.cut()
            if line.startswith("the watch broke") and len(broke(said)) == 1:
                for worker in ("w1", "w2"):
                    stack.muster("enable", worker)
        code = program.wait()
    finally:
        watchdog.cancel()
        program.kill()
        proxy.listener.close()
    check(name, said, code)
    stack.until_empty()


def broke(said: list[str]) -> list[str]:
    return [line for line in said if line.startswith("the watch broke")]


def check(name: str, said: list[str], code: int) -> None:
    """That the program said all that it is there to show, in order."""
    wanted = [
        "offer ",
        "too late: DEADLINE_EXCEEDED",
        "refused: INVALID_ARGUMENT",
        "applied hello-",
        "SERVICE_PHASE_PENDING",
        "the watch broke (",
        "SERVICE_PHASE_HEALTHY",
        "WORKER_STATE_DRAINING, 1 left",
        "WORKER_STATE_DISABLED, 0 left",
        "done",
    ]
    rest = iter(said)
    for part in wanted:
        if not any(part in line for line in rest):
            raise SystemExit(f"{name} ended with {code} and did not say {part!r}, or not in its place")
    [refused] = [line for line in said if line.startswith("refused: ")]
    for part in ("reason INVALID_FIELD", "spec.name: ", "spec.replicas.min: "):
        if part not in refused:
            raise SystemExit(f"{name}: {part!r} is not in {refused!r}")
    if code != 0:
        raise SystemExit(f"{name} ended with {code}")
    print(f"{name}: passed", flush=True)


def python(folder: pathlib.Path) -> dict:
    """Each program in Python, as a command and its environment."""
    generate(folder, "python")
    paths = {"PYTHONPATH": str(folder / "gen" / "python"), "PYTHONDONTWRITEBYTECODE": "1"}
    programs = ("sync_client.py", "async_client.py")
    return {program: ([sys.executable, str(CLIENTS / "python" / program)], paths) for program in programs}


def typescript(folder: pathlib.Path) -> dict:
    """The program in TypeScript, compiled."""
    generate(folder, "typescript")
    place = folder / TYPESCRIPT.relative_to(ROOT)
    for name in ("src", "package.json", "tsconfig.json", "node_modules"):
        (place / name).symlink_to(TYPESCRIPT / name)
    # Links are kept, so that what is generated is found beside what uses it.
    options = ["--preserveSymlinks", "true"]
    subprocess.run(["node", "node_modules/typescript/bin/tsc", *options], cwd=place, check=True)
    return {"client.ts": (["node", str(place / "dist" / "src" / "client.js")], {})}


def main() -> int:
    muster = pathlib.Path(sys.argv[1]).resolve()
    languages = {"python": python, "typescript": typescript}
    chosen = sys.argv[2:] or list(languages)
    for language in chosen:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            programs = languages[language](folder)
            stack = Stack(muster, folder)
            try:
                for address in ADDRESSES:
                    wait_serving(address, stack.process, 60)
                for program, (command, environment) in programs.items():
                    print(f"{program}:", flush=True)
                    play(program, command, stack, environment)
            finally:
                stack.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
