"""Holds every query of the dashboards and every alert rule against the metrics that are really exported.

Usage: run.py [--install] PATH-OF-MUSTER

Starts `muster up`, lets a service fail and recover, starts it again, and reads /metrics of every component. With
promtool, which --install takes from Debian's packages, the rules and the configuration are checked by it too; without,
that part prints SKIPPED.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import yaml

from promql import named

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PORTS = {"offers-gateway": 7410, "worker-registry": 7411, "replica-manager": 7412, "worker-agent": 7413}
# What Prometheus adds by our configuration, or says itself.
SCRAPED = {"job", "instance", "component"}
OWN = {"up": SCRAPED}
# Exported only once something rare has happened, with their labels. Each has to stand in the sources.
RARE = {
    "rpc_client_retries_total": set(),
    "muster_backend_left_out_total": {"backend", "reason"},
    "muster_queue_length": {"queue"},
}
PATIENCE = 120
# What the service of this run sleeps, and nobody else.
SLEEP = f"sleep {100_000 + os.getpid()}"

FLAKY = """
name: flaky
replicas: 1
run:
  command: "test -e $MARK && exec %s; touch $MARK; sleep 2; exit 3"
  env: {MARK: %s}
retry: {interval: 1s}
stop: {grace: 1s}
"""

Exported = dict[str, set[str]]


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > end:
            raise SystemExit(f"not in {PATIENCE} s: {what}")
        time.sleep(0.2)
    return found


def scrape(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def series(text: str) -> Exported:
    """Every series' name in a text, with the labels that it has."""
    found: Exported = {}
    for line in text.splitlines():
        match = re.match(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$", line)
        if match and not line.startswith("#"):
            labels = set(re.findall(r'([a-zA-Z_][a-zA-Z0-9_]*)="', match.group(2) or ""))
            found.setdefault(match.group(1), set()).update(labels)
    return found


def exported(muster: pathlib.Path, folder: pathlib.Path) -> Exported:
    """What a stack exports in which a service has failed and recovered, and which has been started again."""
    found: Exported = {}

    def command(*words: str, **more) -> str:
        return subprocess.run([str(muster), *words], capture_output=True, text=True, **more).stdout

    def gather():
        for port in PORTS.values():
            for name, labels in series(scrape(port)).items():
                found.setdefault(name, set()).update(labels)

    for start in range(2):
        words = [str(muster), "up", "--data", str(folder / "data"), "--workers", "1"]
        stack = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        try:
            until("everything answers", lambda: all(scrape(port) for port in PORTS.values()))
            until("a worker is ACTIVE", lambda: "ACTIVE" in command("workers"))
            if start == 0:
                command("apply", "-f", "-", input=FLAKY % (SLEEP, folder / "mark"), check=True)
                until("a replica has failed", lambda: "muster_replica_failures_total{" in scrape(PORTS["replica-manager"]))
            until("the service is HEALTHY", lambda: "HEALTHY" in command("services"))
            command("offers", "--gpu", "H100", check=True)
            gather()
            if start == 1:
                command("rm", "flaky", "-y", "--wait", check=True)
        finally:
            stack.send_signal(signal.SIGINT)
            stack.wait(120)
    return found


def sources() -> str:
    return "\n".join(path.read_text() for path in (ROOT / "services").rglob("*.rs"))


def with_rare(found: Exported) -> Exported:
    text = sources()
    for name, labels in RARE.items():
        written = name.removesuffix("_total")
        if f'"{written}"' not in text:
            raise SystemExit(f"{name} is in RARE, and in no source")
        found.setdefault(name, set()).update(labels)
    return {**found, **OWN}


def expressions() -> list[tuple[str, str, str]]:
    """Every expression of ours: where it is, itself, and the texts that show its labels."""
    found = []
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            found.append((f"alert {rule['alert']}", rule["expr"], json.dumps(rule["annotations"])))
    for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                found.append((f"{path.name}, {panel['title']}", target["expr"], target["legendFormat"]))
    return found


def unknown_values(asked: dict[str, str], known: str) -> list[str]:
    """The values that an expression asks for and that stand in no source, so that no label ever has them."""
    wanted = []
    for condition in asked.values():
        sign, text = re.match(r'([=!~]+)"(.*)"', condition).groups()
        wanted += text.split("|") if "~" in sign else [text]
    plain = [value for value in wanted if re.fullmatch(r"\w+", value)]
    return [f"no label has the value {value}" for value in plain if f'"{value}"' not in known]


def wrong(found: Exported, expression: str, shown: str, known_values: str) -> list[str]:
    """What is wrong with an expression."""
    faults = []
    uses = named(expression)
    known = set(SCRAPED)
    for name, asked in uses.metrics:
        if name not in found:
            faults.append(f"nothing exports {name}")
            continue
        labels = found[name] | SCRAPED
        known |= labels
        faults += [f"{name} has no label {label}" for label in asked if label not in labels]
        faults += unknown_values(asked, known_values)
    faults += [f"no metric in it has the label {label} that it groups by" for label in uses.labels - known]
    grouped = uses.labels | {"value"} if uses.labels else known
    for label in re.findall(r"\$labels\.(\w+)|\{\{(\w+)\}\}", shown):
        one = label[0] or label[1]
        if one not in grouped:
            faults.append(f"its text shows the label {one}, which it has not")
    return faults


def check_expressions(found: Exported) -> None:
    all_of_them = expressions()
    # The name of our job is a value too, and stands in the configuration.
    known = sources() + '"muster"'
    faults = [f"{where}: {fault}" for where, text, shown in all_of_them for fault in wrong(found, text, shown, known)]
    if faults:
        raise SystemExit("\n".join(faults))
    print(f"{len(all_of_them)} expressions name what is exported")
    # The check itself has to see what is wrong.
    for text, shown in (
        ("sum by (nothing) (muster_ready)", ""),
        ("muster_redy", ""),
        ('muster_services{fase="DOWN"}', ""),
        ('muster_services{phase="DOWNN"}', ""),
        ("sum by (phase) (muster_services)", "{{state}}"),
    ):
        assert wrong(found, text, shown, known), f"nothing is found wrong with {text}"


def check_last_runs() -> None:
    """What a process says of the run before it is true for as long as it runs, and no alert lasts that long."""
    for where, text, _ in expressions():
        metrics = {name for name, _ in named(text).metrics}
        last = [name for name in metrics if name.startswith("muster_last_shutdown_")]
        if where.startswith("alert ") and last and "process_start_time_seconds" not in metrics:
            raise SystemExit(f"{where} goes on until the process is started again")


def check_targets() -> None:
    """Prometheus scrapes every component of the compose file, on its ops port."""
    compose = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())["services"]
    wanted = {
        f"{name}:{service['environment']['MUSTER_OPS_LISTEN'].rsplit(':', 1)[1]}"
        for name, service in compose.items()
        if "MUSTER_OPS_LISTEN" in service.get("environment", {})
    }
    [job] = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {target for one in job["static_configs"] for target in one["targets"]}
    assert targets == wanted, f"Prometheus scrapes {sorted(targets)}, and there are {sorted(wanted)}"
    assert len(targets) == 5
    print(f"Prometheus scrapes all {len(targets)}")


def promtool(install: bool, folder: pathlib.Path) -> str | None:
    found = shutil.which("promtool")
    if found or not install or not shutil.which("apt-get"):
        return found
    package = folder / "prometheus"
    package.mkdir()
    # Not installed: it would bring a service.
    for words in (["apt-get", "update", "-qq"], ["apt-get", "download", "-qq", "prometheus"]):
        if subprocess.run(words, cwd=package, capture_output=True).returncode != 0:
            return None
    [archive] = package.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(archive), str(package)], check=True)
    return str(package / "usr" / "bin" / "promtool")


def check_syntax(tool: str | None, folder: pathlib.Path) -> None:
    if tool is None:
        print("SKIPPED the syntax of rules and configuration: there is no promtool")
        return
    configuration = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    copy = folder / "prometheus.yml"
    copy.write_text(configuration.replace("/etc/prometheus/", f"{DEPLOY / 'prometheus'}/"))
    for words in (["check", "rules", str(DEPLOY / "prometheus" / "alerts.yml")], ["check", "config", str(copy)]):
        done = subprocess.run([tool, *words], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"promtool {' '.join(words)}: {done.stdout}{done.stderr}")
    print("promtool takes the rules and the configuration")


def main() -> int:
    words = [word for word in sys.argv[1:] if word != "--install"]
    muster = pathlib.Path(words[0]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        check_targets()
        check_last_runs()
        check_syntax(promtool("--install" in sys.argv, folder), folder)
        try:
            check_expressions(with_rare(exported(muster, folder)))
        finally:
            # What runs outlives the stack, also when something was wrong.
            subprocess.run(["pkill", "-9", "-f", SLEEP])
    return 0


if __name__ == "__main__":
    sys.exit(main())
