"""No caller gets more through than the limit says, by all processes together."""

import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from serving.access import rate_limit
from serving.access.rate_limit import (
    HASH_BYTES,
    MOMENT,
    SLOT,
    RateLimiter,
    Refusal,
    TooManyCallers,
)
from tests.support.places import REPOSITORY

WORKER = """
import sys, time
from pathlib import Path
from serving.access.rate_limit import RateLimiter
limiter = RateLimiter(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
end = time.monotonic() + float(sys.argv[4])
while time.monotonic() < end:
    before = time.monotonic()
    if limiter.refusal("bank") is None:
        print(before, time.monotonic())
"""


@given(
    rate=some.floats(0.1, 10_000),
    burst=some.integers(1, 50),
    pauses=some.lists(some.floats(0, 2) | some.just(0.0), min_size=1, max_size=200),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_no_window_more_than_burst_and_rate_are_let_through(
    rate: float, burst: int, pauses: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock of the test's own, so that hours pass."""
    moment = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: moment)
    path = tmp_path / "table"
    path.unlink(missing_ok=True)
    limiter = RateLimiter(path, rate, burst)
    let_through = []
    for pause in pauses:
        moment += pause
        refusal = limiter.refusal("bank")
        if refusal is None:
            let_through.append(moment)
        else:
            moment += refusal.seconds + 1e-6
            assert limiter.refusal("bank") is None, "who waits as long as told gets through"
            let_through.append(moment)
    limiter.close()
    for first, start in enumerate(let_through):
        for last in range(first, len(let_through)):
            assert last - first + 1 <= burst + rate * (let_through[last] - start) + 1e-3


@pytest.mark.starts_processes
def test_two_processes_share_one_limit(tmp_path: Path) -> None:
    rate, burst = 200.0, 20
    command = [sys.executable, "-c", WORKER, str(tmp_path / "table"), str(rate), str(burst), "1.0"]
    folder = str(REPOSITORY)
    workers = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": folder, "PATH": "/usr/bin:/bin"},
        )
        for _ in range(2)
    ]
    spans = sorted(
        tuple(map(float, line.split()))
        for worker in workers
        for line in worker.communicate(timeout=30)[0].splitlines()
    )
    assert len(spans) >= rate * 0.5
    for first, (start, _) in enumerate(spans):
        end = start
        for last in range(first, len(spans)):
            # A request was let through between two readings of the clock; all of these were between `start` and `end`.
            end = max(end, spans[last][1])
            assert last - first + 1 <= burst + rate * (end - start) + 1e-6


def test_a_burst_is_let_through_and_the_next_is_told_when_to_come_again(tmp_path: Path) -> None:
    limiter = RateLimiter(tmp_path / "table", 0.5, 3)
    assert [limiter.refusal("bank") for _ in range(3)] == [None, None, None]
    refusal = limiter.refusal("bank")
    assert refusal is not None
    assert 1.9 < refusal.seconds <= 2.0
    assert refusal.headers == {
        "Retry-After": "2",
        "RateLimit-Policy": '"caller";q=3;w=6',
        "RateLimit": '"caller";r=0;t=2',
    }
    assert limiter.refusal("another") is None


def test_what_another_boot_or_a_torn_file_left_locks_nobody_out(tmp_path: Path) -> None:
    limiter = RateLimiter(tmp_path / "table", 1.0, 5)
    assert limiter.refusal("bank") is None
    content = bytearray((tmp_path / "table").read_bytes())
    place = next(
        at
        for at in range(0, len(content), SLOT.size)
        if content[at : at + HASH_BYTES] != bytes(HASH_BYTES)
    )
    for left in (time.monotonic() + 1e9, float("nan"), float("inf"), -1.0):
        with (tmp_path / "table").open("r+b") as file:
            file.seek(place + HASH_BYTES)
            file.write(MOMENT.pack(left))
        assert limiter.refusal("bank") is None
    assert struct.calcsize("=Qd") == SLOT.size


def test_more_callers_than_slots_are_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "CALLERS_LIMIT", 8)
    limiter = RateLimiter(tmp_path / "table", 1.0, 5)
    assert all(limiter.refusal(f"caller{place}") is None for place in range(8))
    with pytest.raises(TooManyCallers, match="remove the file"):
        limiter.refusal("one more")
    assert isinstance(limiter.refusal("caller0"), Refusal | None)


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 1), (-1.0, 1), (1.0, 0)])
def test_a_limit_that_lets_nobody_through_is_refused(
    tmp_path: Path, rate: float, burst: int
) -> None:
    with pytest.raises(ValueError, match="valid: a rate above 0"):
        RateLimiter(tmp_path / "table", rate, burst)
