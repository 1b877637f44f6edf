"""Processes that begin as copies of one that has imported the product. An interpreter of its own spends seconds on that."""

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from creditrisk_assets.code_server import IMPORTED_BEFORE_RUNS

SECONDS = 120


class CopiedProcess:
    """A process that runs a script, and can be killed like any other."""

    def __init__(
        self, script: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*IMPORTED_BEFORE_RUNS])
        self.errors = folder / f"stderr-{len(list(folder.glob('stderr-*')))}"
        self.errors.touch()
        self.process = context.Process(
            target=_run, args=(script, arguments, dict(environment), folder, self.errors)
        )
        self.process.start()

    def kill(self) -> None:
        self.process.kill()

    def ended(self) -> int:
        """Its exit code, when it has ended; minus the signal that killed it."""
        self.process.join(SECONDS)
        assert self.process.exitcode is not None, f"it did not end; {self.errors.read_text()}"
        return self.process.exitcode


def _run(
    script: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    errors: Path,
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    with errors.open("wb") as file:
        os.dup2(file.fileno(), 2)
    sys.argv = ["-c", *arguments]
    exec(compile(script, "script", "exec"), {"__name__": "__main__"})  # noqa: S102
