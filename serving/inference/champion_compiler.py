"""Compiles the champion's code in the background, once it has decided on enough customers to be
worth it. Its graphs answer until the code is proved.
"""

import threading
from pathlib import Path

import structlog

from creditrisk_assets.scoring.runtime import Runtime
from serving.inference.champion_holder import ChampionHolder
from serving.inference.decider import Group

log = structlog.get_logger()

WORTH_CUSTOMERS = 10_000
"""Compilation and proof cost about as much as the graphs' work on twice as many customers."""


class ChampionCompiler:
    """A listener of the decider, with a thread that compiles one runtime at a time.

    Args:
        holder: of the champion.
        cache: folder of compiled code.
    """

    def __init__(self, holder: ChampionHolder, cache: Path) -> None:
        self._holder = holder
        self._cache = cache
        self._counted: Runtime | None = None
        self._customers = 0
        self._waiting: Runtime | None = None
        self._stopped = False
        self._has_news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="compiler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the compilation that is running."""
        with self._has_news:
            self._stopped = True
            self._has_news.notify()
        self._thread.join()

    def on_decided(self, group: Group) -> None:
        """Count the customers of a runtime, and have it compiled when it is worth it."""
        runtime = group.champion.runtime
        if not runtime.may_be_compiled:
            return
        if runtime is not self._counted:
            self._counted, self._customers = runtime, 0
        before, self._customers = self._customers, self._customers + len(group.decisions.prediction)
        if before < WORTH_CUSTOMERS <= self._customers:
            with self._has_news:
                self._waiting = runtime
                self._has_news.notify()

    def on_not_written(self) -> None:
        """Decisions that were not written count for nothing."""

    def _run(self) -> None:
        while (runtime := self._next()) is not None:
            try:
                compiled = Runtime.compiled(runtime.bundle, runtime.rule, self._cache)
            except Exception as error:  # the graphs continue
                compiled = Runtime(runtime.bundle, runtime.rule, reason=str(error))
            log.info("champion_compiled", decided_by=str(compiled))
            self._holder.switch_runtime(runtime, compiled)

    def _next(self) -> Runtime | None:
        """The runtime that waits; None at the end."""
        with self._has_news:
            self._has_news.wait_for(lambda: self._stopped or self._waiting is not None)
            runtime, self._waiting = self._waiting, None
            return None if self._stopped else runtime
