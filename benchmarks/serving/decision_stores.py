"""The decision log on a local disk beside the same decisions as rows of PostgreSQL:
`python -m benchmarks.serving.decision_stores --groups 2000`.

Each writer commits groups of decisions, as the API does with requests that arrive together, and
waits for the disk after each group. The server listens on the loopback address of the same disk, so
a real network adds its round trip to every group.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import psycopg2
from psycopg2.extras import execute_values

from creditrisk_assets.decisions.codec import PLAIN
from creditrisk_assets.decisions.log import SegmentWriter
from tests.support.postgres import own_postgres_server
from tests.support.segments import header

LINE = b'{"row":' + b"1" * 650 + b"}"
"""About as long as a decision of the UCI portfolio with its reasons."""

Write = Callable[[Sequence[bytes]], None]


@contextmanager
def segment(folder: Path) -> Iterator[Write]:
    """Write to a segment of the product's decision log."""
    writer = SegmentWriter(folder, header(), PLAIN)
    try:
        yield writer.append
    finally:
        writer.close()


@contextmanager
def table(url: str) -> Iterator[Write]:
    """Write to a table, one statement and one commit for each group."""
    connection = psycopg2.connect(url)

    def write(lines: Sequence[bytes]) -> None:
        with connection, connection.cursor() as cursor:
            execute_values(
                cursor, "INSERT INTO decisions (line) VALUES %s", [(one,) for one in lines]
            )

    try:
        yield write
    finally:
        connection.close()


def measure(
    places: Sequence[Callable[[], AbstractContextManager[Write]]], groups: int, size: int
) -> tuple[float, float]:
    """Decisions a second of all writers, and the median milliseconds of a group."""
    times: list[float] = []

    def work(write: Write) -> None:
        lines = [LINE] * size
        for _ in range(groups):
            start = time.perf_counter()
            write(lines)
            times.append(time.perf_counter() - start)

    with ExitStack() as stack:
        threads = [
            threading.Thread(target=work, args=(stack.enter_context(place()),)) for place in places
        ]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - start
    return len(times) * size / took, statistics.median(times) * 1e3


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=2_000)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as folder,
        own_postgres_server(durable=True) as server,
    ):
        with psycopg2.connect(server.address) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE decisions (number bigserial PRIMARY KEY, line bytea)")
        print("| writers | decisions a group | place | decisions/s | median of a group |")
        print("|---|---|---|---|---|")
        for writers, size in ((1, 1), (1, 8), (4, 1), (4, 8)):
            for name, place in (
                ("segment, fdatasync", partial(segment, Path(folder))),
                ("PostgreSQL, commit", partial(table, server.address)),
            ):
                rate, median = measure([place] * writers, arguments.groups, size)
                print(
                    f"| {writers} | {size} | {name} | {rate:,.0f} | {median:.2f} ms |", flush=True
                )


if __name__ == "__main__":
    main()
