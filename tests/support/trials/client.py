"""A good client: asks for decisions at an even pace on one connection, and says how long each took.

It is a process of its own, so that what else its caller does at the time is not measured.
"""

import argparse
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True)
class Latencies:
    """Times to answer in milliseconds, and how many requests were answered, and how many not."""

    p50: float
    p99: float
    answered: int
    failed: int


@contextmanager
def asking(
    port: int, headers: dict[str, str], body: bytes, rate: float
) -> Iterator["subprocess.Popen[str]"]:
    """A good client at work; `latencies` ends it."""
    command = [
        sys.executable,
        "-m",
        "tests.support.trials.client",
        "--port",
        str(port),
        "--rate",
        str(rate),
    ]
    client = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert client.stdin is not None
    client.stdin.write(json.dumps({"headers": headers, "body": body.decode()}) + "\n")
    client.stdin.flush()
    try:
        yield client
    finally:
        client.kill()
        client.wait()


def latencies(client: "subprocess.Popen[str]") -> Latencies:
    """End a good client; what it has seen."""
    told, _ = client.communicate("stop\n", timeout=30)
    return Latencies(**json.loads(told))


def ask(port: int, headers: dict[str, str], body: str, rate: float, until: "Stop") -> Latencies:
    """Ask until told to stop."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    times, failed, due = [], 0, time.perf_counter()
    while not until.stopped:
        due += 1 / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        start = time.perf_counter()
        try:
            connection.request("POST", "/predict", body, headers)
            response = connection.getresponse()
            response.read()
            failed += response.status != http.HTTPStatus.OK
        except OSError:
            failed += 1
            connection.close()
        times.append(time.perf_counter() - start)
    times.sort()
    return Latencies(
        p50=round(1000 * times[len(times) // 2], 2),
        p99=round(1000 * times[int(len(times) * 0.99)], 2),
        answered=len(times) - failed,
        failed=failed,
    )


class Stop:
    """Becomes true when a line stands on the standard input."""

    def __init__(self) -> None:
        import threading

        self.stopped = False
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        sys.stdin.readline()
        self.stopped = True


def main() -> None:
    """Read what to ask from the standard input, and ask until there is another line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    arguments = parser.parse_args()
    wanted = json.loads(sys.stdin.readline())
    latencies = ask(arguments.port, wanted["headers"], wanted["body"], arguments.rate, Stop())
    sys.stdout.write(json.dumps(asdict(latencies)) + "\n")


if __name__ == "__main__":
    main()
