"""The alerts of deploy/prometheus/alerts.yml: each is brought about, seen, answered as the guide says, and gone.

`tests/unit/test_runbooks.py` names the drill of every row of the guide.
"""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from creditrisk_assets.cli.main import app
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import BundlePlace
from creditrisk_assets.scoring.bundle_store import BUNDLES
from creditrisk_assets.settings import Settings
from creditrisk_assets.simulation.stepped_loop import SteppedLoop
from serving.access.keys import revoke_keys
from tests.support.alerting_rules import State, evaluate, state_during
from tests.support.champions import name_champion
from tests.support.examples import handmade_champion
from tests.support.trials.site import Site, beside, running
from tests.support.trials.small_disk import small_disk
from tests.support.waiting import until

pytestmark = pytest.mark.promtool

CUSTOMER = dict(PORTFOLIO.example)
A_WHILE = 1.5
"""Seconds of a state."""


@dataclass
class AliveSite(Site):
    """A site whose API may be without a champion."""

    def is_ready(self) -> bool:
        return self.is_alive()


@dataclass(frozen=True)
class Api:
    """A site's API as a caller and Prometheus see it.

    Attributes:
        site: of the API.
        client: of the caller.
        caller: headers of the caller.
        scraper: headers of Prometheus.
    """

    site: Site
    client: httpx.Client
    caller: dict[str, str]
    scraper: dict[str, str]
    states: list[State] = field(default_factory=list)

    def metrics(self) -> bytes:
        """The text of `/metrics`, of whichever worker answers."""
        for _ in range(20):
            with suppress(httpx.TimeoutException), httpx.Client(timeout=1) as client:
                return client.get(f"{self.site.url}/metrics", headers=self.scraper).content
        raise AssertionError("no worker gives metrics")

    def ask(self) -> int:
        url = f"{self.site.url}/predict"
        return self.client.post(url, json=CUSTOMER, headers=self.caller).status_code

    def ask_batch(self) -> int:
        url = f"{self.site.url}/predict/batch"
        return self.client.post(url, json=[CUSTOMER] * 200, headers=self.caller).status_code

    def ask_for_a_while(self, ask: Callable[[], int] | None = None) -> None:
        ends = time.monotonic() + A_WHILE
        while time.monotonic() < ends:
            (ask or self.ask)()
            time.sleep(0.02)

    def ready(self) -> dict[str, object]:
        found: dict[str, object] = self.client.get(f"{self.site.url}/ready").json()
        return found

    def expect(self, *, happens: Callable[[], object] | None = None, **fires: bool) -> None:
        """Look on while something happens, by default while a caller asks, and remember which alerts must and must not fire."""
        self.states.append(state_during(self.metrics, happens or self.ask_for_a_while, fires))


@contextmanager
def api_of(
    site: Site,
    folder: Path,
    caller: dict[str, str] | None = None,
    scraper: dict[str, str] | None = None,
) -> Iterator[Api]:
    """The API of a site that runs within the block; its states are evaluated afterwards."""
    with running(site), httpx.Client(timeout=20) as client:
        api = Api(site, client, caller or {}, scraper or {})
        yield api
    evaluate(api.states, folder)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site with a champion and its fallback; nothing of it runs."""
    (tmp_path / "site").mkdir()
    record, bundle = handmade_champion(tmp_path / "site", "1", "late_sum", -3.0)
    _, fallback = handmade_champion(tmp_path / "other", "1", "late_sum", -1.0)
    place = BundlePlace(artifact_uri=f"{BUNDLES}/{fallback.sha256}", bundle_sha256=fallback.sha256)
    made = Site.over(tmp_path / "site", record.model_copy(update={"fallback": place}), bundle)
    made.bundles.put(fallback)
    yield made
    made.kill_all()
    made.loop.instance.dispose()


def test_without_a_champion_nobody_answers_until_a_training(tmp_path: Path) -> None:
    home = tmp_path / "site"
    loop = SteppedLoop.in_folder(home, Settings(data_dir=home / "data"))
    site = AliveSite(loop)
    with api_of(site, tmp_path) as api:
        api.expect(CreditriskNobodyAnswers=True)
        assert "a champion does not exist yet" in str(api.ready()["detail"])
        history = {"CREDITRISK_RAW_DATA": "simulated:2000"}
        trained = CliRunner().invoke(app, ["train"], env=site.variables | history)
        assert trained.exit_code == 0, trained.output
        until(lambda: api.ask() == 200, 20)
        api.expect(CreditriskNobodyAnswers=False)
    loop.instance.dispose()


def test_bundles_that_cannot_be_read_are_loaded_when_they_can(site: Site, tmp_path: Path) -> None:
    """The champion's own, from a backup; then that of the next champion, when the bucket answers."""
    folder = Path(str(site.loop.settings.data_dir)) / BUNDLES
    backup = shutil.copytree(folder, tmp_path / "backup")
    shutil.rmtree(folder / site.champion().bundle_sha256)
    record, bundle = handmade_champion(tmp_path / "next", "2", "late_sum", -2.0)
    with api_of(site, tmp_path) as api:
        assert api.ready()["degraded"] is True
        api.expect(CreditriskDegraded=True)
        shutil.copytree(backup, folder, dirs_exist_ok=True)
        until(lambda: api.ready()["degraded"] is False and not api.ready()["problem"], 20)
        api.expect(CreditriskDegraded=False, CreditriskChampionNotLoaded=False)
        name_champion(site.loop, record)
        until(lambda: api.ready()["problem"] is not None, 20)
        api.expect(CreditriskChampionNotLoaded=True)
        assert "champion_not_loaded" in site.log.read_text()
        assert (api.ask(), api.ready()["model_version"]) == (200, "1")
        site.bundles.put(bundle)
        until(lambda: api.ready()["problem"] is None, 20)
        api.expect(CreditriskChampionNotLoaded=False)
        assert api.ready()["model_version"] == "2"


def test_a_worker_that_hangs_has_another_model_until_the_api_is_started_again(
    site: Site, tmp_path: Path
) -> None:
    site.workers = 2
    with api_of(site, tmp_path) as api:
        os.kill(site.answering()[-1], signal.SIGSTOP)
        name_champion(site.loop, site.champion().model_copy(update={"model_version": "2"}))
        until(lambda: b'model_version="2"' in api.metrics(), 20)
        api.expect(happens=partial(time.sleep, 1), CreditriskWorkersDisagree=True)
        site.stop()
        site.start()
        api.expect(CreditriskWorkersDisagree=False)


def test_a_full_disk_refuses_and_a_machine_that_stalls_is_slow_until_it_ends(
    site: Site, tmp_path: Path
) -> None:
    def keep_asking(stop: threading.Event) -> None:
        with httpx.Client(timeout=20) as client:
            while not stop.is_set():
                client.post(f"{site.url}/predict", json=CUSTOMER)

    def stall() -> None:
        """In a hundredth of a second few requests are answered, and the next stop meets some others."""
        processes = site.answering()
        with beside([keep_asking] * 8):
            for _ in range(6):
                for kind, seconds in ((signal.SIGSTOP, 0.8), (signal.SIGCONT, 0.01)):
                    for number in processes:
                        os.kill(number, kind)
                    time.sleep(seconds)

    with small_disk(12) as disk:
        site.environment |= {"CREDITRISK_API_DIR": str(disk.folder / "api")}
        with api_of(site, tmp_path) as api:
            api.expect(happens=stall, CreditriskSlow=True, CreditriskDecisionLogSlow=True)
            disk.fill()
            # Some hundred single decisions fit into the space that the log has written ahead.
            until(lambda: {api.ask_batch(), *(api.ask() for _ in range(40))} == {507}, 30)
            api.expect(CreditriskDecisionsNotWritten=True, CreditriskFailures=True)
            refused = partial(api.ask_for_a_while, api.ask_batch)
            api.expect(happens=refused, CreditriskDecisionsNotWritten=True, CreditriskFailures=True)
            disk.free()
            until(lambda: api.ask_batch() == api.ask() == 200, 20)
            api.expect(
                CreditriskDecisionsNotWritten=False,
                CreditriskFailures=False,
                CreditriskSlow=False,
                CreditriskDecisionLogSlow=False,
            )


def test_callers_with_an_old_key_or_above_their_rate_are_refused_until_they_are_not(
    site: Site, tmp_path: Path
) -> None:
    scraper, caller = site.new_key("prometheus", "read"), site.new_key("bank", "predict")
    site.environment |= {"CREDITRISK_RATE_LIMIT": "2", "CREDITRISK_LIMITS": '{"rate_burst": 5}'}
    with api_of(site, tmp_path, caller, scraper) as api:
        api.expect(CreditriskCallerLimited=True)
    site.environment["CREDITRISK_RATE_LIMIT"] = "0"
    with api_of(site, tmp_path, caller, scraper) as api:
        api.expect(CreditriskCallerLimited=False, CreditriskUnknownCallers=False)
        revoke_keys(site.loop.settings.api_keys, "bank")
        until(lambda: api.ask() == 401, 10)
        api.expect(CreditriskUnknownCallers=True)
        lines = [json.loads(line) for line in site.log.read_text().splitlines() if line[:1] == "{"]
        refused = [line["client"] for line in lines if line.get("status") == 401]
        assert refused
        assert all(client.startswith("127.0.0.1") for client in refused)
        api.caller.update(site.new_key("bank", "predict"))
        until(lambda: api.ask() == 200, 10)
        api.expect(CreditriskUnknownCallers=False)


def test_an_alert_that_should_not_fire_and_does_is_an_error(tmp_path: Path) -> None:
    """The drills would hold whatever the rules say."""
    nothing = State({}, {}, 1.0, {"CreditriskNobodyAnswers": True, "CreditriskDegraded": False})
    evaluate([nothing], tmp_path)
    for alert, fires in nothing.fires.items():
        with pytest.raises(AssertionError, match="FAILED"):
            evaluate([State({}, {}, 1.0, {alert: not fires})], tmp_path)
