"""The rules of deploy/prometheus/alerts.yml, evaluated by Prometheus' own `promtool` on what `/metrics` says.

A drill lasts seconds, a rule waits for minutes. So the state between two readings is taken to go on at the same pace for
`MINUTES`, and the rules are evaluated at their end.
"""

import math
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.support.metrics import Samples, samples
from tests.support.places import REPOSITORY

RULES = REPOSITORY / "deploy" / "prometheus" / "alerts.yml"
MINUTES = 20
"""Longer than any rule waits and looks back."""


def promtool() -> str | None:
    """Prometheus' tool, if it is installed."""
    return shutil.which("promtool")


@dataclass(frozen=True)
class State:
    """Two readings of `/metrics`, the seconds between them, and the alerts that must and must not fire.

    Attributes:
        first: the first reading.
        last: the last reading.
        seconds: between them.
        fires: by the name of an alert.
    """

    first: Samples
    last: Samples
    seconds: float
    fires: Mapping[str, bool]

    def test(self) -> dict[str, Any]:
        """The state as promtool's test."""
        return {
            "interval": "1m",
            "input_series": self._series(),
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) > bool 0 or vector(0)',
                    "eval_time": f"{MINUTES}m",
                    "exp_samples": [{"labels": "{}", "value": int(fires)}],
                }
                for alert, fires in self.fires.items()
            ],
        }

    def _series(self) -> list[dict[str, str]]:
        result = []
        for (name, labels), value in self.last.items():
            if not math.isfinite(value):
                continue
            pairs = ", ".join(f'{label}="{text}"' for label, text in labels)
            is_counter = name.endswith(("_total", "_bucket", "_count", "_sum"))
            begin = self.first.get((name, labels), 0.0) if is_counter else value
            a_minute = (value - begin) / self.seconds * 60
            result.append(
                {
                    "series": f"{name}{{{pairs}}}",
                    "values": f"{begin:.9g}+{max(a_minute, 0):.9g}x{MINUTES}",
                }
            )
        return result


def state_during(
    read: Callable[[], bytes], happens: Callable[[], object], fires: Mapping[str, bool]
) -> State:
    """The state while something happens.

    Args:
        read: gives the text of `/metrics`.
        happens: takes a second or more.
        fires: the alerts that must and must not fire.
    """
    first, begin = samples(read()), time.monotonic()
    happens()
    return State(first, samples(read()), time.monotonic() - begin, fires)


def evaluate(states: Sequence[State], folder: Path) -> None:
    """Evaluate the rules on states.

    Args:
        states: each on its own.
        folder: for the input of promtool.
    """
    file = folder / "rules.test.yml"
    tests = [state.test() for state in states]
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests})
    )
    done = subprocess.run(
        [str(promtool()), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
