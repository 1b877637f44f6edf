"""What becomes of the API's decisions: kept once, found again, replayed to the bit, landed as customers of their day."""

import datetime
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from creditrisk_assets.decisions.archive import (
    ApiDecisions,
    archive_finished,
)
from creditrisk_assets.decisions.replay import replay_set
from creditrisk_assets.decisions.sets import DecisionsError, sets_of, stored_decision
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import today
from creditrisk_assets.simulation.card_customers import simulate
from serving.access.keys import Scope, create_key
from tests.support.loop import Loop, api, checks
from tests.support.trained import trained_loop
from tests.support.trials.crashes import crash
from tests.support.trials.site import Site
from tests.support.waiting import until

EXAMPLE = dict(PORTFOLIO.example)


@pytest.fixture(scope="module")
def closed_api(
    trained: Loop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, dict[str, str], Path]]:
    """The API with two workers and keys; of each caller the header that it sends; and the API's own folder."""
    folder = tmp_path_factory.mktemp("api")
    keys = folder / "keys.json"
    callers: dict[str, Scope] = {"bank": "predict", "fintech": "predict", "analyst": "read"}
    headers = {name: f"Bearer {create_key(keys, name, [scope])}" for name, scope in callers.items()}
    environment = {
        "CREDITRISK_API_KEYS_FILE": str(keys),
        "CREDITRISK_API_DIR": str(folder),
        "CREDITRISK_WORKERS": "2",
    }
    with api(trained, **environment) as client:
        until(lambda: client.get("/ready").status_code == 200, 30)
        yield client, headers, folder


def predict(
    client: httpx.Client, authorization: str, customer: dict[str, Any], **headers: str
) -> httpx.Response:
    return client.post(
        "/predict", json=customer, headers={"Authorization": authorization, **headers}
    )


def run(loop: Loop, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {
        **loop.environment,
        "CREDITRISK_API_DIR": str(folder),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    command = [sys.executable, "-m", "creditrisk_assets.cli.main", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=loop.home, check=False
    )


def test_a_decision_is_found_by_those_who_may_see_it(
    closed_api: tuple[httpx.Client, dict[str, str], Path],
) -> None:
    """Sex, marital status and age are nobody's business who only asks for decisions; another bank's customer is none at all."""
    client, keys, _ = closed_api
    answer = (
        predict(client, keys["bank"], {**EXAMPLE, "id": "4711"}, **{"X-Request-ID": "mine"})
        .raise_for_status()
        .json()
    )
    address = f"/decisions/{answer['decision_id']}"
    seen = {name: client.get(address, headers={"Authorization": key}) for name, key in keys.items()}
    assert client.get(address).status_code == 401
    assert seen["fintech"].status_code == 404
    assert seen["fintech"].json()["detail"] == f"no decision {answer['decision_id']}"
    whole, own = seen["analyst"].json(), seen["bank"].json()
    assert whole["customer"] == {**EXAMPLE, "id": "4711"}
    assert (whole["caller"], whole["request_id"]) == ("bank", "mine")
    assert whole["answer"] == own["answer"] == answer
    assert set(whole["customer"]) - set(own["customer"]) == set(PORTFOLIO.protected)
    for wrong, status in (
        (answer["decision_id"] + "9", 404),
        ("2026-02-30-0123456789abcdef-0", 404),
        ("..%2f..%2f", 404),
        ("x", 422),
    ):
        response = client.get(f"/decisions/{wrong}", headers={"Authorization": keys["analyst"]})
        assert response.status_code == status, wrong


def test_a_refusal_names_a_protected_value_only_to_those_who_may_read(
    closed_api: tuple[httpx.Client, dict[str, str], Path],
) -> None:
    client, keys, _ = closed_api
    response = predict(client, keys["bank"], {**EXAMPLE, "age": 17, "pay_0": 99})
    values = {problem["field"]: problem["value"] for problem in response.json()["problems"]}
    assert values == {"age": "redacted", "pay_0": "99"}


def test_one_key_is_one_decision_on_whatever_worker_and_after_a_restart(
    trained: Loop, closed_api: tuple[httpx.Client, dict[str, str], Path]
) -> None:
    client, keys, folder = closed_api
    answers: list[dict[str, Any]] = []

    def ask() -> None:
        with httpx.Client(
            base_url=client.base_url, timeout=30
        ) as mine:  # a connection of its own: any worker
            answers.append(
                predict(mine, keys["bank"], EXAMPLE, **{"Idempotency-Key": "once"})
                .raise_for_status()
                .json()
            )

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 12
    assert all(answer == answers[0] for answer in answers)
    other = predict(
        client, keys["bank"], {**EXAMPLE, "limit_bal": 5}, **{"Idempotency-Key": "once"}
    )
    assert other.status_code == 422
    assert "was used for another request" in other.json()["detail"]
    for wrong in ("", "x" * 256, "two words", "tab\there"):
        assert (
            predict(client, keys["bank"], EXAMPLE, **{"Idempotency-Key": wrong}).status_code == 400
        )
    theirs = (
        predict(client, keys["fintech"], EXAMPLE, **{"Idempotency-Key": "once"})
        .raise_for_status()
        .json()
    )
    assert theirs["decision_id"] != answers[0]["decision_id"]
    environment = {
        "CREDITRISK_API_KEYS_FILE": str(folder / "keys.json"),
        "CREDITRISK_API_DIR": str(folder),
    }
    with api(trained, **environment) as again:
        until(lambda: again.get("/ready").status_code == 200, 30)
        assert (
            predict(again, keys["bank"], EXAMPLE, **{"Idempotency-Key": "once"}).json()
            == answers[0]
        )


def test_a_segment_that_cannot_be_opened_refuses_keyed_requests_with_a_reason_until_it_can(
    closed_api: tuple[httpx.Client, dict[str, str], Path],
) -> None:
    """On a disk that had become read-only the API called it a fault of its own (500)."""
    client, keys, folder = closed_api
    unreadable = folder / "log" / "open" / "2026-01-01-0123456789abcdef.log"
    unreadable.mkdir()
    try:
        refused = predict(client, keys["bank"], EXAMPLE, **{"Idempotency-Key": "disk"})
    finally:
        unreadable.rmdir()
    assert refused.status_code == 503
    assert "the decision log cannot be written" in refused.json()["detail"]
    assert "Retry-After" in refused.headers
    again = partial(predict, client, keys["bank"], EXAMPLE, **{"Idempotency-Key": "disk"})
    until(lambda: again().status_code == 200, 10)


def test_a_batch_that_is_sent_again_is_not_decided_again(
    closed_api: tuple[httpx.Client, dict[str, str], Path],
) -> None:
    """Its connection broke; some rows had been decided, others not."""
    client, keys, _ = closed_api
    rows = simulate(700, 81)[PORTFOLIO.field_names].to_dict("records")
    rows[5] = {**rows[5], "pay_0": 99}
    headers = {"Authorization": keys["bank"], "Idempotency-Key": "batch"}
    first = (
        client.post("/predict/batch", json=rows[:300], headers=headers).raise_for_status().json()
    )
    whole = client.post("/predict/batch", json=rows, headers=headers).raise_for_status().json()
    assert whole[:300] == first
    assert [row for row, one in enumerate(whole) if "problems" in one] == [5]
    ids = [one["decision_id"] for one in whole if "problems" not in one]
    assert len(set(ids)) == 699


def test_an_open_decision_is_replayed_and_the_day_too_once_it_is_kept(
    trained: Loop, closed_api: tuple[httpx.Client, dict[str, str], Path]
) -> None:
    client, keys, folder = closed_api
    answer = predict(client, keys["bank"], EXAMPLE).raise_for_status().json()
    replayed = run(trained, folder, "replay", answer["decision_id"], "--json")
    assert replayed.returncode == 0, replayed.stderr
    document = json.loads(replayed.stdout)
    assert document["exact"]
    assert document["now"]["default_probability"] == answer["default_probability"]
    assert json.loads(document["stored"]["answer"]) == answer


def test_live_customers_land_when_their_day_is_over_and_the_day_runs_like_any_other(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """What nobody lands is never monitored, matures nowhere and teaches the next model nothing."""
    loop = trained_loop(tmp_path / "site", tmp_path_factory)
    customers = simulate(120, 91, 5_000)
    rows = customers[["id", *PORTFOLIO.field_names]].to_dict("records")
    with api(loop) as client:
        until(lambda: client.get("/ready").status_code == 200, 30)
        answers = client.post("/predict/batch", json=rows).raise_for_status().json()
        unnamed = client.post("/predict", json=EXAMPLE).raise_for_status().json()
    day = answers[0]["decision_id"][:10]
    live = ApiDecisions.of(loop.settings)
    index = live.index(loop.settings.idempotency_file)
    assert not (loop.settings.landing_production / day).exists()
    tomorrow = datetime.date.fromisoformat(day) + datetime.timedelta(days=1)
    kept = archive_finished(live, index, tomorrow)
    assert not kept.problems
    assert len(kept.landed) == 2
    assert not list(loop.settings.sealed_segments.iterdir())
    assert archive_finished(live, index, tomorrow) == type(kept)((), (), ())
    labels = pd.concat(
        [
            customers[["id", PORTFOLIO.target]],
            pd.DataFrame({"id": [unnamed["decision_id"]], PORTFOLIO.target: [1]}),
        ]
    )
    loop.land_outcomes(day, labels.astype({"id": "str"}))
    results = loop.settle()
    assert all(result.success for result in results)
    (agreement,) = [
        checks(result)["batch_equals_online"]
        for result in results
        if "batch_equals_online" in checks(result)
    ]
    assert agreement.passed
    assert (
        agreement.metadata["summary"].value == "121 of 121 live decisions compared, all to the bit"
    )
    scores = loop.frame("production_scores", day).set_index("id")
    assert len(scores) == 121
    told = {
        str(row["id"]): answer["default_probability"]
        for row, answer in zip(rows, answers, strict=True)
    }
    told[unnamed["decision_id"]] = unnamed["default_probability"]
    assert scores["default_probability"].to_dict() == told
    assert loop.metadata("outcomes", day)["customers with an outcome"] == 121
    for decisions in sets_of(loop.settings.decisions, day):
        assert replay_set(
            loop.settings.decisions, BundleStore(loop.settings.data_dir), decisions
        ).exact
    index.close()
    loop.close()


def test_after_crashes_nothing_that_was_told_is_missing_doubled_or_otherwise(
    trained: Loop, tmp_path: Path
) -> None:
    """Killed at random moments, one worker or all, started again, asked again with the same keys."""
    site = Site(trained, workers=2, environment={"CREDITRISK_API_DIR": str(tmp_path / "api")})
    before = trained.settings.api_dir
    trained.settings.api_dir = tmp_path / "api"
    try:
        outcome = crash(site, rounds=1, seed=3)
    finally:
        trained.settings.api_dir = before
    assert outcome.holds, outcome
    assert outcome.acknowledged > 20


def test_a_pass_without_anything_to_keep_does_nothing(trained: Loop, tmp_path: Path) -> None:
    result = run(trained, tmp_path / "nothing", "decisions", "archive")
    assert result.returncode == 0, result.stderr
    assert today().isoformat() not in str(list((tmp_path / "nothing").rglob("*.log")))


def test_before_a_backup_a_replica_finishes_its_segments_and_answers_on(
    trained: Loop, closed_api: tuple[httpx.Client, dict[str, str], Path]
) -> None:
    """A backup has the open segments of its own machine only; those of other replicas were lost
    with their disks.
    """
    client, keys, folder = closed_api
    decided = [
        predict(client, keys["bank"], EXAMPLE, **headers).raise_for_status().json()["decision_id"]
        for headers in ({}, {"Idempotency-Key": "before"})
    ]
    finished = run(trained, folder, "decisions", "archive", "--finish")
    assert finished.returncode == 0, finished.stderr
    for decision_id in decided:
        stored_decision(trained.settings.decisions, decision_id)
    after = predict(client, keys["bank"], EXAMPLE).raise_for_status().json()["decision_id"]
    with pytest.raises(DecisionsError, match="does not exist"):
        stored_decision(trained.settings.decisions, after)
    both = run(trained, folder, "decisions", "archive", "--finish", "--watch")
    assert both.returncode == 2
    assert "valid: one of them" in both.stderr
