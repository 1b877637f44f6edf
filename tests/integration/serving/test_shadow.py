"""Shadow scores of a real challenger on decisions of the API as a process of its own, up to the gate that judges it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from creditrisk_assets.decisions.archive import ApiDecisions, archive_finished
from creditrisk_assets.decisions.log import segments_in
from creditrisk_assets.decisions.shadow import shadow_scores
from creditrisk_assets.defs import event_log
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import today
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.loop import Loop, api, checks
from tests.support.trained import history, poorly_trained_loop
from tests.support.waiting import until

CUSTOMERS: list[dict[str, Any]] = [
    {str(name): value for name, value in row.items()}
    for row in simulate(260, 77)[PORTFOLIO.field_names].to_dict("records")
]


@pytest.fixture
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A champion, and a better model that was registered and has not been judged yet."""
    made = poorly_trained_loop(tmp_path_factory.mktemp("shadowed") / "site", tmp_path_factory)
    made.settings.raw_data = history(made.home, poor=False)
    assert made.make("raw_data", "features", "model").success
    assert event_log.latest_registered_version(made.instance) == "2"
    yield made
    made.close()


def archive(loop: Loop) -> None:
    """Store every decision, when no process writes any more; the API's own archiver may be at its last pass still."""
    settings = loop.settings
    places = ApiDecisions.of(settings)

    def all_are_stored() -> bool:
        with contextlib.closing(places.index(settings.idempotency_file)) as index:
            archive_finished(places, index, today())
        return not segments_in(settings.open_segments)

    until(all_are_stored, 10)


def test_every_decision_is_scored_by_the_challenger_too_and_the_gate_takes_it_into_account(
    loop: Loop,
) -> None:
    result = checks(loop.run("audit"))["challenger_agrees_in_shadow"]
    assert result.passed
    assert "no decision by the API" in str(result.metadata["summary"].value)
    with api(loop) as client:
        answers = [
            client.post("/predict", json=one).raise_for_status().json() for one in CUSTOMERS[:60]
        ]
        answers += client.post("/predict/batch", json=CUSTOMERS[60:]).raise_for_status().json()
    archive(loop)
    challenger = BundleStore(loop.settings.data_dir).load(loop.metadata("model")["bundle_sha256"])
    scores = shadow_scores(loop.settings.decisions, 30, challenger, "1")
    assert (scores.rows, scores.failed) == (len(answers), 0)
    answered = sorted(answer["default_probability"] for answer in answers)
    assert sorted(scores.champion.tolist()) == answered
    assert not np.array_equal(scores.champion, scores.challenger)
    encoded = challenger.encoder(CUSTOMERS)
    again = challenger.score(encoded).default_probability
    assert sorted(scores.challenger.tolist()) == sorted(again.tolist())

    result = checks(loop.run("audit"))["challenger_agrees_in_shadow"]
    assert (result.passed, result.metadata["rows"].value) == (True, len(answers))

    assert loop.make("champion").success
    assert loop.champion().model_version == "2", loop.champion().reason
    (test,) = [
        one
        for one in loop.metadata("champion")["verdict_document"]["tests"]
        if one["name"] == "shadow_agrees"
    ]
    assert (test["passed"], test["n"]) == (True, len(answers))
    assert (
        f"{len(answers):,} decisions of 1 days up to {today()} were scored by the challenger, too"
        in test["sentence"]
    )
    result = checks(loop.run("audit"))["challenger_agrees_in_shadow"]
    assert "no challenger waits" in str(result.metadata["summary"].value)
