"""Runs the worker-agent's tests of control groups where the kernel keeps limits: on this machine if it has the unified
hierarchy (cgroup v2) and lets us write it, else in a small virtual machine with a kernel of Debian's.

Usage: run.py [--install] [FLAGS OF cargo test]

The flags say which build the tests are of, so that what an earlier step has built is used. With --install, qemu and
busybox are taken from Debian's packages, and the kernel is fetched into target/ and not installed. Prints SKIPPED and
why where there is neither such a hierarchy nor a virtual machine.
"""

import json
import os
import pathlib
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
GROUPS = pathlib.Path("/sys/fs/cgroup")
# The program of the agent's tests, and those of them that are of control groups.
TEST = "agent"
MODULE = "cgroups::"
PACKAGES = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static"}
KERNEL = "linux-image-cloud-amd64"
QEMU = "qemu-system-x86_64 -nodefaults -no-reboot -display none -serial stdio -m 1024 -smp 2 -accel tcg,thread=multi -cpu Nehalem"
# Without any acceleration, on a busy machine.
PATIENCE = 300

# Says its exit code on the console, and ends the machine.
INIT = """#!/bin/sh
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up
%s %s --test-threads 2 --nocapture
echo "tests: ended with $?"
poweroff -f
"""


class Skipped(Exception):
    pass


def say(words):
    print(f"cgroups: {words}", flush=True)


def run(*words, **more):
    return subprocess.run([str(word) for word in words], check=True, text=True, stdout=subprocess.PIPE, **more).stdout


def build(flags):
    """The test's program, and the agent's, which the test calls where it was built."""
    found = {}
    command = ["cargo", "test", "--no-run", "--message-format=json-render-diagnostics", "--test", TEST, *flags]
    for line in run(*command, cwd=ROOT).splitlines():
        artifact = json.loads(line)
        if artifact["reason"] == "compiler-artifact" and artifact.get("executable"):
            # The agent has tests of its own program too.
            if artifact["profile"]["test"] == (artifact["target"]["name"] == TEST):
                found[artifact["target"]["name"]] = pathlib.Path(artifact["executable"])
    return found[TEST], found["worker-agent"]


def is_unified():
    """Whether this machine has what the tests need."""
    controllers = GROUPS / "cgroup.controllers"
    has = controllers.read_text().split() if controllers.exists() else []
    return {"cpu", "memory"} <= set(has) and os.access(GROUPS / "cgroup.subtree_control", os.W_OK)


def check(output):
    """A test that skips itself here has not been run."""
    tests = re.search(r"test result: ok\. (\d+) passed; 0 failed; 0 ignored", output)
    if not tests or "SKIPPED" in output:
        sys.exit(f"{output}\ncgroups: the tests have failed, or were not run")
    say(f"{tests.group(1)} tests passed")


def install():
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if not missing:
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise Skipped(f"there is no cgroup v2 to write, nor {' nor '.join(missing)}, and none can be installed")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        run("apt-get", "update", "-qq", env=environment)
        run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing, env=environment)
    except subprocess.CalledProcessError as error:
        raise Skipped(f"no virtual machine can be installed: {error}") from error


def kernel(may_fetch):
    """A kernel, from one of Debian's packages."""
    folder = TARGET / "cgroups-kernel"
    if not (found := sorted(folder.glob("vmlinuz-*"))):
        if not may_fetch or not shutil.which("apt-get"):
            raise Skipped("there is no kernel for a virtual machine: --install fetches one")
        with tempfile.TemporaryDirectory() as name:
            fetched = pathlib.Path(name)
            # It belongs to the user that packages are fetched as.
            fetched.chmod(0o777)
            try:
                needs = run("apt-cache", "depends", KERNEL)
                package = re.search(r"Depends: (linux-image-\S+)", needs).group(1)
                run("apt-get", "download", "-qq", package, cwd=fetched)
            except (subprocess.CalledProcessError, AttributeError) as error:
                raise Skipped(f"no kernel can be fetched: {error}") from error
            run("dpkg-deb", "-x", next(fetched.glob("*.deb")), fetched / "unpacked")
            folder.mkdir(parents=True, exist_ok=True)
            for file in (fetched / "unpacked/boot").glob("vmlinuz-*"):
                shutil.copy(file, folder)
        found = sorted(folder.glob("vmlinuz-*"))
    return found[-1]


class Archive:
    """A file system as kernels take it (cpio, "newc")."""

    def __init__(self):
        self.bytes = bytearray()
        self.names = set()

    def add(self, path, mode, content=b"", device=(0, 0)):
        """Adds an entry, and the folders that it is in."""
        name = path.strip("/")
        above = name.rpartition("/")[0]
        if above and above not in self.names:
            self.add(above, stat.S_IFDIR | 0o755)
        self.names.add(name)
        fields = [len(self.names), mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0]
        self._pad(b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0")
        self._pad(content)

    def _pad(self, content):
        self.bytes += content + b"\0" * (-len(content) % 4)

    def add_program(self, program, path=None):
        """Adds a program without its debugging information, with the libraries that it needs."""
        with tempfile.NamedTemporaryFile() as stripped:
            run("strip", "-o", stripped.name, program)
            self.add(path or str(program), stat.S_IFREG | 0o755, pathlib.Path(stripped.name).read_bytes())
        needs = subprocess.run(["ldd", program], text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        for library in re.findall(r"(/\S+) \(0x", needs):
            if library.strip("/") not in self.names:
                self.add(library, stat.S_IFREG | 0o755, pathlib.Path(library).read_bytes())

    def write(self, path):
        self.add("TRAILER!!!", 0)
        path.write_bytes(self.bytes)


def file_system(test, agent, path):
    archive = Archive()
    for folder in ("proc", "sys", "dev", "tmp", "etc"):
        archive.add(folder, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    busybox = shutil.which("busybox")
    archive.add_program(busybox, "bin/busybox")
    for applet in run(busybox, "--list").split():
        if applet != "busybox":
            archive.add(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox")
    for program in (test, agent):
        archive.add_program(program)
    archive.add("init", stat.S_IFREG | 0o755, (INIT % (test, MODULE)).encode())
    archive.write(path)


def in_machine(test, agent, may_install):
    if platform.machine() != "x86_64":
        raise Skipped("there is no cgroup v2 to write, and the virtual machine is an x86_64 one")
    if may_install:
        install()
    for program in PACKAGES:
        if not shutil.which(program):
            raise Skipped(f"there is no cgroup v2 to write, and no {program} for a virtual machine")
    booted = kernel(may_install)
    with tempfile.TemporaryDirectory() as folder:
        initial = pathlib.Path(folder) / "initramfs"
        file_system(test, agent, initial)
        say(f"in a virtual machine with {booted.name}")
        command = [*QEMU.split(), "-kernel", booted, "-initrd", initial, "-append", "console=ttyS0 quiet panic=-1"]
        console = pathlib.Path(folder) / "console"
        with console.open("w") as output:
            try:
                subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                say(f"the machine has not ended within {PATIENCE} s")
        return console.read_text(errors="replace")


def main():
    flags = sys.argv[1:]
    may_install = "--install" in flags
    test, agent = build([flag for flag in flags if flag != "--install"])
    if is_unified():
        say("on this machine")
        command = [test, MODULE, "--nocapture"]
        return check(subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout)
    try:
        output = in_machine(test, agent, may_install)
    except Skipped as why:
        return print(f"SKIPPED: {why}")
    return check(output)


if __name__ == "__main__":
    main()
