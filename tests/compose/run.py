"""Builds the image, brings the stack of deploy/docker-compose.yml up, and plays the product's story on it from
the host over mutual TLS, while containers are killed and an agent's network is cut. Leaves nothing behind.

Usage: run.py [--install] FOLDER-OF-RELEASE-BINARIES

Prints SKIPPED and why where there is no container engine and none can be started.
"""

import json
import os
import pathlib
import signal
import socket
import sys
import time

from engine import Compose, Engine, Skipped, install, run, until

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BASE = "debian:bookworm-slim"
# Whom the image trusts. This machine's are as good as any here.
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
COMPONENTS = ["offers-gateway", "worker-registry", "replica-manager"]
AGENTS = ["agent-1", "agent-2"]
# What the image may add to its base, without the probe.
MAX_BYTES = 60_000_000
# How long anything may take on a loaded machine.
PATIENCE = 300

CHAT = """
name: chat
replicas: 3
run:
  command: "echo chat is up; exec sleep 86400"
resources: {gpu: "H100:1"}
retry: {max_duration: 1h, interval: 4s}
update: {min_ready: 1s}
stop: {grace: 2s}
"""


def say(words):
    print(f"compose: {words}", flush=True)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def build(engine, binaries, image):
    """Builds the image from programs that are there, with muster as the probe."""
    stripped = engine.folder / "binaries"
    stripped.mkdir()
    run("strip", "-o", stripped / "muster", binaries / "muster")
    engine.import_folder(stripped, f"{image}-binaries", "muster")
    engine.import_folder("/", f"{image}-authorities", AUTHORITIES.lstrip("/"))
    arguments = {
        "BINARIES": f"{image}-binaries",
        "PROBE": f"{image}-binaries",
        "PROBE_PATH": "/muster",
        "AUTHORITIES": f"{image}-authorities",
        "BASE": BASE,
    }
    words = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    engine.docker("build", "-q", "-f", DEPLOY / "Dockerfile", "-t", image, *words, ROOT)
    size = {name: int(engine.docker("image", "inspect", "-f", "{{.Size}}", name).stdout) for name in (image, BASE)}
    added = size[image] - size[BASE] - (stripped / "muster").stat().st_size
    say(f"the image adds {added / 1e6:.1f} MB to its base, without the probe")
    assert added <= MAX_BYTES, f"the image adds {added} bytes to its base, more than {MAX_BYTES}"
    labels = json.loads(engine.docker("image", "inspect", "-f", "{{json .Config.Labels}}", image).stdout)
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0", labels
    user = engine.docker("image", "inspect", "-f", "{{.Config.User}}", image).stdout.strip()
    assert user == "65532:65532", user
    # Without them no provider's API is asked.
    engine.docker("run", "--rm", "--network=none", image, "test", "-s", AUTHORITIES)


class Story:
    """The stack as its users see it, from the host."""

    def __init__(self, compose, muster, ports, certificates):
        self.compose = compose
        self.muster_path = muster
        urls = [f"https://127.0.0.1:{port}" for port in ports]
        self.environment = {
            **os.environ,
            "MUSTER_OFFERS_ADDR": urls[0],
            "MUSTER_WORKERS_ADDR": urls[1],
            "MUSTER_REPLICAS_ADDR": urls[2],
            "MUSTER_CA": str(certificates / "ca.crt"),
            "MUSTER_CERT": str(certificates / "admin.crt"),
            "MUSTER_KEY": str(certificates / "admin.key"),
            "XDG_CONFIG_HOME": str(certificates),
        }
        self.urls = urls

    def muster(self, *words, check=True, **more):
        return run(self.muster_path, *words, check=check, env=self.environment, **more)

    def ask(self, *words):
        """What a command prints as JSON; None if it fails."""
        done = self.muster("-o", "json", *words, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def worker(self, name):
        return (self.ask("workers", name) or {}).get("worker", {})

    def service(self):
        return (self.ask("services", "chat") or {}).get("status", {})

    def phase(self):
        return self.service().get("phase", "").removeprefix("SERVICE_PHASE_")

    def replicas(self):
        """The replicas of the service, each with its worker, attempt and phase."""
        listed = (self.ask("ps", "chat") or {}).get("replicas", [])
        return {
            replica["id"]: (
                (replica.get("attempt") or {}).get("worker"),
                (replica.get("attempt") or {}).get("id"),
                replica["phase"].removeprefix("REPLICA_PHASE_"),
            )
            for replica in listed
        }

    def until_phase(self, phase):
        until(f"chat is {phase}, it is {self.phase()}: {self.service()}", lambda: self.phase() == phase, PATIENCE)

    def until_worker(self, name, field, value):
        until(f"{name}'s {field} is {value}", lambda: self.worker(name).get(field) == value, PATIENCE)

    def healthy(self):
        """Waits for HEALTHY with as many ready as are wanted."""
        self.until_phase("HEALTHY")
        until("3 ready", lambda: self.service().get("counts", {}).get("ready") == 3, PATIENCE)

    # What is told, in order.

    def refuses_strangers(self):
        """Nobody without a certificate, and nobody in plaintext."""
        without = {name: value for name, value in self.environment.items() if name not in ("MUSTER_CERT", "MUSTER_KEY")}
        done = run(self.muster_path, "workers", check=False, env=without)
        assert done.returncode == 1 and "certificate" in done.stderr, done
        plain = run(self.muster_path, "--workers-addr", self.urls[1].replace("https", "http"), "workers", check=False)
        assert plain.returncode == 1 and "takes TLS only" in plain.stderr, plain
        words = ["health", "--probe", "-addr", self.urls[1].removeprefix("https://")]
        probe = run(self.muster_path, *words, "-tls", "-tls-ca-cert", self.environment["MUSTER_CA"], check=False)
        assert probe.returncode == 0, probe

    def finds_offers(self):
        offers = self.ask("offers", "--gpu", "H100", "--limit", "10")
        assert len(offers["offers"]) == 10, offers
        for agent in AGENTS:
            self.until_worker(agent, "state", "WORKER_STATE_ACTIVE")

    def applies(self):
        self.muster("apply", "-f", "-", "--wait", "--timeout", "3m", input=CHAT)
        self.healthy()
        output = self.muster("logs", "chat").stdout
        assert "chat is up" in output, f"no output came from the agents: {output!r}"

    def outlives_a_replica(self):
        """A killed replica comes back; its siblings are the same as before."""
        before = self.replicas()
        victim, (worker, _, _) = next(iter(before.items()))
        script = (
            "for p in /proc/[0-9]*; do if tr '\\0' ' ' <$p/cmdline | grep -q '^sleep 86400'; "
            "then kill -9 ${p#/proc/}; exit 0; fi; done 2>/dev/null; exit 1"
        )
        self.compose.engine.docker("exec", self.compose.container(worker), "sh", "-c", script)
        self.until_phase("DEGRADED")
        self.healthy()
        after = self.replicas()
        changed = [name for name in before if before[name][1] != after[name][1]]
        assert len(changed) == 1, f"{changed} were started again when one was killed ({victim}'s worker is {worker})"

    def outlives_its_manager(self):
        """The manager's container crashes and is started again; nothing that runs is touched."""
        before = self.replicas()
        self.crash("replica-manager")
        self.comes_back("replica-manager")
        self.healthy()
        assert self.replicas() == before, f"{before} became {self.replicas()}"

    def outlives_an_agent(self):
        """An agent's container crashes with its replicas: they fail, and are started again."""
        self.crash("agent-2")
        self.until_phase("DEGRADED") if self.holds("agent-2") else None
        self.comes_back("agent-2")
        self.until_worker("agent-2", "liveness", "WORKER_LIVENESS_ALIVE")
        self.healthy()

    def holds(self, agent):
        return [name for name, (worker, _, _) in self.replicas().items() if worker == agent]

    def outlives_a_cut(self):
        """An agent's network is cut: the worker is LOST and its replicas run elsewhere; then it comes back."""
        agent = max(AGENTS, key=lambda name: len(self.holds(name)))
        network = f"{self.compose.project}_muster"
        container = self.compose.container(agent)
        self.compose.engine.docker("network", "disconnect", network, container)
        self.until_worker(agent, "liveness", "WORKER_LIVENESS_SUSPECT")
        self.until_worker(agent, "liveness", "WORKER_LIVENESS_LOST")
        until("the replicas run elsewhere", lambda: not self.holds(agent), PATIENCE)
        self.healthy()
        self.compose.engine.docker("network", "connect", "--alias", agent, network, container)
        self.until_worker(agent, "liveness", "WORKER_LIVENESS_ALIVE")
        self.healthy()

    def drains(self):
        """A drained worker's replicas move, and it is DISABLED."""
        agent = max(AGENTS, key=lambda name: len(self.holds(name)))
        self.muster("drain", agent, "--reason", "the test wants it empty", "--wait", "--timeout", "3m")
        assert self.worker(agent)["state"] == "WORKER_STATE_DISABLED"
        assert not self.holds(agent)
        self.healthy()
        self.muster("enable", agent)
        self.until_worker(agent, "state", "WORKER_STATE_ACTIVE")

    def is_well(self):
        health = self.ask("health")
        assert [one["readiness"] for one in health["components"]] == ["SERVING"] * 3, health

    def removes(self):
        self.muster("rm", "chat", "-y", "--wait", "--timeout", "3m")

    def crash(self, service):
        """Kills a container as a crash would: its first process ends, and nobody asked for it."""
        os.kill(int(self.compose.inspect(service, "{{.State.Pid}}")), signal.SIGKILL)

    def comes_back(self, service):
        until(f"{service} is started again", lambda: self.compose.inspect(service, "{{.RestartCount}}") == "1", PATIENCE)
        until_healthy(self.compose, [service])


def until_healthy(compose, services):
    for service in services:
        state = "{{.State.Health.Status}}"
        until(f"{service} is healthy", lambda: compose.inspect(service, state) == "healthy", PATIENCE)


def told(story):
    for step in (
        story.refuses_strangers,
        story.finds_offers,
        story.applies,
        story.outlives_a_replica,
        story.outlives_its_manager,
        story.outlives_an_agent,
        story.outlives_a_cut,
        story.drains,
        story.is_well,
        story.removes,
    ):
        begun = time.monotonic()
        step()
        say(f"{step.__name__.replace('_', ' ')}: {time.monotonic() - begun:.1f} s")


def confined(compose):
    """The containers are as the file promises."""
    for service in COMPONENTS + AGENTS:
        inspected = compose.inspect(service, "{{.HostConfig.ReadonlyRootfs}} {{.Config.User}} {{.HostConfig.Memory}}")
        read_only, user, memory = inspected.split()
        assert (read_only, user) == ("true", "65532:65532") and int(memory) > 0, f"{service}: {inspected}"
    assert compose.inspect("certs", "{{.State.ExitCode}}") == "0"


def test(engine, binaries):
    project = f"muster-test-{os.getpid()}"
    image = f"{project}:latest"
    made_base = engine.base(BASE)
    say("building the image")
    build(engine, binaries, image)
    ports = free_ports(3)
    names = ("MUSTER_OFFERS_PORT", "MUSTER_WORKERS_PORT", "MUSTER_REPLICAS_PORT")
    environment = {name: str(port) for name, port in zip(names, ports)}
    compose = Compose(engine, DEPLOY / "docker-compose.yml", project, {**environment, "MUSTER_IMAGE": image})
    try:
        begun = time.monotonic()
        compose("up", "-d", "--no-build")
        until_healthy(compose, COMPONENTS + AGENTS)
        say(f"everything is healthy: {time.monotonic() - begun:.1f} s")
        confined(compose)
        certificates = engine.folder / "certs"
        engine.docker("cp", f"{compose.container('certs')}:/certs", certificates)
        told(Story(compose, binaries / "muster", ports, certificates))
        begun = time.monotonic()
        compose("stop")
        codes = {service: compose.inspect(service, "{{.State.ExitCode}}") for service in COMPONENTS + AGENTS}
        assert set(codes.values()) == {"0"}, f"not everything ended well when it was asked to: {codes}"
        say(f"everything ended well when asked to: {time.monotonic() - begun:.1f} s")
    except Exception:
        print(compose("ps", check=False).stdout, compose("logs", "--tail=60", check=False).stdout, flush=True)
        raise
    finally:
        compose("down", "-v", "-t", "5", check=False)
        left = compose.left()
        images = [image, f"{image}-binaries", f"{image}-authorities"] + ([BASE] if made_base else [])
        engine.docker("image", "rm", "-f", *images, check=False)
    assert not left, f"left behind: {left}"
    say("taken down, nothing is left")


def main():
    words = sys.argv[1:]
    if "--install" in words:
        words.remove("--install")
        wanted = True
    else:
        wanted = False
    binaries = pathlib.Path(words[0]).resolve()
    engine = None
    try:
        if wanted:
            install()
        engine = Engine()
        engine.start()
        test(engine, binaries)
    except Skipped as why:
        print(f"SKIPPED: {why}")
    finally:
        if engine is not None:
            engine.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
