"""Full load for long: `python -m benchmarks.serving.soak --minutes 10`.

One worker, with keys, answers as many decisions as it can (wrk, 8 connections), and beside them
batches and everything that can be looked at. Each second its memory, descriptors, threads and files
are counted. What grows with every request shows as a slope of the memory over the second half of
the time; the first half is left to caches and arenas to fill.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
from scipy import stats

from benchmarks.serving.throughput import Server, measured
from tests.support.trials.site import Site, running

N = TypeVar("N", int, float)

CONNECTIONS = 8
BATCH_ROWS = 500
LOOK_SECONDS = 1.0
"""Between two rounds of a batch and of looking at everything."""

BLOCKS = 12
"""Means of so many stretches of time are what the slope is fitted to: samples a second apart are
not independent.
"""

SLOPE_LIMIT_BYTES = 4.0
"""A slope whose interval begins at less than this for each request is none: the smallest Python
object takes sixteen.
"""


@dataclass(frozen=True)
class Sample:
    """Resources of the worker at a moment: seconds since the start, kilobytes, descriptors,
    threads, files of the API's folder.
    """

    seconds: float
    kilobytes: float
    descriptors: int
    threads: int
    files: int


@dataclass(frozen=True)
class Slope:
    """Growth in KiB a minute, and its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcome:
    """Result of the whole run.

    Attributes:
        minutes: of load.
        rate: decisions a second that wrk was answered.
        failed: requests of anybody that were not answered as they should be.
        slope: of the memory, over the second half.
        limit: KiB a minute that the slope's interval must begin below: `SLOPE_LIMIT_BYTES` for each
            request.
        megabytes: at the start of the load, at half time, and at the end.
        descriptors: the same.
        threads: the same.
        files: the same; segments wait there until their day is over.
    """

    minutes: float
    rate: float
    failed: int
    slope: Slope
    limit: float
    megabytes: tuple[float, float, float]
    descriptors: tuple[int, int, int]
    threads: tuple[int, int, int]
    files: tuple[int, int, int]

    @property
    def holds(self) -> bool:
        """Whether nothing grew that stays."""
        steady = self.descriptors[2] <= self.descriptors[1] and self.threads[2] <= self.threads[1]
        return not self.failed and steady and self.slope.low <= self.limit


def soak(site: Site, headers: dict[str, str], minutes: float) -> Outcome:
    """Load an API for long.

    Args:
        site: whose API is running with one worker, without a limit of the rate.
        headers: with a key that may predict and read.
        minutes: how long.
    """
    process = site.processes()[0]
    customer = dict(site.loop.settings.portfolio.example)
    stop, failed, samples = threading.Event(), [0], list[Sample]()
    start = time.monotonic()

    def look() -> None:
        with httpx.Client(base_url=site.url, headers=headers, timeout=60) as client:
            while not stop.wait(LOOK_SECONDS):
                failed[0] += _everything(client, customer)

    def count() -> None:
        while not stop.wait(1.0):
            samples.append(sample(process, site.loop.settings.api_folder, time.monotonic() - start))

    with httpx.Client(base_url=site.url, headers=headers, timeout=60) as client:
        _everything(client, customer)  # what is imported the first time is no growth
    beside = [threading.Thread(target=look), threading.Thread(target=count)]
    for one in beside:
        one.start()
    server = Server(
        name="creditrisk",
        url=f"{site.url}/predict",
        body=json.dumps(customer).encode(),
        headers={**headers, "Content-Type": "application/json"},
        process=process,
    )
    with tempfile.TemporaryDirectory() as folder:
        load = measured(server, CONNECTIONS, round(60 * minutes), Path(folder))
    stop.set()
    for one in beside:
        one.join()
    half = len(samples) // 2
    return Outcome(
        minutes=minutes,
        rate=load.rate,
        failed=load.failed + failed[0],
        slope=slope(samples[half:]),
        limit=round(load.rate * 60 * SLOPE_LIMIT_BYTES / 1024, 1),
        megabytes=_thirds([round(one.kilobytes / 1024, 1) for one in samples]),
        descriptors=_thirds([one.descriptors for one in samples]),
        threads=_thirds([one.threads for one in samples]),
        files=_thirds([one.files for one in samples]),
    )


def sample(process: int, folder: Path, seconds: float) -> Sample:
    """Resources of a process now."""
    proc = Path(f"/proc/{process}")
    return Sample(
        seconds=seconds,
        kilobytes=int((proc / "statm").read_text().split()[1]) * resource.getpagesize() / 1024,
        descriptors=len(list((proc / "fd").iterdir())),
        threads=len(list((proc / "task").iterdir())),
        files=sum(len(names) for _, _, names in os.walk(folder)),
    )


def slope(samples: Sequence[Sample]) -> Slope:
    """Growth of the memory by least squares over the means of `BLOCKS` stretches."""
    blocks = [
        block
        for block in np.array_split(
            np.array([(one.seconds, one.kilobytes) for one in samples]), BLOCKS
        )
        if len(block)
    ]
    seconds, kilobytes = np.array([block.mean(axis=0) for block in blocks]).T
    fitted = stats.linregress(seconds / 60, kilobytes)
    half = float(stats.t.ppf(0.975, BLOCKS - 2)) * fitted.stderr
    return Slope(
        *(
            round(float(value), 1)
            for value in (fitted.slope, fitted.slope - half, fitted.slope + half)
        )
    )


def _everything(client: httpx.Client, customer: dict[str, object]) -> int:
    """A batch, a decision with a key, and everything that can be looked at; how many were not
    answered.
    """
    responses = [
        client.post("/predict/batch", json=[customer] * BATCH_ROWS),
        answer := client.post(
            "/predict", json=customer, headers={"Idempotency-Key": f"{time.time_ns()}"}
        ),
        client.post("/what-if", json=customer),
        *(client.get(path) for path in ("/", "/ready", "/model-info", "/metrics", "/openapi.json")),
    ]
    if answer.status_code == httpx.codes.OK:
        responses.append(client.get(f"/decisions/{answer.json()['decision_id']}"))
    return sum(response.status_code != httpx.codes.OK for response in responses)


def _thirds(values: Sequence[N]) -> tuple[N, N, N]:
    """The middle value of the first five samples, of the five at half time, and of the last
    five.
    """
    places = (slice(0, 5), slice(len(values) // 2 - 2, len(values) // 2 + 3), slice(-5, None))
    first, middle, last = (sorted(values[place])[len(values[place]) // 2] for place in places)
    return first, middle, last


def main() -> None:
    """Print what was found; exit code 1 if something grew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Site.trained(Path(folder), raw_data="simulated:4000")
        site.environment = {"CREDITRISK_RATE_LIMIT": "0"}
        headers = site.new_key("bank", "predict", "read")
        with running(site):
            outcome = soak(site, headers, arguments.minutes)
    for name, value in vars(outcome).items():
        print(f"{name}: {value}")
    sys.exit(0 if outcome.holds else 1)


if __name__ == "__main__":
    main()
