"""Checks the manifests of deploy/k8s against Kubernetes' own schemas, and against what the components are.

Usage: run.py PATH-OF-MUSTER

Every resource of the base, and of each overlay with its patches made here, is held against the schemas of each of
VERSIONS. Where kubectl or kustomize is there, what it renders is held against them too; else that part prints
SKIPPED.
"""

import copy
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import tomllib

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "deploy" / "k8s"
VERSIONS = ["1.30", "1.34"]
COMPONENTS = ["offers-gateway", "worker-registry", "replica-manager"]


def resources(folder: pathlib.Path) -> list[dict]:
    """The resources of a kustomization, with its patches made."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    found = []
    for name in kustomization["resources"]:
        path = folder / name
        found += resources(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for patch in kustomization.get("patches", []):
        for resource in found:
            if resource["kind"] == patch["target"]["kind"]:
                for operation in yaml.safe_load(patch["patch"]):
                    replace(resource, operation)
    return found


def replace(resource: dict, operation: dict) -> None:
    """Makes one operation of a JSON patch. Replacing what is not there is an error, as it is by the standard."""
    assert operation["op"] == "replace", operation
    *way, last = [int(step) if step.isdigit() else step for step in operation["path"].strip("/").split("/")]
    for step in way:
        resource = resource[step]
    resource[last]  # noqa: B018, what is not there raises
    resource[last] = copy.deepcopy(operation["value"])


def rendered(folder: pathlib.Path) -> list[dict] | None:
    """What kustomize makes of a folder; None where there is none."""
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=True)
            return list(yaml.safe_load_all(done.stdout))
    return None


def validate(found: list[dict], where: str) -> None:
    for version in VERSIONS:
        for resource in found:
            name = f"{where}: {resource['kind']} {resource['metadata']['name']}"
            try:
                kubernetes_validate.validate(resource, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise SystemExit(f"{name} is not valid in Kubernetes {version}: {error.message}") from None
    print(f"{where}: {len(found)} resources are valid in Kubernetes {' and '.join(VERSIONS)}")


def settings(muster: pathlib.Path, component: str) -> dict:
    """A component's defaults, as it prints them."""
    with tempfile.TemporaryDirectory() as folder:
        link = pathlib.Path(folder, component)
        link.symlink_to(muster)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
        done = subprocess.run([link, "--print-config"], capture_output=True, text=True, check=True, env=clean)
    return tomllib.loads(done.stdout)


def port(address: str) -> int:
    return int(address.rsplit(":", 1)[1])


def by_kind(found: list[dict], kind: str, name: str) -> dict:
    [one] = [one for one in found if one["kind"] == kind and one["metadata"]["name"] == name]
    return one


def fits(found: list[dict], component: str, told: dict, kind_of_probe: str) -> None:
    """That a component's manifests say what is true of it."""
    stateful = by_kind(found, "StatefulSet", component)["spec"]
    assert stateful["replicas"] == 1, f"{component}: an embedded store is opened by one process"
    pod = stateful["template"]["spec"]
    budget = told["shutdown_timeout"]
    assert budget.endswith("s") and pod["terminationGracePeriodSeconds"] > int(budget[:-1]), (
        f"{component}: it is killed before its shutdown budget of {budget} is over"
    )
    [container] = pod["containers"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert ports == {"grpc": port(told["listen"]), "ops": port(told["ops_listen"])}, f"{component}: {ports}"
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert port(environment["MUSTER_LISTEN"]) == ports["grpc"]
    assert port(environment["MUSTER_OPS_LISTEN"]) == ports["ops"]
    probes = {name: container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
    if kind_of_probe == "grpc":
        # A container that one of the first two fails for is killed, and so none of them asks whether it is ready.
        wanted = {"startup": "liveness", "liveness": "liveness", "readiness": "readiness"}
        assert {name: probe["grpc"] for name, probe in probes.items()} == {
            name: {"port": ports["ops"], "service": service} for name, service in wanted.items()
        }, f"{component}: {probes}"
    else:
        wanted = {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
        assert {name: probe["httpGet"]["path"] for name, probe in probes.items()} == wanted, f"{component}: {probes}"
        assert all("grpc" not in probe for probe in probes.values()), f"{component}: {probes}"
    labels = stateful["template"]["metadata"]["labels"].items()
    for kind in ("Service", "PodDisruptionBudget"):
        selector = by_kind(found, kind, component)["spec"]["selector"]
        wanted = selector.get("matchLabels", selector) if kind == "PodDisruptionBudget" else selector
        assert wanted.items() <= labels, f"{component}: its {kind} selects {wanted}"


def main() -> int:
    muster = pathlib.Path(sys.argv[1]).resolve()
    told = {component: settings(muster, component) for component in COMPONENTS}
    for overlay, probe in (("base", "grpc"), ("http-probes", "http")):
        found = resources(MANIFESTS / overlay)
        validate(found, overlay)
        for component in COMPONENTS:
            fits(found, component, told[component], probe)
        shown = rendered(MANIFESTS / overlay)
        if shown is None:
            print(f"{overlay}: SKIPPED what kustomize renders: neither kubectl nor kustomize is there")
            continue
        validate(shown, f"{overlay}, rendered")
        for component in COMPONENTS:
            fits(shown, component, told[component], probe)
        assert {one["metadata"].get("namespace", "muster") for one in shown} == {"muster"}
    broken = json.loads(json.dumps(by_kind(resources(MANIFESTS / "base"), "StatefulSet", COMPONENTS[0])))
    broken["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
    try:
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)
    except kubernetes_validate.ValidationError:
        return 0
    raise SystemExit("the validator takes a field that there is not")


if __name__ == "__main__":
    sys.exit(main())
