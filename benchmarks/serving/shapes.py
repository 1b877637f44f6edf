"""The cost of the served shape of a store beside the embedded one:
`python -m benchmarks.serving.shapes --rounds 5`.

Both stores are on this machine: SQLite and files, or PostgreSQL, SeaweedFS and an MLflow server.
Each figure is the median over rounds in which both take turns.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
import httpx

from creditrisk_assets.definitions import build_definitions
from creditrisk_assets.defs import sensors
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.settings import Settings
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.loop import Loop, api
from tests.support.object_store import object_keys, object_store_server
from tests.support.places import REPOSITORY
from tests.support.policies import policy_of
from tests.support.postgres import new_database, postgres_server
from tests.support.served_store import servers

CALLS = 300
ROWS = 2_000


class Shape:
    """A store in one shape, and its API.

    Args:
        home: folder of its Dagster home.
        environment: its settings.
    """

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.environment = environment | {"DAGSTER_HOME": str(home)}

    @contextmanager
    def as_environment(self) -> Iterator[None]:
        """The environment of this shape for the block."""
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def open(self) -> Loop:
        """Its loop, trained."""
        self.home.mkdir(parents=True)
        shutil.copy(REPOSITORY / "dagster.yaml", self.home)
        with self.as_environment():
            settings = Settings(policy=policy_of({}))
            instance = dg.DagsterInstance.from_config(str(self.home))
        loop = Loop(self.home, settings, instance, build_definitions(settings))
        with self.as_environment():
            loop.train()
        return loop


def seconds(action: Callable[[], object]) -> float:
    """Time of an action."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def predict(client: httpx.Client, number: int, keyed: bool) -> list[float]:
    """Times of single requests of one caller, in milliseconds."""
    times = []
    for call in range(CALLS):
        headers = {"Idempotency-Key": f"{number}-{call}"} if keyed else {}
        start = time.perf_counter()
        client.post("/predict", json=dict(PORTFOLIO.example), headers=headers).raise_for_status()
        times.append(1_000 * (time.perf_counter() - start))
    return times


def round_of(shape: Shape, loop: Loop, client: httpx.Client, number: int) -> dict[str, list[float]]:
    """The times of one round, by what was done."""
    day = f"2026-03-{number + 1:02d}"
    with shape.as_environment():
        loop.land_day(day, simulate(ROWS, number, 1_000_000))
        times = {
            "sensor tick, s": [seconds(lambda: loop.tick(sensors.new_production_partitions))],
            "a day of 2,000, s": [seconds(lambda: loop.run("score_production", day))],
            "retrain, s": [seconds(lambda: loop.run("retrain"))],
        }
    return times | {
        "/predict, ms": predict(client, number, keyed=False),
        "/predict with a key, ms": predict(client, number, keyed=True),
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        objects = stack.enter_context(object_store_server(folder / "objects"))
        os.environ.update(object_keys(objects))
        url = stack.enter_context(new_database(stack.enter_context(postgres_server())))
        server = stack.enter_context(servers(folder / "mlflow", url, objects))
        common = {"CREDITRISK_RAW_DATA": "simulated:4000", "CREDITRISK_SETTLE_SECONDS": "0"}
        shapes = {
            "embedded": Shape(
                folder / "embedded",
                common | {"CREDITRISK_DATA_DIR": str(folder / "embedded" / "data")},
            ),
            "served": Shape(folder / "served", server.environment | common),
        }
        loops = {name: shape.open() for name, shape in shapes.items()}
        clients = {}
        for name, shape in shapes.items():
            variables: dict[str, str | None] = {**shape.environment}
            client = stack.enter_context(api(loops[name], **variables))
            while client.get("/ready").status_code != httpx.codes.OK:
                time.sleep(0.2)
            clients[name] = client
        found: dict[str, dict[str, list[float]]] = {}
        for number in range(arguments.rounds):
            for name, shape in shapes.items():
                for what, values in round_of(shape, loops[name], clients[name], number).items():
                    found.setdefault(what, {}).setdefault(name, []).extend(values)
    print("| | embedded | served | ratio |\n|---|---|---|---|")
    for what, by_shape in found.items():
        one, other = (statistics.median(by_shape[name]) for name in ("embedded", "served"))
        print(f"| {what} | {one:.2f} | {other:.2f} | {other / one:.2f} |")


if __name__ == "__main__":
    main()
