"""Whether the OpenAPI document is true.

schemathesis draws requests from the document, valid ones and invalid ones, sends them to an API
process with keys, and holds every answer against the document, all its checks on: with a key that
may do everything, then without one.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.trials.site import Site

EXAMPLES = 30
"""Cases of one phase and operation in a round; the phase that covers every boundary of the document
has as many as there are.
"""

ROUND_SECONDS = 600


@dataclass(frozen=True)
class Fuzzed:
    """Result of one or more rounds.

    Attributes:
        cases: requests that were drawn and sent.
        operations: of the document, all of them tested.
        failures: answers that are not as the document says, and what could not be tested.
    """

    cases: int
    operations: int
    failures: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether every answer was as the document says."""
        return self.cases > 0 and not self.failures


def fuzz(
    site: Site, headers: Mapping[str, str], cases: int, seed: int, examples: int = EXAMPLES
) -> Fuzzed:
    """Draw and send requests, round after round.

    Args:
        site: whose API is running.
        headers: sent with each request.
        cases: at least so many.
        seed: of the first round; each has the next one.
        examples: of one phase and operation in a round.
    """
    done, operations = 0, 0
    failures: list[str] = []
    while done < cases and not failures:
        found = _round(site, headers, seed, examples)
        done, operations, seed = done + found.cases, found.operations, seed + 1
        failures += found.failures
    return Fuzzed(done, operations, tuple(failures))


def _round(site: Site, headers: Mapping[str, str], seed: int, examples: int) -> Fuzzed:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{site.url}/openapi.json",
            "--checks",
            "all",
        ]
        command += [
            "--seed",
            str(seed),
            "--max-examples",
            str(examples),
            "--generation-database",
            "none",
            "--no-color",
        ]
        command += ["--report", "json", "--report-json-path", str(report)]
        for name, value in headers.items():
            command += ["--header", f"{name}: {value}"]
        environment = {
            **site.variables,
            "SCHEMATHESIS_HOOKS": "tests.support.trials.fuzz_hooks",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        result = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=ROUND_SECONDS,
        )
        if not report.is_file():
            raise RuntimeError(f"schemathesis made no report:\n{result.stdout}{result.stderr}")
        found = json.loads(report.read_text())
    failures = [result.stdout] if result.returncode or found["failures"] or found["errors"] else []
    if not found["complete"] or found["operations"]["tested"] != found["operations"]["total"]:
        failures.append(f"seed {seed}: not all operations were tested: {found['operations']}")
    return Fuzzed(found["test_cases"]["generated"], found["operations"]["tested"], tuple(failures))
