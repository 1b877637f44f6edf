"""A client of the API: sends `POST /predict` all through a run, and counts the answers."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
import pandas as pd

from creditrisk_assets import internal_http

PAUSE_SECONDS = 0.1


@dataclass
class Caller:
    """The answers so far, by model version: their number, the time of the first and the last one's
    body; and the failed calls.
    """

    url: str
    customer: dict[str, Any]
    answers: Counter[str] = field(default_factory=Counter)
    first_at: dict[str, float] = field(default_factory=dict)
    last: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, url: str, customers: pd.DataFrame) -> Self:
        """A caller with the record of the first customer."""
        return cls(url, json.loads(customers.head(1).to_json(orient="records"))[0])

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Call from a background thread."""
        thread = threading.Thread(target=self._run, name="caller", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        with internal_http.direct_client(base_url=self.url, timeout=10) as client:
            while not self._stop.wait(PAUSE_SECONDS):
                try:
                    response = client.post("/predict", json=self.customer)
                    body = response.raise_for_status().json()
                    version = str(body["model_version"])
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                else:
                    self.first_at.setdefault(version, time.time())
                    self.last[version] = body
                    self.answers[version] += 1
