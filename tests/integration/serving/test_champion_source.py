"""The champion in the API when things are missing: the orchestrator, the artifact store, the bundle itself. Real stores, real
processes; every test has a store of its own that names the bundles of one trained loop, copied.
"""

import contextlib
import functools
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner
from upath import UPath

from creditrisk_assets.cli.main import app
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import GRAPH, ChampionRecord, DecisionRule, load_bundle
from creditrisk_assets.scoring.bundle_store import BUNDLES, BundleStore
from creditrisk_assets.settings import IN_DAGSTER
from creditrisk_assets.simulation.processes import reserved_ports
from serving.inference.champion_file import FILE
from serving.inference.champion_holder import ChampionHolder, fallback_record
from serving.inference.champion_source import (
    DagsterInstanceSource,
    DagsterWebserverSource,
    PastChampion,
    Source,
    SourceError,
    source_of,
)
from tests.support.champion_file import published
from tests.support.champions import name_champion
from tests.support.folders import copy_folder, move_folder, remove_folder
from tests.support.loop import Loop, api
from tests.support.pages import text_of
from tests.support.waiting import until
from tests.support.webserver import webserver

CUSTOMER = dict(PORTFOLIO.example)


@dataclass
class Site:
    """A store that names a champion, and artifacts that a test may take away."""

    loop: Loop
    artifacts: UPath
    first: ChampionRecord

    @classmethod
    def of(cls, trained: Loop, folder: Path) -> "Site":
        record = trained.champion()
        assert record.fallback is not None
        loop = Loop.of(folder / "site")
        artifacts = loop.settings.data_dir / BUNDLES
        copy_folder(trained.settings.data_dir / BUNDLES, artifacts)
        return cls(loop, artifacts, record)

    @property
    def bundle(self) -> UPath:
        return self.artifacts / self.first.bundle_sha256

    @property
    def fallback(self) -> UPath:
        assert self.first.fallback is not None
        return self.artifacts / self.first.fallback.bundle_sha256

    @property
    def bundles(self) -> BundleStore:
        return BundleStore(self.loop.settings.data_dir)

    @property
    def copies(self) -> Path:
        return self.loop.settings.champion_folder

    def name(self, record: ChampionRecord, **changed: Any) -> ChampionRecord:
        """Say that a record is champion, with changes."""
        return name_champion(self.loop, record.model_copy(update=changed))

    def answer(self, place: UPath, rule: DecisionRule) -> tuple[float, float, int, list[str]]:
        """What a bundle says of the example: PD, score, prediction, reasons."""
        bundle = load_bundle(str(place))
        said_of = bundle.decide(bundle.encoder([CUSTOMER]), rule)
        numbers = (
            float(said_of.default_probability[0]),
            float(said_of.score[0]),
            int(said_of.prediction[0]),
        )
        return *numbers, bundle.reason_codes(said_of)[0]


def told(body: dict[str, Any]) -> tuple[float, float, int, list[str]]:
    """The same of an answer."""
    reasons = [reason["code"] for reason in body["reasons"]]
    return body["default_probability"], body["score"], body["prediction"], reasons


@pytest.fixture
def site(trained: Loop, tmp_path: Path) -> Iterator[Site]:
    """A store without a champion so far."""
    made = Site.of(trained, tmp_path)
    yield made
    made.loop.close()


@pytest.fixture
def named(site: Site, trained: Loop) -> ChampionRecord:
    """The champion that the site's store names, by a rule that is not the bundle's own."""
    rule = trained.champion().rule
    return site.name(trained.champion(), rule=rule.model_copy(update={"cut_off": rule.cut_off / 2}))


def test_a_read_only_webserver_is_enough_and_its_end_ends_nothing(
    site: Site, trained: Loop
) -> None:
    """An API that holds no database password and no Dagster: it waits for the webserver, follows it, and outlives it."""
    (port,) = reserved_ports(1)
    url = f"http://127.0.0.1:{port}"
    behind, instance = (
        DagsterWebserverSource(url),
        DagsterInstanceSource(lambda: site.loop.instance),
    )
    first = site.name(trained.champion())
    apart = {"CREDITRISK_CHAMPION_SOURCE": f"{url}/", "DAGSTER_HOME": None}
    with pytest.raises(SourceError, match="does not say which champion is in force: URLError"):
        behind.materializations()
    with api(site.loop, **apart) as client:
        refused = client.post("/predict", json=CUSTOMER)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert "does not say which champion is in force" in refused.json()["detail"]
        assert client.get("/health").status_code == 200
        with webserver(site.loop, port):
            until(lambda: client.get("/ready").status_code == 200, 10)
            until(lambda: client.get("/ready").json()["problem"] is None, 5)
            assert newest(behind) == newest(instance) == first
            second = site.name(
                first,
                model_version="2",
                rule=first.rule.model_copy(update={"cut_off": 0.5}),
                reason="it's “so”",
            )
            assert newest(behind) == second
            assert newest(behind).documents_uri == first.documents_uri
            seen, known = champions(behind), champions(instance)
            assert (
                [past.record for past in seen] == [past.record for past in known] == [second, first]
            )
            assert all(
                abs((a.at - b.at).total_seconds()) < 0.001 for a, b in zip(seen, known, strict=True)
            )
            until(lambda: client.post("/predict", json=CUSTOMER).json()["model_version"] == "2", 5)
        until(lambda: client.get("/ready").json()["problem"] is not None, 10)
        ready = client.get("/ready").json()
        assert (ready["model_version"], ready["degraded"]) == ("2", False)
        assert "does not say which champion is in force" in ready["problem"]
        assert told(client.post("/predict", json=CUSTOMER).json()) == site.answer(
            site.bundle, second.rule
        )
        page = text_of(client.get("/").text)
        assert (
            "The champion in force could not be read or loaded. Version 2 continues to answer."
            in page
        )
        assert "1 promoted" in page or "first" in page
    with api(site.loop, **apart) as client:  # a start while nobody can say who is champion
        assert "does not say which champion is in force" in client.get("/ready").json()["problem"]
        body = client.post("/predict", json=CUSTOMER).json()
        assert (body["model_version"], body["cut_off"], body["degraded"]) == ("2", 0.5, False)
        assert told(body) == site.answer(site.bundle, second.rule)


def test_the_process_that_reads_the_source_may_die_or_hang_and_nobody_who_asks_notices(
    site: Site, named: ChampionRecord
) -> None:
    with api(site.loop) as client:
        version = client.get("/ready").raise_for_status().json()["model_version"]
        (reader,) = readers(site.loop)
        os.kill(reader, signal.SIGKILL)
        site.name(named, model_version="2")
        until(lambda: client.get("/ready").json()["model_version"] == "2", 10)
        (another,) = readers(site.loop)
        assert (version, another == reader) == (named.model_version, False)
        os.kill(another, signal.SIGSTOP)
        try:
            until(lambda: client.get("/ready").json()["problem"] is not None, 15)
            assert "was not read for 10 s" in client.get("/ready").json()["problem"]
            assert (
                client.post("/predict", json=CUSTOMER).raise_for_status().json()["model_version"]
                == "2"
            )
        finally:
            os.kill(another, signal.SIGCONT)
        until(lambda: client.get("/ready").json()["problem"] is None, 5)


def readers(loop: Loop) -> list[int]:
    """The processes that read the source for the API of a loop."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                b"serving.ops.sidecars\0publisher" in (process / "cmdline").read_bytes()
                and (process / "cwd").resolve() == loop.home.resolve()
            ):
                found.append(int(process.name))
    return found


def test_without_its_bundle_the_scorecard_answers_and_says_so_until_the_bundle_is_back(
    site: Site, named: ChampionRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert named.fallback is not None
    graph = (site.bundle / GRAPH).read_bytes()
    (site.bundle / GRAPH).write_bytes(graph[:-1] + bytes([graph[-1] ^ 1]))
    with api(site.loop) as client:
        body = client.post("/predict", json=CUSTOMER).raise_for_status().json()
        assert (body["degraded"], body["model_version"]) == (
            True,
            f"{named.model_version}-fallback",
        )
        assert (body["bundle_sha256"], body["cut_off"]) == (
            named.fallback.bundle_sha256,
            named.rule.cut_off,
        )
        assert told(body) == site.answer(site.fallback, named.rule)
        ready = client.get("/ready").json()
        assert ready["degraded"] is True
        assert "has SHA-256" in ready["problem"]
        info = client.get("/model-info").json()
        assert (info["degraded"], info["training"]["family"]) == (True, "scorecard")
        counted = f'creditrisk_decisions_total{{degraded="true",model_version="{named.model_version}-fallback"'
        until(lambda: counted in client.get("/metrics").text, 5)
        page = text_of(client.get("/").text)
        assert "Its fallback scorecard answers in its place." in page
        assert "Degraded." in page
        assert "longer than the history below" not in page

        lower = site.name(named, rule=named.rule.model_copy(update={"cut_off": 0.01}))
        until(lambda: client.get("/model-info").json()["cut_off"] == 0.01, 5)
        assert told(client.post("/predict", json=CUSTOMER).json()) == site.answer(
            site.fallback, lower.rule
        )

        (site.bundle / GRAPH).write_bytes(graph)
        until(lambda: client.get("/ready").json()["degraded"] is False, 10)
        until(lambda: client.get("/ready").json()["problem"] is None, 5)
        restored = client.post("/predict", json=CUSTOMER).json()
        assert restored["model_version"] == named.model_version
        assert told(restored) == site.answer(site.bundle, lower.rule)
        assert told(restored)[0] != told(body)[0]

        kept = client.get(f"/decisions/{body['decision_id']}").json()
        assert kept["answer"] == body
    for name, value in site.loop.environment.items():
        monkeypatch.setenv(name, value)
    for answer, version, where in (
        (body, f"{named.model_version}-fallback", site.fallback),
        (restored, named.model_version, site.bundle),
    ):
        replayed = CliRunner().invoke(app, ["replay", answer["decision_id"], "--json"])
        assert replayed.exit_code == 0, replayed.output
        document = json.loads(replayed.stdout)
        assert document["exact"] is True
        assert (document["champion"]["model_version"], document["champion"]["artifact_uri"]) == (
            version,
            f"{BUNDLES}/{where.name}",
        )


def test_with_neither_bundle_nor_fallback_it_lives_and_asks_to_come_again(
    site: Site, named: ChampionRecord
) -> None:
    remove_folder(site.artifacts)
    with api(site.loop) as client:
        assert client.get("/health").status_code == 200
        for response in (
            client.get("/ready"),
            client.post("/predict", json=CUSTOMER),
            client.get("/model-info"),
        ):
            assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
            assert "could not be loaded (BundleError" in response.json()["detail"]
        assert "No request can be answered until it is." in text_of(client.get("/").text)


def test_the_copy_of_the_same_bundle_answers_undegraded_while_the_artifact_store_is_gone(
    site: Site, named: ChampionRecord
) -> None:
    away = site.artifacts.with_name("away")
    with api(site.loop) as client:
        before = client.post("/predict", json=CUSTOMER).json()
    move_folder(site.artifacts, away)
    with api(site.loop) as client:
        ready = client.get("/ready").json()
        assert (ready["degraded"], ready["model_version"]) == (False, named.model_version)
        assert f"bundle {site.bundle}: cannot read " in ready["problem"]
        body = client.post("/predict", json=CUSTOMER).json()
        assert {name: body[name] for name in body if name != "decision_id"} == {
            name: before[name] for name in before if name != "decision_id"
        }
        moved = site.name(
            named, rule=named.rule.model_copy(update={"cut_off": 0.9})
        )  # a new rule for the same bytes
        until(lambda: client.get("/model-info").json()["cut_off"] == 0.9, 5)
        assert client.get("/ready").json()["problem"] is not None
        move_folder(away, site.artifacts)
        until(lambda: client.get("/ready").json()["problem"] is None, 12)
        assert told(client.post("/predict", json=CUSTOMER).json()) == site.answer(
            site.bundle, moved.rule
        )


def test_a_copy_that_was_damaged_does_not_answer_and_the_fallback_does(
    site: Site, named: ChampionRecord
) -> None:
    holder(site).refresh()
    copy = site.copies / named.bundle_sha256 / GRAPH
    copy.write_bytes(copy.read_bytes()[:-1])
    (site.bundle / GRAPH).unlink()
    again = holder(site)
    again.refresh()
    assert again.current is not None
    assert (again.current.degraded, again.current.bundle.location) == (True, str(site.fallback))


@pytest.mark.parametrize(
    "loss",
    [
        "the home",
        pytest.param("the history", marks=pytest.mark.embedded("a lost SQLite file is a new one")),
    ],
)
def test_the_newest_stored_champion_answers_while_the_dagster_store_is_gone(
    site: Site, named: ChampionRecord, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its folder Dagster does not open; without its database it opens an empty one and knows of no champion."""
    for name, value in site.loop.environment.items():
        monkeypatch.setenv(name, value)
    before = holder(site, source_of(IN_DAGSTER))
    before.refresh()
    assert (before.problem, before.current and before.current.record) == (None, named)
    site.loop.instance.dispose()
    if loss == "the home":
        monkeypatch.setenv("DAGSTER_HOME", str(site.loop.home / "nowhere"))
    else:
        (site.loop.home / "history").rename(site.loop.home / "away")
    again = holder(site, source_of(IN_DAGSTER))
    again.refresh()
    assert again.current is not None
    assert (again.current.record, again.current.degraded) == (named, False)
    assert (
        "DAGSTER_HOME" if loss == "the home" else "it names no champion, although there was one"
    ) in str(again.problem)
    monkeypatch.setenv("DAGSTER_HOME", str(site.loop.home))
    if loss == "the history":
        shutil.rmtree(site.loop.home / "history")
        (site.loop.home / "away").rename(site.loop.home / "history")
        again = holder(site, source_of(IN_DAGSTER))
    again.refresh()
    assert again.problem is None
    assert again.current is not None
    assert again.current.bundle.location == str(site.bundle)


def test_a_damaged_new_bundle_leaves_the_old_champion_in_force_undegraded(
    site: Site, named: ChampionRecord
) -> None:
    """Also if it has a fallback that could be loaded: a champion of yesterday is better than a scorecard."""
    held = holder(site)
    held.refresh()
    new = site.name(named, model_version="2", bundle_sha256="0" * 64)
    held.refresh()
    assert held.current is not None
    assert (held.current.record, held.current.degraded) == (named, False)
    assert "cannot read" in str(held.problem)
    again = holder(site)  # with no old one the new one's fallback answers
    again.refresh()
    assert again.current is not None
    assert again.current.record == fallback_record(new)
    remove_folder(site.artifacts)
    last = holder(site)  # and where there is none, the last champion that was proven
    last.refresh()
    assert last.current is not None
    assert (last.current.record, last.current.degraded) == (named, False)
    assert "cannot read" in str(last.problem)


def holder(site: Site, source: Source | None = None) -> ChampionHolder:
    """A holder as in the API, which reads when it is refreshed; the source is published before."""
    return PublishingHolder(site.loop, source)


class PublishingHolder(ChampionHolder):
    """Publishes the source, then reads the file."""

    def __init__(self, loop: Loop, source: Source | None) -> None:
        self._publish = functools.partial(published, loop, source)
        super().__init__(self._publish(), PORTFOLIO, 1.0)

    def refresh(self) -> None:
        self._publish()
        super().refresh()


def champions(source: Source) -> list[PastChampion]:
    return [PastChampion.of(one) for one in source.materializations()]


def newest(source: Source) -> ChampionRecord:
    return champions(source)[0].record


def test_a_champion_that_the_ledger_does_not_have_does_not_answer(
    site: Site, named: ChampionRecord
) -> None:
    """Another store's run in the same log, or an asset that was materialized by hand, is no promotion."""
    held = holder(site)
    held.refresh()
    for wrong in (
        {"model_version": "2"},
        {"ledger_sha256": "0" * 64},
        {"ledger_entry": 7},
        {"ledger_entry": None},
    ):
        materialize(site, named, wrong)
        held.refresh()
        assert held.current is not None
        assert held.current.record == named
        assert "LedgerError" in str(held.problem)
        new = holder(site)  # after a start the last known champion answers
        new.refresh()
        assert new.current is not None
        assert new.current.record == named
    again = site.name(named)
    held.refresh()
    assert held.problem is None
    assert held.current is not None
    assert held.current.record == again


def materialize(site: Site, record: ChampionRecord, changed: dict[str, Any]) -> None:
    """A materialization of `champion` that no move made."""
    values = {name: getattr(record, name) for name in ChampionRecord.model_fields} | changed
    told = {name: value for name, value in values.items() if value is not None}
    told |= {
        name: dg.MetadataValue.json(told[name].model_dump())
        for name in ("rule", "fallback")
        if name in told
    }
    site.loop.instance.report_runless_asset_event(
        dg.AssetMaterialization("champion", metadata=told)
    )


def test_a_champion_that_was_overtaken_in_the_ledger_does_not_answer_again(
    site: Site, named: ChampionRecord
) -> None:
    """A machine that paused between the ledger and the asset recorded its champion last."""
    held = holder(site)
    latest = site.name(named, model_version="2")
    assert named.ledger_entry is not None
    assert latest.ledger_entry is not None
    assert named.ledger_entry < latest.ledger_entry
    materialize(site, named, {})
    for one in (held, holder(site)):
        one.refresh()
        assert one.problem is None
        assert one.current is not None
        assert one.current.record == latest


def test_only_the_copy_of_the_current_champion_is_stored_and_a_damaged_one_is_mended(
    site: Site, named: ChampionRecord
) -> None:
    assert named.fallback is not None
    file = published(site.loop)
    file.store_copy(named.bundle_sha256)
    (site.copies / named.bundle_sha256 / GRAPH).write_bytes(b"")
    file.store_copy(named.bundle_sha256)
    copy = file.copy_of(named.bundle_sha256)
    assert load_bundle(str(copy), named.bundle_sha256).golden
    file.store_copy(named.fallback.bundle_sha256)
    assert file.copy_of(named.bundle_sha256) is None
    names = {path.name for path in site.copies.iterdir()}
    assert names == {FILE, ".lock", named.fallback.bundle_sha256}
