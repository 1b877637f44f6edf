"""The API as a process of its own, over real HTTP, on the store of a real loop."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.simulation.card_customers import simulate
from serving.inference.champion_compiler import WORTH_CUSTOMERS
from tests.support.champions import name_champion
from tests.support.loop import Loop, api, customers
from tests.support.metrics import samples
from tests.support.places import REFUSING_PROXY
from tests.support.policies import policy_of
from tests.support.trained import trained_loop
from tests.support.waiting import until

EXAMPLE_CUSTOMER = dict(PORTFOLIO.example)


@pytest.fixture(scope="module")
def client(trained: Loop) -> Iterator[httpx.Client]:
    with api(trained) as client:
        yield client


def test_an_answer_names_the_model_that_made_it_and_is_the_bundle_s_own(
    trained: Loop, client: httpx.Client
) -> None:
    body = client.post("/predict", json=EXAMPLE_CUSTOMER).raise_for_status().json()
    record = trained.champion()
    bundle = trained.bundle(record)
    expected = bundle.decide(
        np.array([list(EXAMPLE_CUSTOMER.values())], dtype=np.float32), record.rule
    )
    texts = {reason.code: reason.text for reason in PORTFOLIO.reasons}
    assert bundle.reason_codes(expected)[0]
    assert body.pop("decision_id").endswith("-0")
    assert body == {
        "prediction": int(expected.prediction[0]),
        "default_probability": float(expected.default_probability[0]),
        "score": float(expected.score[0]),
        "reasons": [
            {"code": code, "text": texts[code]} for code in bundle.reason_codes(expected)[0]
        ],
        "model_version": record.model_version,
        "bundle_sha256": record.bundle_sha256,
        "cut_off": bundle.manifest.cut_off,
        "degraded": False,
    }


def test_published_upper_case_names_are_the_same_request(client: httpx.Client) -> None:
    upper = {name.upper(): value for name, value in EXAMPLE_CUSTOMER.items()}
    answers = [
        client.post("/predict", json=customer).json() for customer in (upper, EXAMPLE_CUSTOMER)
    ]
    for answer in answers:
        del answer["decision_id"]
    assert answers[0] == answers[1]


def test_batch_and_single_answers_are_the_same_bits(client: httpx.Client) -> None:
    rows = simulate(200, 71)[PORTFOLIO.field_names].to_dict("records")
    batch = client.post("/predict/batch", json=rows).raise_for_status().json()
    singles = [client.post("/predict", json=row).json()["default_probability"] for row in rows[:40]]
    assert [one["default_probability"] for one in batch][:40] == singles
    assert len(batch) == 200


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"pay_0": 99}, "pay_0", "Input should be -2, -1, 0"),
        ({"limit_bal": "many"}, "limit_bal", "not a number: 'many'"),
        ({"limit_bal": "120000"}, "limit_bal", "not a number: '120000'"),
        ({"limit_bal": True}, "limit_bal", "not a number: True"),
        ({"limit_bal": 0}, "limit_bal", "greater than or equal to 1"),
        ({"age": 24.5}, "age", "valid integer"),
        ({"bill_amt1": 1e308}, "bill_amt1", "less than or equal to 16777216"),
        ({"bill_amt1": None}, "bill_amt1", "not a number: None"),
        ({"income": 1}, "income", "Extra inputs are not permitted"),
        ({"LIMIT_BAL": 5}, "body", "limit_bal stands twice"),
    ],
)
def test_a_field_out_of_order_is_refused_by_name(
    client: httpx.Client, change: dict[str, object], field: str, message: str
) -> None:
    response = client.post("/predict", json={**EXAMPLE_CUSTOMER, **change})
    assert response.status_code == 422
    problems = {problem["field"]: problem["problem"] for problem in response.json()["problems"]}
    assert message in problems[field]


def test_every_missing_field_is_named(client: httpx.Client) -> None:
    response = client.post("/predict", json={})
    assert response.status_code == 422
    assert {problem["field"] for problem in response.json()["problems"]} == set(
        PORTFOLIO.field_names
    )


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"limit_bal": NaN}', b"\xff\xfe"])
def test_nonsense_is_refused_and_never_a_server_error(client: httpx.Client, body: bytes) -> None:
    response = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert 400 <= response.status_code < 500
    assert client.get("/ready").status_code == 200


def test_a_bad_record_in_a_batch_is_named_by_its_row_and_the_good_ones_are_decided(
    client: httpx.Client,
) -> None:
    response = client.post(
        "/predict/batch", json=[EXAMPLE_CUSTOMER, {**EXAMPLE_CUSTOMER, "pay_2": 77}]
    )
    good, bad = response.raise_for_status().json()
    assert good["decision_id"]
    assert (bad["row"], bad["problems"][0]["field"], bad["problems"][0]["value"]) == (
        1,
        "pay_2",
        "77",
    )


def test_after_many_customers_compiled_code_decides_with_the_bits_of_the_graphs(
    trained: Loop, client: httpx.Client
) -> None:
    """Status, metrics and each stored decision say which runtime it was."""
    rows = simulate(WORTH_CUSTOMERS, 72)[PORTFOLIO.field_names].to_dict("records")
    (by_graphs, *_) = client.post("/predict/batch", json=rows[:1]).raise_for_status().json()
    for start in range(0, len(rows), 1_000):
        client.post("/predict/batch", json=rows[start : start + 1_000]).raise_for_status()
    until(lambda: client.get("/ready").json()["runtime"] == "compiled code", 60)
    told = samples(client.get("/metrics").content)
    assert told[("creditrisk_runtime_info", (("runtime", "compiled"),))] == 1
    assert told[("creditrisk_runtime_info", (("runtime", "onnxruntime"),))] == 0
    answers = client.post("/predict/batch", json=rows[:500]).raise_for_status().json()
    raw = np.array([list(row.values()) for row in rows[:500]], dtype=np.float32)
    expected = trained.bundle().decide(raw, trained.champion().rule)
    assert [one["default_probability"] for one in answers] == (
        expected.default_probability.tolist()
    )
    codes = [[reason["code"] for reason in one["reasons"]] for one in answers]
    assert codes == trained.bundle().reason_codes(expected)
    for decided, runtime in ((by_graphs, "onnxruntime"), (answers[0], "compiled")):
        stored = client.get(f"/decisions/{decided['decision_id']}").json()
        assert (stored["runtime"], stored["answer"]) == (runtime, decided)


def test_model_info_tells_what_the_model_is(trained: Loop, client: httpx.Client) -> None:
    body = client.get("/model-info").json()
    assert body["mlflow_uri"] == trained.champion().mlflow_uri
    assert body["inputs"] == PORTFOLIO.field_names
    assert body["not_used"] == ["sex", "education", "marriage", "age"]
    assert body["metrics"]["roc_auc"] > 0.7


def test_the_documentation_needs_no_other_host(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "https://" not in page.text
    schema = client.get("/openapi.json").json()["components"]["schemas"]["Customer"]
    assert set(schema["properties"]) == {*PORTFOLIO.field_names, PORTFOLIO.identifier}
    assert schema["properties"]["limit_bal"]["description"] == "credit limit, own and family, NT$"


def test_the_drift_report_of_a_day_is_served(trained: Loop, client: httpx.Client) -> None:
    folder = trained.settings.reports / "drift" / "2020-01-01"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<html>report</html>")
    assert client.get("/reports/drift/2020-01-01").text == "<html>report</html>"
    assert client.get("/reports/drift/2020-01-02").status_code == 404
    assert client.get("/reports/drift/..%2f..").status_code in (404, 422)


def test_with_no_champion_the_api_lives_and_says_what_to_run(fresh: Loop) -> None:
    with api(fresh) as client:
        assert client.get("/health").json() == {"status": "alive"}
        for response in (client.get("/ready"), client.post("/predict", json=EXAMPLE_CUSTOMER)):
            assert response.status_code == 503
            assert response.headers["Retry-After"] == "5"
            assert "run `make train`" in response.json()["detail"]


def test_a_new_champion_is_served_within_five_seconds_without_failing_a_request(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The swap under load: every answer is whole, by the old version or by the new one; a bundle that cannot be proven is
    refused and the champion before it goes on.
    """
    loop = trained_loop(tmp_path / "site", tmp_path_factory)
    old = loop.champion()
    landed = customers(1_500, 51, 6_000_000)
    loop.land_day("2026-05-01", landed)
    loop.land_outcomes("2026-05-01", landed)
    assert loop.run("score_production", "2026-05-01").success
    assert loop.run("assess_performance", "2026-05-01").success
    loop.settings.policy = policy_of({"gate.minimum_gain": 0.0})
    assert loop.run("retrain").success
    new = loop.metadata("candidate_model")
    bundles = BundleStore(loop.settings.data_dir)
    hashes = {old.model_version: old.bundle_sha256, new["model_version"]: new["bundle_sha256"]}
    raw = np.array([list(EXAMPLE_CUSTOMER.values())], dtype=np.float32)
    expected = {
        version: float(bundles.load(sha256).score(raw).default_probability[0])
        for version, sha256 in hashes.items()
    }

    with api(loop) as client:
        answers: list[tuple[str, float]] = []
        failures: list[object] = []
        stop = threading.Event()

        def call() -> None:
            with httpx.Client(base_url=client.base_url, timeout=10) as mine:
                while not stop.is_set():
                    response = mine.post("/predict", json=EXAMPLE_CUSTOMER)
                    if response.status_code != 200:
                        failures.append(response.text)
                    else:
                        body = response.json()
                        answers.append((body["model_version"], body["default_probability"]))

        threads = [threading.Thread(target=call) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            served = client.get("/ready").json()["model_version"]
            other = next(version for version in expected if version != served)

            def name_bundle(version: str, sha256: str) -> None:
                name_champion(
                    loop,
                    old.model_copy(
                        update={"model_version": version, "bundle_sha256": sha256, "fallback": None}
                    ),
                )

            name_bundle(other, hashes[other])
            until(lambda: client.get("/ready").json()["model_version"] == other, 5)
            name_bundle(served, "0" * 64)
            until(lambda: client.get("/ready").json()["problem"] is not None, 5)
            assert "cannot read" in client.get("/ready").json()["problem"]
            assert client.get("/ready").json()["model_version"] == other
            name_bundle(served, hashes[served])
            until(lambda: client.get("/ready").json()["model_version"] == served, 5)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert not failures
    assert {version for version, _ in answers} == set(expected)
    assert all(probability == expected[version] for version, probability in answers)
    loop.close()


def test_a_worker_holds_neither_training_libraries_nor_the_orchestrator(
    trained: Loop, client: httpx.Client
) -> None:
    """It unpickles nothing, starts fast and is small because they are not in it."""
    assert client.get("/ready").status_code == 200
    # With a database it needs SQLAlchemy, and with an object store its client.
    only_with_a_database, most = ("", 220) if trained.settings.database_url else ("sqlalchemy", 170)
    code = (
        "import json, sys; from serving.app import app_from_environment; app = app_from_environment(); "
        "holder = app.app.router.default.state.holder; holder.refresh(); assert holder.current and not holder.problem, holder.problem; "
        "names = sys.argv[1].split(); "
        "assert 'pyarrow' not in sys.modules; import pyarrow; pyarrow.array(['it would import pandas']); "
        "status = dict(line.split(':', 1) for line in open('/proc/self/status')); "
        "print(json.dumps([[name for name in names if name in sys.modules], int(status['VmRSS'].split()[0]) / 1024]))"
    )
    environment = {
        **trained.environment,
        "PATH": "/usr/bin:/bin",
    }
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            f"sklearn mlflow pandas evidently skops onnx dagster grpc {only_with_a_database}",
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=trained.home,
    )
    modules, megabytes = json.loads(result.stdout.strip().splitlines()[-1])
    assert modules == []
    assert megabytes < most


def test_a_file_scored_here_through_the_api_and_by_mlflow_has_the_same_numbers(
    trained: Loop, client: httpx.Client, tmp_path: Path
) -> None:
    """One artifact decides: `creditrisk score`, `creditrisk score --url` and MLflow give the same bits on 1,000 rows."""
    source = tmp_path / "production_clean.csv"
    rows = simulate(1_000, 61).drop(columns=PORTFOLIO.target)
    rows.columns = [name.upper() for name in rows.columns]
    rows.to_csv(source, index=False)
    environment = {
        **trained.environment,
        "PATH": "/usr/bin:/bin",
        **REFUSING_PROXY,
    }
    results = []
    for name, extra in (("local.csv", []), ("api.parquet", ["--url", str(client.base_url)])):
        command = [
            sys.executable,
            "-m",
            "creditrisk_assets.cli.main",
            "score",
            str(source),
            "-o",
            str(tmp_path / name),
            *extra,
        ]
        subprocess.run(command, env=environment, check=True, cwd=trained.home, capture_output=True)
        path = tmp_path / name
        results.append(
            pd.read_parquet(path)
            if path.suffix == ".parquet"
            else pd.read_csv(path, float_precision="round_trip")
        )
    local, remote = results
    assert list(local.columns[:24]) == list(rows.columns)
    by_mlflow = trained.mlflow_model(trained.champion().mlflow_uri).predict(
        rows.drop(columns="ID").rename(columns=str.lower).astype("float64")
    )
    for column in ("default_probability", "score"):
        assert np.array_equal(local[column].to_numpy(), remote[column].to_numpy())
        assert np.array_equal(local[column].to_numpy(), by_mlflow[column].to_numpy())
    assert np.array_equal(
        local["prediction"].to_numpy(), remote["prediction"].to_numpy(dtype=np.int64)
    )
    assert local["reasons"].fillna("").tolist() == remote["reasons"].fillna("").tolist()
    assert local["reasons"].str.contains("R0").any()
    assert set(local["model_version"].astype(str)) == {trained.champion().model_version}
