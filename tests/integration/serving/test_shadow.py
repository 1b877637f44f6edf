"""Shadow mode: a real challenger beside a real champion in the API as a process of its own, up to the gate that judges it."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from creditrisk_assets.decisions.archive import LiveDecisions, decision_found, keep_finished
from creditrisk_assets.decisions.log import open_segments
from creditrisk_assets.decisions.sets import kept_decision
from creditrisk_assets.decisions.shadow import keep_shadows, shadow_days, shadow_scores
from creditrisk_assets.defs import event_log
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Bundle
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import today
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.loop import Loop
from tests.support.metrics import samples
from tests.support.places import REPOSITORY
from tests.support.trained import history, poorly_trained_loop
from tests.support.trials.site import Site
from tests.support.waiting import until

CUSTOMERS = simulate(260, 77)[PORTFOLIO.field_names].to_dict("records")


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A champion, and a better model that was registered and has not been judged yet."""
    made = poorly_trained_loop(tmp_path_factory.mktemp("shadowed") / "site", tmp_path_factory)
    made.settings.raw_data = history(made.home, poor=False)
    assert made.make("raw_data", "features", "model").success
    assert event_log.latest_contender(made.instance) == "2"
    yield made
    made.instance.dispose()


@pytest.fixture
def site(loop: Loop) -> Iterator[Site]:
    """The API over it, which a test starts and may kill."""
    made = Site(loop, environment={"PYTHONPATH": str(REPOSITORY)})
    yield made
    made.stop()


def challenger(loop: Loop) -> Bundle:
    registered = loop.metadata("model")
    return BundleStore(loop.settings.data_dir).load(registered["bundle_sha256"])


def counted(site: Site, name: str) -> float:
    told = samples(httpx.get(f"{site.url}/metrics").content)
    return sum(value for (sample, _), value in told.items() if sample == name)


def start(site: Site) -> None:
    """Start the API and wait until it has its challenger."""

    def loaded() -> int:
        return site.log.read_text().count('"event": "challenger"') if site.log.exists() else 0

    before = loaded()
    site.start()
    until(lambda: loaded() > before, 20)


def kept_shadows(loop: Loop) -> pa.Table:
    """All that is kept, when no process writes any more; the API's own keeper may be at its last look still."""
    settings = loop.settings
    live = LiveDecisions.of(settings)

    def all_are_kept() -> bool:
        with contextlib.closing(live.index(settings.idempotency_file)) as index:
            keep_finished(live, index, today())
        keep_shadows(
            settings.shadow_segments, settings.shadow, settings.decision_log_codec, settings.scratch
        )
        return not open_segments(settings.open_segments) and not open_segments(
            settings.shadow_segments
        )

    until(all_are_kept, 10)
    days = shadow_days(settings.shadow)
    return pa.concat_tables(
        table
        for day in days
        for table in shadow_scores(settings.shadow, day, loop.metadata("model")["bundle_sha256"])
    )


def assert_made_again(loop: Loop, kept: pa.Table) -> None:
    """Every PD of the challenger is what its bundle gives on the record of the decision as it is kept, to the bit."""
    bundle = challenger(loop)
    for row in kept.to_pylist():
        champion, record = kept_decision(loop.settings.decisions, row["decision_id"])
        columns = {
            name: record.column(name).to_numpy(zero_copy_only=False) for name in bundle.input_names
        }
        assert (
            row["challenger_probability"]
            == bundle.score(bundle.raw(columns)).default_probability[0]
        )
        assert row["champion_probability"] == record.column("default_probability")[0].as_py()
        assert row["champion_version"] == champion.model_version == "1"
        assert (row["challenger_version"], row["bundle_sha256"]) == ("2", bundle.sha256)


def test_a_challenger_killed_with_its_process_takes_shadows_with_it_and_no_decision(
    loop: Loop, site: Site
) -> None:
    start(site)
    acknowledged: list[dict[str, Any]] = []

    def ask() -> None:
        with httpx.Client(base_url=site.url) as client, contextlib.suppress(httpx.HTTPError):
            acknowledged.extend(
                client.post("/predict", json=one).raise_for_status().json()
                for one in CUSTOMERS * 20
            )

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: len(acknowledged) >= 200, 20)
    until(lambda: counted(site, "creditrisk_shadow_scores_total") > 0, 10)
    site.kill_all()
    thread.join()
    kept = kept_shadows(loop)
    assert len(kept) > 0
    live = LiveDecisions.of(loop.settings)
    for answer in acknowledged[-20:]:  # the last ones told, those that a crash could have taken
        _, record = decision_found(live, answer["decision_id"])
        assert record.column("default_probability")[0].as_py() == answer["default_probability"]
    assert_made_again(loop, kept.slice(max(len(kept) - 50, 0)))


def test_every_decision_is_shadowed_to_the_bit_and_the_gate_is_told(loop: Loop, site: Site) -> None:
    start(site)
    with httpx.Client(base_url=site.url) as client:
        singles = [
            client.post("/predict", json=one).raise_for_status().json() for one in CUSTOMERS[:60]
        ]
        batch = client.post("/predict/batch", json=CUSTOMERS[60:]).raise_for_status().json()
    answers = {one["decision_id"]: one for one in (*singles, *batch)}
    until(lambda: counted(site, "creditrisk_shadow_scores_total") == len(answers), 10)
    assert counted(site, "creditrisk_shadow_dropped_total") == 0
    assert site.stop() in (0, -15)
    kept = kept_shadows(loop)
    mine = kept.filter(pc.is_in(kept["decision_id"], pa.array(list(answers))))
    assert sorted(mine["decision_id"].to_pylist()) == sorted(answers)
    told = [answers[one]["default_probability"] for one in mine["decision_id"].to_pylist()]
    assert mine["champion_probability"].to_pylist() == told
    assert not np.array_equal(
        mine["champion_probability"].to_numpy(), mine["challenger_probability"].to_numpy()
    )
    assert_made_again(loop, mine)

    assert loop.make("champion").success
    assert loop.champion().model_version == "2", loop.champion().reason
    (test,) = [
        one
        for one in loop.metadata("champion")["verdict_document"]["tests"]
        if one["name"] == "shadow_agrees"
    ]
    assert (test["passed"], test["n"]) == (True, len(kept))
    assert (
        f"{len(kept):,} decisions of 1 days up to {today()} were shadowed; 0 could not be scored and 0 do not"
        in test["sentence"]
    )
    site.start()  # the challenger is champion now, and nobody is beside it
    httpx.post(f"{site.url}/predict", json=CUSTOMERS[0]).raise_for_status()
    assert counted(site, "creditrisk_shadow_scores_total") == 0
