"""How fast the API answers beside others, in one run: `python -m benchmarks.serving.throughput`.

The same champion, the same customer, the same client (wrk), one worker each. The API decides with
reasons, writes each decision to its log with fsync, asks for a key and counts the caller's rate.
Beside it: a FastAPI endpoint that only validates the same body; `mlflow models serve` of the same
bundle, which gives PD and score without reasons and logs nothing; with `--bentoml` the same graph
behind BentoML, which is installed into a folder of its own.

Each server is measured in turn, several times; the median of the rounds counts, and ratios are of
the same round's neighbours.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks import ratios
from creditrisk_assets.defs.event_log import champion_in_force
from creditrisk_assets.scoring.bundle import GRAPH
from creditrisk_assets.simulation.processes import reserved_ports
from serving.access.keys import create_key
from tests.support.trials.site import Site

START_SECONDS = 120.0
FSYNC_WRITES = 500
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}

REQUEST = """
wrk.method = "POST"
wrk.body = [==[%s]==]
for name, value in pairs(%s) do wrk.headers[name] = value end
"""


@dataclass(frozen=True)
class Server:
    """One server: its name, address, body and headers of a request, and the process that
    answers.
    """

    name: str
    url: str
    body: bytes
    headers: dict[str, str]
    process: int


@dataclass(frozen=True)
class Load:
    """Result of one run of wrk: requests a second, seconds at the median and at the 99th
    percentile, requests that failed.
    """

    rate: float
    p50: float
    p99: float
    failed: int


def measured(server: Server, connections: int, seconds: int, folder: Path) -> Load:
    """Load a server.

    Raises:
        RuntimeError: if wrk says something that cannot be read.
    """
    headers = (
        "{" + ", ".join(f'["{name}"] = "{value}"' for name, value in server.headers.items()) + "}"
    )
    script = folder / "request.lua"
    script.write_text(REQUEST % (server.body.decode(), headers))
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}",
        "--latency",
        "-s",
        str(script),
        server.url,
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    places = dict(re.findall(r"(50|99)%\s+([\d.]+(?:us|ms|s))\b", output))
    if rate is None or set(places) != {"50", "99"}:
        raise RuntimeError(f"wrk on {server.name} printed {output}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    broken = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output
    )
    failed = (int(bad[1]) if bad else 0) + (sum(map(int, broken.groups())) if broken else 0)
    return Load(float(rate[1]), _seconds(places["50"]), _seconds(places["99"]), failed)


def fsync_seconds(folder: Path) -> float:
    """The median time that this disk takes to keep one appended kilobyte."""
    times = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(FSYNC_WRITES):
            start = time.perf_counter()
            file.write(bytes(1_000))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def _seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]  # it was found by the same
    return float(number) * UNITS[unit]


@contextmanager
def _started(
    command: list[str], url: str, environment: dict[str, str], log: Path, cwd: Path | None = None
) -> Iterator[int]:
    """A server in a process of its own, once it answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
            cwd=cwd,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code < httpx.codes.INTERNAL_SERVER_ERROR
    except httpx.HTTPError:
        return False


def _memory(process: int) -> float:
    """Resident memory of a process, in MB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    if found is None:
        raise RuntimeError(f"process {process} has ended")
    return int(found[1]) / 1024


@contextmanager
def _validating(folder: Path, customer: dict[str, Any]) -> Iterator[Server]:
    (port,) = reserved_ports(1)
    command = [sys.executable, "-m", "benchmarks.serving.peers", "validate", "--port", str(port)]
    with _started(
        command, f"http://127.0.0.1:{port}/health", {}, folder / "validate.log"
    ) as process:
        yield Server(
            "FastAPI, validates only",
            f"http://127.0.0.1:{port}/predict",
            json.dumps(customer).encode(),
            {"Content-Type": "application/json"},
            process,
        )


@contextmanager
def _mlflow(folder: Path, site: Site, customer: dict[str, Any]) -> Iterator[Server]:
    (port,) = reserved_ports(1)
    settings = site.loop.settings
    command = [
        str(Path(sys.executable).with_name("mlflow")),
        "models",
        "serve",
        "--env-manager",
        "local",
        "--workers",
        "1",
    ]
    command += ["--model-uri", "models:/credit_default@champion", "--port", str(port)]
    # It starts uvicorn by its name.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": path,
    }
    with _started(
        command, f"http://127.0.0.1:{port}/ping", environment, folder / "mlflow.log"
    ) as process:
        body = {
            "dataframe_split": {
                "columns": list(customer),
                "data": [[float(value) for value in customer.values()]],
            }
        }
        yield Server(
            "mlflow models serve",
            f"http://127.0.0.1:{port}/invocations",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            process,
        )


@contextmanager
def _bentoml(folder: Path, graph: Path, customer: dict[str, Any]) -> Iterator[Server]:
    (port,) = reserved_ports(1)
    environment = folder / "bentoml"
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run(
        [uv, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True
    )
    python = environment / "bin" / "python"
    subprocess.run(
        [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            str(python),
            "bentoml",
            "onnxruntime",
            "numpy",
        ],
        check=True,
    )
    command = [
        str(environment / "bin" / "bentoml"),
        "serve",
        "bentoml_peer:Model",
        "--port",
        str(port),
    ]
    variables = {
        "BUNDLE_GRAPH": str(graph),
        "DO_NOT_TRACK": "1",
        "BENTOML_DO_NOT_TRACK": "true",
        "BENTOML_HOME": str(folder),
    }
    here = Path(__file__).parent
    with _started(
        command, f"http://127.0.0.1:{port}/readyz", variables, folder / "bentoml.log", here
    ) as process:
        yield Server(
            "BentoML",
            f"http://127.0.0.1:{port}/predict",
            json.dumps({"rows": [list(customer.values())]}).encode(),
            {"Content-Type": "application/json"},
            process,
        )


@contextmanager
def _ours(site: Site, customer: dict[str, Any]) -> Iterator[tuple[Server, float]]:
    key = create_key(site.loop.settings.api_keys, "benchmark", ["predict", "read"])
    site.environment["CREDITRISK_RATE_LIMIT"] = "1000000"  # counted, and never reached
    seconds = site.start()
    try:
        assert site.process is not None
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        url = f"{site.url}/predict"
        yield (
            Server("creditrisk", url, json.dumps(customer).encode(), headers, site.process.pid),
            seconds,
        )
    finally:
        site.stop()


def compared(folder: Path, seconds: int, rounds: int, with_bentoml: bool) -> dict[str, float]:
    """Measure all and print a table. Returns the product's requests/s to those of each other."""
    site = Site.trained(folder / "site")
    portfolio = site.loop.settings.portfolio
    customer = dict(portfolio.example)
    champion = champion_in_force(site.loop.instance)
    assert champion is not None
    graph = Path(str(site.bundles.folder(champion.bundle_sha256))) / GRAPH
    with (
        _validating(folder, customer) as validate,
        _mlflow(folder, site, customer) as mlflow,
        _ours(site, customer) as (ours, ready),
    ):
        if with_bentoml:
            with _bentoml(folder, graph, customer) as bento:
                return _tell([validate, ours, mlflow, bento], ready, seconds, rounds, folder)
        return _tell([validate, ours, mlflow], ready, seconds, rounds, folder)


def _tell(
    servers: list[Server], ready: float, seconds: int, rounds: int, folder: Path
) -> dict[str, float]:
    _same_numbers(servers)
    disk = fsync_seconds(folder)
    loads: dict[tuple[str, int], list[Load]] = {}
    for server in servers:
        measured(server, 8, 2, folder)  # warm
    for _ in range(rounds):
        for connections in (8, 1):
            for server in servers:
                loads.setdefault((server.name, connections), []).append(
                    measured(server, connections, seconds, folder)
                )
    print(
        f"one worker, wrk with 8 connections and with 1, {rounds} rounds of {seconds} s, medians; "
        f"one fsync {disk * 1e6:.0f} us"
    )
    print(f"ready after {ready:.1f} s; memory of the worker {_memory(servers[1].process):.0f} MB")
    print("| server | requests/s | p50 | p99 | single caller p50 | p99 | failed |")
    print("|---|---|---|---|---|---|---|")
    for server in servers:
        many, single = loads[server.name, 8], loads[server.name, 1]
        figures = [statistics.median(one.rate for one in many)]
        for part in (many, single):
            figures += [
                1e3 * statistics.median(getattr(one, place) for one in part)
                for place in ("p50", "p99")
            ]
        failed = sum(one.failed for one in (*many, *single))
        print(
            f"| {server.name} | {figures[0]:,.0f} | "
            + " | ".join(f"{one:.2f} ms" for one in figures[1:])
            + f" | {failed} |"
        )
    ours, found = loads["creditrisk", 8], {}
    for server in servers:
        if server.name != "creditrisk":
            by_round = [
                mine.rate / other.rate
                for mine, other in zip(ours, loads[server.name, 8], strict=True)
            ]
            each = ", ".join(f"{one:.2f}" for one in by_round)
            median = found[f"requests/s, of {server.name}"] = statistics.median(by_round)
            print(f"requests/s against {server.name}: {median:.2f} (rounds {each})")
    ours_single = statistics.median(one.p50 for one in loads["creditrisk", 1])
    theirs = statistics.median(one.p50 for one in loads[servers[0].name, 1])
    limit = 2 * theirs + disk
    print(
        f"single caller p50 {ours_single * 1e3:.2f} ms; twice the validating endpoint and one "
        f"fsync {limit * 1e3:.2f} ms"
    )
    return found


def _same_numbers(servers: list[Server]) -> None:
    """All but the first give the same PD."""
    answers = set()
    for server in servers[1:]:
        answer = (
            httpx.post(server.url, content=server.body, headers=server.headers, timeout=30)
            .raise_for_status()
            .json()
        )
        rows = answer.get("predictions", answer)
        value = (
            rows[0]["default_probability"]
            if isinstance(rows, list)
            else rows["default_probability"]
        )
        answers.add(value[0] if isinstance(value, list) else value)
    if len(answers) != 1:
        raise RuntimeError(f"the servers disagree: {answers}")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--bentoml",
        action="store_true",
        help="install BentoML into a temporary folder and measure it, too",
    )
    ratios.add_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = compared(Path(folder), arguments.seconds, arguments.rounds, arguments.bentoml)
    ratios.write(arguments.ratios, found)


if __name__ == "__main__":
    main()
