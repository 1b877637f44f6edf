"""The Helm chart as Helm renders it."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from creditrisk_assets.monitoring.receivers import read_routes
from tools import check_chart

pytestmark = pytest.mark.helm

VALUES = Path(__file__).parent / "chart_values"
MINIMAL = VALUES / "minimal.yaml"
DEPLOY = check_chart.CHART.parents[1]


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = check_chart.helm_command(tmp_path_factory.mktemp("helm"))
    assert found is not None
    return found


def rendered(helm: str, values: Path, *more: str) -> list[dict[str, Any]]:
    return check_chart.rendered(helm, "--values", str(values), *more)


def one(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def api_env(objects: list[dict[str, Any]]) -> dict[str, str]:
    pod = one(objects, "StatefulSet", "creditrisk-api")["spec"]["template"]["spec"]
    return {v["name"]: v.get("value", "") for v in pod["containers"][0]["env"]}


@pytest.mark.parametrize("values", sorted(VALUES.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_file_of_values_renders_valid_objects(helm: str, values: Path) -> None:
    assert check_chart.problems(rendered(helm, values)) == []


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("store.dataDir=/data", "dataDir"),
        ("image.serving.tag=latest", "tag"),
        ("api.replica=3", "replica"),
        ("api.replicas=0", "replicas"),
        ("api.terminationGracePeriodSeconds=30", "terminationGracePeriodSeconds"),
        ("api.ingress.enabled=true", "host"),
        ("monitoring.serviceMonitor.enabled=true", "keySecretName"),
        ("settings.CREDITRISK_OPEN_BEYOND_LOOPBACK=true", "CREDITRISK_OPEN_BEYOND_LOOPBACK"),
        ("settings.CREDITRISK_ALERT_ROUTES=/routes.toml", "CREDITRISK_ALERT_ROUTES"),
        ("settings.CREDITRISK_DATABASE_URL=postgresql://u:p@h/d", "CREDITRISK_DATABASE_URL"),
        ("api.resources.requests.memory=plenty", "memory"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(helm: str, setting: str, named: str) -> None:
    with pytest.raises(check_chart.ChartError, match=named):
        rendered(helm, MINIMAL, "--set", setting)


def test_the_routes_of_alerts_are_a_file_of_the_watch_alone_and_are_valid(
    helm: str, tmp_path: Path
) -> None:
    """The API and the runs need no secret of a pager, and a start must not fail without it."""
    objects = rendered(helm, VALUES / "everything.yaml")
    text = one(objects, "ConfigMap", "creditrisk-alerts")["data"]["routes.toml"]
    (tmp_path / "routes.toml").write_text(text)
    (receiver,) = read_routes(tmp_path / "routes.toml", {"PAGERDUTY_KEY": "k"})
    assert receiver.kind == "pagerduty"
    naming = {o["metadata"]["name"] for o in objects if "CREDITRISK_ALERT_ROUTES" in str(o)}
    assert naming == {"creditrisk-watch"}
    assert "ALERT_ROUTES" not in str(rendered(helm, MINIMAL))


def test_values_without_a_bucket_are_refused(helm: str) -> None:
    with pytest.raises(check_chart.ChartError, match="dataDir"):
        check_chart.rendered(helm)


def container_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    pod = one(objects, "StatefulSet", "creditrisk-api")["spec"]["template"]["spec"]
    container: dict[str, Any] = pod["containers"][0]
    return container


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c.pop("resources"), "has no limit of memory"),
        (lambda c: c["securityContext"].pop("readOnlyRootFilesystem"), "root file system"),
        (lambda c: c["securityContext"].pop("capabilities"), "keeps capabilities"),
        (lambda c: c.update(image="registry:5000/serving"), "not pinned"),
        (lambda c: c["env"].append({"name": "A_TOKEN", "value": "x"}), "secret A_TOKEN in plain"),
        (lambda c: c["volumeMounts"].append({"name": "no", "mountPath": "/n"}), "unknown volume"),
        (lambda c: c["ports"].clear(), "is no port of its pods"),
        (lambda c: c.update(comand=["sh"]), "comand"),
    ],
)
def test_the_checks_see_a_fault(
    helm: str, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    objects = copy.deepcopy(rendered(helm, MINIMAL))
    change(container_of(objects))

    assert any(problem in line for line in check_chart.problems(objects))


def test_the_replicas_share_a_callers_rate(helm: str) -> None:
    assert api_env(rendered(helm, MINIMAL))["CREDITRISK_RATE_LIMIT"] == "1000"
    assert api_env(rendered(helm, VALUES / "everything.yaml"))["CREDITRISK_RATE_LIMIT"] == "333"
    assert api_env(rendered(helm, VALUES / "small.yaml"))["CREDITRISK_RATE_LIMIT"] == "0"


def test_the_databases_are_prepared_before_every_other_pod_starts(helm: str) -> None:
    job = one(rendered(helm, MINIMAL), "Job", "creditrisk-init")
    pod = job["spec"]["template"]["spec"]

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    names = [container["name"] for container in pod["initContainers"]]
    assert names == ["schemas", "mlflow-tables", "mlflow"]
    assert pod["initContainers"][2]["restartPolicy"] == "Always"
    own = {v["name"]: v.get("value") for v in pod["containers"][0]["env"]}
    assert own["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"


def test_a_replica_has_more_time_to_end_than_its_processes_take(helm: str) -> None:
    from serving.ops.sidecars import END_SECONDS
    from serving.server import GRACEFUL_SECONDS

    stateful = one(rendered(helm, MINIMAL), "StatefulSet", "creditrisk-api")
    seconds = stateful["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert seconds > GRACEFUL_SECONDS + 2 * END_SECONDS


def test_the_rules_of_prometheus_are_those_of_the_repository() -> None:
    rules = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    assert (check_chart.CHART / "alerts.yml").read_text() == rules


def test_dagsters_chart_gets_the_projects_limits() -> None:
    ours = yaml.safe_load((DEPLOY.parent / "dagster.yaml").read_text())
    theirs = yaml.safe_load((DEPLOY / "helm" / "dagster-values.yaml").read_text())
    daemon, monitoring = theirs["dagsterDaemon"], ours["run_monitoring"]

    assert (
        theirs["concurrency"]["runs"]["maxConcurrentRuns"]
        == (ours["concurrency"]["runs"]["max_concurrent_runs"])
    )
    assert theirs["concurrency"]["pools"] == {
        "granularity": ours["concurrency"]["pools"]["granularity"],
        "defaultLimit": ours["concurrency"]["pools"]["default_limit"],
    }
    assert daemon["runMonitoring"] == {
        "enabled": monitoring["enabled"],
        "pollIntervalSeconds": monitoring["poll_interval_seconds"],
        "startTimeoutSeconds": monitoring["start_timeout_seconds"],
        "maxRuntimeSeconds": monitoring["max_runtime_seconds"],
        "maxResumeRunAttempts": 0,
    }
    assert daemon["runRetries"] == {
        "enabled": ours["run_retries"]["enabled"],
        "maxRetries": ours["run_retries"]["max_retries"],
        "retryOnAssetOrOpFailure": ours["run_retries"]["retry_on_asset_or_op_failure"],
    }
    days = theirs["retention"]["sensor"]["purgeAfterDays"]
    assert ours["retention"]["sensor"]["purge_after_days"].items() <= days.items()
