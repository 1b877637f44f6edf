"""What the API counts, over several processes, and what is built on it."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from fastapi import FastAPI

import serving
from creditrisk_assets.settings import ServingSettings
from serving.access.keys import KeyRing
from serving.access.rules import route_table
from serving.inference.decider import Group
from serving.ops.loop_metrics import LoopMetrics
from serving.ops.metrics import (
    CARRY_SECONDS,
    Metrics,
    add_metrics_route,
    empty_metrics,
)
from tests.support.loop_status import whole_status
from tests.support.metrics import champion, decisions, samples
from tests.support.servers import gateway, served

ROOT = Path(str(serving.__file__)).parents[1]
DASHBOARDS = ROOT / "deploy" / "grafana"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"

WORKER = """
import sys, time
from pathlib import Path
from serving.inference.decider import Group
from serving.ops.metrics import Metrics
from tests.support.loop_status import whole_status
from tests.support.metrics import champion, decisions
metrics = Metrics(Path(sys.argv[1]))
metrics.on_request()
metrics.on_champion(champion("7"))
group = Group(champion("7"), decisions([0, 1, 1], [0.1, 0.3, 0.9]), 0.002, time.perf_counter() - 0.01)
metrics.on_decided(group)
time.sleep(0.6)
print("counted", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    whole_status(time.time()).write(tmp_path)
    counting = Metrics(tmp_path / "metrics", [LoopMetrics(tmp_path)])
    yield counting
    counting.close()


def all_observed(metrics: Metrics) -> None:
    """Something of everything."""
    second = champion("2", degraded=True)
    metrics.on_champion(champion("1"))
    metrics.on_champion(second)
    metrics.on_refused()
    metrics.on_decided(Group(second, decisions([0], [0.2]), 0.001, time.perf_counter()))
    metrics.on_not_written()


def test_one_worker_tells_about_all_and_the_dead_leave_their_counts_only(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    command = [sys.executable, "-c", WORKER, str(folder)]
    workers = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"counted\n"
    whole_status(time.time()).write(tmp_path)
    own = Metrics(folder, [LoopMetrics(tmp_path)])
    model = (("bundle_sha256", "7" * 64), ("degraded", "false"), ("model_version", "7"))
    decided = (
        "creditrisk_decisions_total",
        (("degraded", "false"), ("model_version", "7"), ("prediction", "1")),
    )
    told = samples(own.text())
    assert told[("creditrisk_requests_in_flight", ())] == 2
    assert told[("creditrisk_model_info", model)] == 2
    assert told[("creditrisk_loop_days_scored", ())] == 2  # of one loop, whatever the workers
    assert told[decided] == 4
    assert told[("creditrisk_default_probability_count", ())] == 6
    assert told[("creditrisk_default_probability_bucket", (("le", "0.3"),))] == 4
    assert told[("creditrisk_decision_group_size_sum", ())] == 6
    assert told[("creditrisk_decision_log_lag_seconds_count", ())] == 2
    workers[0].kill()
    workers[0].communicate(timeout=10)
    told = samples(own.text())
    assert told[("creditrisk_requests_in_flight", ())] == 1
    assert told[("creditrisk_model_info", model)] == 1
    assert told[decided] == 4
    workers[1].communicate(b"\n", timeout=10)
    own.close()
    empty_metrics(folder)
    again = Metrics(folder)
    assert decided not in samples(again.text())
    again.close()


def test_a_swap_moves_the_worker_to_the_other_model(metrics: Metrics) -> None:
    all_observed(metrics)
    told = {
        dict(labels)["model_version"]: value
        for (name, labels), value in samples(metrics.text()).items()
        if name == "creditrisk_model_info"
    }
    assert told == {"1": 0.0, "2": 1.0}
    assert samples(metrics.text())[("creditrisk_champion_problem", ())] == 1
    metrics.on_refresh(None)
    assert samples(metrics.text())[("creditrisk_champion_problem", ())] == 0


def test_requests_are_counted_by_route_and_refused_by_reason(
    metrics: Metrics, tmp_path: Path
) -> None:
    app = FastAPI()
    add_metrics_route(app, metrics)
    metered = gateway(
        app, route_table(ServingSettings()), KeyRing(tmp_path / "none.json"), listeners=[metrics]
    )
    with served(metered) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for place in range(3):
            assert client.get(f"/decisions/{place}").status_code == 404
        client.post("/predict", content=b"", headers={"Content-Type": "text/html"})
        time.sleep(2 * CARRY_SECONDS)
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        told = samples(answer.content)
    assert (
        told[
            ("creditrisk_request_seconds_count", (("route", "/decisions/{id}"), ("status", "4xx")))
        ]
        == 3
    )
    assert told[("creditrisk_requests_refused_total", (("reason", "content_type"),))] == 1
    assert told[("creditrisk_requests_refused_total", (("reason", "status_404"),))] == 3
    assert told[("creditrisk_requests_in_flight", ())] == 1  # the one that asks
    assert len({dict(labels).get("route") for _, labels in told}) < 10


def test_dashboards_and_alerts_name_only_what_the_api_exports(
    metrics: Metrics, tmp_path: Path
) -> None:
    """A renamed metric leaves a panel empty and an alert silent, and nobody notices."""
    app = FastAPI()
    metered = gateway(
        app, route_table(ServingSettings()), KeyRing(tmp_path / "none.json"), listeners=[metrics]
    )
    all_observed(metrics)
    with served(metered) as port:
        httpx.post(f"http://127.0.0.1:{port}/predict")
        time.sleep(0.1)
    exported: dict[str, set[str]] = {}
    for name, labels in samples(metrics.text()):
        exported.setdefault(name, set()).update(label for label, _ in labels)
    dashboards = {
        path.name: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))
    }
    assert list(dashboards) == ["creditrisk-api.json", "creditrisk-loop.json"]
    panels = [panel for one in dashboards.values() for panel in one["panels"]]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    expressions += [rule["expr"] for rule in rules]
    named = {name for text in expressions for name in re.findall(r"\bcreditrisk_\w+", text)}
    assert named <= set(exported), named - set(exported)
    for text in expressions:
        used = set(re.findall(r"(\w+)=~?\"", text)) | {
            label
            for group in re.findall(r"by \(([^)]*)\)", text)
            for label in group.replace(" ", "").split(",")
        }
        of_these = set.union(*(exported[name] for name in re.findall(r"\bcreditrisk_\w+", text)))
        assert used <= of_these, (text, used - of_these)
    families = {re.sub(r"_(total|count|sum|bucket|created)$", "", name) for name in exported}
    assert {re.sub(r"_(total|count|sum|bucket)$", "", name) for name in named} == families, (
        "something is counted that nobody sees"
    )
    for one in dashboards.values():
        places = [tuple(panel["gridPos"][side] for side in "xy") for panel in one["panels"]]
        assert len(set(places)) == len(places)
        assert len({panel["title"] for panel in one["panels"]}) == len(one["panels"])
    assert len({one["uid"] for one in dashboards.values()}) == len(dashboards)
    shown = (ROOT / "docker-compose.yml").read_text()
    for name in dashboards:
        assert f"./deploy/grafana/{name}:/var/lib/grafana/dashboards/{name}:ro" in shown
    assert len({rule["alert"] for rule in rules}) == len(rules)
