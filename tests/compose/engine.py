"""A container engine for the test: the one that answers, or one of our own that is gone afterwards."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time

PACKAGES = ["docker.io", "docker-compose", "debootstrap", "iptables", "iproute2"]
# The rules of an engine of our own go with it.
TABLES = ["iptables", "ip6tables"]


class Skipped(Exception):
    """Why there is nothing to test on."""


def run(*words, check=True, **more):
    """Runs a command, and raises with what it said if it fails."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **more)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stdout}{done.stderr}")
    return done


def until(what, condition, seconds):
    """Waits until `condition` gives something, and gives that."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise RuntimeError(f"not in {seconds} s: {what}")
        time.sleep(0.2)


def install():
    """Installs what is missing from Debian's packages."""
    if shutil.which("dockerd") and shutil.which("docker-compose") and shutil.which("debootstrap"):
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise Skipped("no container engine, and none can be installed")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq", env=environment)
    run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES, env=environment)


class Engine:
    """A container engine, by its client. `own` is the process of one that we started."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="muster-compose-"))
        self.own = None
        self.saved = {}
        self.environment = dict(os.environ)
        self.client = self._client()

    def _client(self):
        """A client that can build with BuildKit: one with buildx, or one that needs none yet."""
        for folder in os.environ["PATH"].split(":"):
            client = shutil.which("docker", path=folder)
            if client and run(client, "buildx", "version", check=False).returncode == 0:
                return client
            if client and run(client, "--version").stdout.startswith("Docker version 20."):
                return client
        raise Skipped("no docker client that can build with BuildKit")

    def docker(self, *words, check=True, **more):
        environment = {**self.environment, "DOCKER_BUILDKIT": "1", **more.pop("env", {})}
        return run(self.client, *words, check=check, env=environment, **more)

    def start(self):
        """Uses the engine that answers, or starts one."""
        if self.docker("info", check=False).returncode == 0:
            return
        dockerd = shutil.which("dockerd")
        if not dockerd:
            raise Skipped("no container engine answers, and there is no dockerd to start")
        if os.geteuid() != 0:
            raise Skipped("no container engine answers, and only root could start one")
        self._save_network()
        failures = [self._start(dockerd, driver) for driver in ("overlay2", "vfs")]
        if self.own is None:
            raise Skipped(f"dockerd does not start here: {failures[-1]}")

    def _start(self, dockerd, driver):
        if self.own is not None:
            return ""
        socket = f"unix://{self.folder}/docker.sock"
        log = self.folder / f"dockerd-{driver}.log"
        command = [dockerd, "--host", socket, "--storage-driver", driver]
        for flag, name in (("data-root", "data"), ("exec-root", "exec"), ("pidfile", "pid")):
            command += [f"--{flag}", str(self.folder / name)]
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        self.environment["DOCKER_HOST"] = socket
        for _ in range(300):
            if process.poll() is not None:
                break
            if self.docker("info", check=False).returncode == 0:
                self.own = process
                return ""
            time.sleep(0.1)
        process.kill()
        process.wait()
        return log.read_text()[-500:]

    def _save_network(self):
        for table in TABLES:
            if shutil.which(f"{table}-save"):
                self.saved[table] = run(f"{table}-save", check=False).stdout
        self.forward = pathlib.Path("/proc/sys/net/ipv4/ip_forward").read_text()

    def stop(self):
        """Ends an engine of our own, and undoes what it did to this machine."""
        if self.own is not None:
            self.own.terminate()
            try:
                self.own.wait(60)
            except subprocess.TimeoutExpired:
                self.own.kill()
                self.own.wait()
            run("ip", "link", "delete", "docker0", check=False)
            for table, rules in self.saved.items():
                run(f"{table}-restore", check=False, input=rules)
            pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text(self.forward)
            mounts = pathlib.Path("/proc/mounts").read_text().splitlines()
            for mount in reversed(mounts):
                path = mount.split()[1]
                if path.startswith(str(self.folder)):
                    run("umount", "-l", path, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def has_image(self, name):
        return self.docker("image", "inspect", name, check=False).returncode == 0

    def import_folder(self, folder, name, *files):
        """Makes an image of the files of a folder."""
        with subprocess.Popen(["tar", "-C", str(folder), "-c", *files], stdout=subprocess.PIPE) as tar:
            self.docker("import", "-", name, stdin=tar.stdout)

    def base(self, name):
        """Makes sure that there is a base image of this name: made of Debian's packages if not."""
        if self.has_image(name):
            return False
        if not shutil.which("debootstrap"):
            raise Skipped(f"no image {name}, and no debootstrap to make one")
        root = self.folder / "base"
        run("debootstrap", "--variant=minbase", "bookworm", root)
        run("sh", "-c", f"rm -rf {root}/var/cache/apt/archives/*.deb {root}/var/lib/apt/lists/*")
        self.import_folder(root, name, ".")
        shutil.rmtree(root)
        return True


class Compose:
    """A project of a compose file."""

    def __init__(self, engine, file, project, environment):
        self.engine = engine
        self.project = project
        self.environment = {**engine.environment, **environment}
        self.command = self._command() + ["-p", project, "-f", str(file)]

    def _command(self):
        plugin = self.engine.docker("compose", "version", check=False)
        if plugin.returncode == 0:
            return [self.engine.client, "compose"]
        if shutil.which("docker-compose"):
            return ["docker-compose"]
        raise Skipped("neither docker compose nor docker-compose is there")

    def __call__(self, *words, check=True):
        return run(*self.command, *words, check=check, env=self.environment)

    def container(self, service):
        """The id of a service's container, also of one that has ended."""
        labels = [f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}"]
        filters = [word for label in labels for word in ("--filter", f"label={label}")]
        return self.engine.docker("ps", "-a", "-q", "--no-trunc", *filters).stdout.strip()

    def inspect(self, service, template):
        return self.engine.docker("inspect", "--format", template, self.container(service)).stdout.strip()

    def left(self):
        """What is left of the project."""
        label = f"label=com.docker.compose.project={self.project}"
        kinds = {"container": ["-a"], "volume": [], "network": []}
        found = []
        for kind, more in kinds.items():
            ids = self.engine.docker(kind, "ls", *more, "-q", "--filter", label).stdout.split()
            found += [f"{kind} {one}" for one in ids]
        return found
