"""The way of one `POST /predict`: the modules that a request passes are those of the architecture page."""

import contextlib
import re
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import httpx

from creditrisk_assets.governance.ledger import Ledger
from creditrisk_assets.settings import ServingSettings
from serving.access.keys import create_key
from serving.app import api
from serving.inference.champion_file import ChampionFile, Publisher
from serving.inference.champion_source import DagsterInstanceSource
from tests.support.loop import Loop
from tests.support.places import REPOSITORY
from tests.support.servers import served

HELPERS = {
    "serving/http/trace.py",
    "serving/inference/batch_yield.py",
    "serving/inference/champion_compiler.py",
    "serving/inference/champion_holder.py",
    "serving/ops/metrics.py",
    "creditrisk_assets/portfolio/encoding.py",
    "creditrisk_assets/scoring/bundle.py",
    "creditrisk_assets/decisions/codec.py",
}
"""Modules that the page names beside the list."""


def modules_of_the_page() -> list[str]:
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    way = page.split("\n## The way of one `POST /predict`\n", 1)[1].split("\n## ", 1)[0]
    assert {module for module in HELPERS if f"`{module}`" not in way} == set()
    return re.findall(r"^\d+\. `([\w/]+\.py)`: ", way, flags=re.MULTILINE)


class Recorder:
    """The product's modules in the order of their first call, while it is on."""

    def __init__(self) -> None:
        self.is_on = False
        self.modules: list[str] = []

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """For the threads that start meanwhile."""
        threading.setprofile(self)
        try:
            yield
        finally:
            threading.setprofile(None)

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if self.is_on and event == "call":
            path = frame.f_code.co_filename.removeprefix(f"{REPOSITORY}/")
            if path.startswith(("serving/", "creditrisk_assets/")) and path not in self.modules:
                self.modules.append(path)


def test_a_request_passes_the_modules_of_the_architecture_page_in_their_order(
    trained: Loop,
) -> None:
    """The page is the first that a reader of the API opens."""
    folder = trained.home / "way-of-a-request"
    folder.mkdir()
    more: dict[str, Any] = {"api_dir": folder, "api_keys_file": folder / "keys.json"}
    settings = trained.settings.model_copy(update=more)
    champion = ChampionFile.of(settings)
    champion.path.parent.mkdir()
    source = DagsterInstanceSource(lambda: trained.instance)
    Publisher(source, Ledger(settings.ledger).require_recorded, champion).publish()
    key = create_key(settings.api_keys, "scoring", ["predict"])
    recorder = Recorder()
    with (
        recorder.installed(),
        served(api(ServingSettings(), settings), lifespan="on") as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": key}) as client,
    ):
        client.post("/predict", json=dict(settings.portfolio.example)).raise_for_status()
        recorder.is_on = True
        client.post("/predict", json=dict(settings.portfolio.example)).raise_for_status()
        recorder.is_on = False
    assert [one for one in recorder.modules if one not in HELPERS] == modules_of_the_page()
