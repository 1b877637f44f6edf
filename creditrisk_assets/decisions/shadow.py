"""Computes shadow scores: a challenger's PDs on customers that the champion has decided on.

The API's decisions are stored with their records, so a challenger scores them afterwards: no
request waits for it, and the scores can be computed again at any time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import structlog
from numpy.typing import NDArray

from creditrisk_assets.decisions.sets import (
    DecisionSet,
    days_with_decisions,
    sets_of,
    stored_batches,
)
from creditrisk_assets.scoring.bundle import Bundle
from creditrisk_assets.storage import StoredPath

log = structlog.get_logger()

FloatArray = NDArray[np.float64]

ROWS_LIMIT = 200_000
"""Number of latest decisions to score: it takes some seconds, and more would change no reported
figure.
"""


@dataclass(frozen=True)
class ShadowScores:
    """PDs of the challenger and the champion on the same decisions.

    Attributes:
        days: of the decisions, oldest first.
        rows: decisions.
        champion: PDs of the API's answers, for the rows that the challenger could score.
        challenger: its PDs on the same rows.
    """

    days: tuple[str, ...] = ()
    rows: int = 0
    champion: FloatArray = field(default_factory=lambda: np.empty(0))
    challenger: FloatArray = field(default_factory=lambda: np.empty(0))

    @property
    def failed(self) -> int:
        """Decisions without a challenger's PD between 0 and 1."""
        return self.rows - len(self.challenger)


def shadow_scores(
    decisions: StoredPath, last_days: int, challenger: Bundle, champion_version: str
) -> ShadowScores:
    """Score the API's stored decisions of the last days by a challenger.

    Args:
        decisions: folder of all decisions.
        last_days: number of latest days with decisions.
        challenger: scores the records.
        champion_version: only decisions of this version count; a fallback's do not.

    Raises:
        DecisionsError: if stored decisions were changed.
    """
    days, champions, challengers, rows = set(), [], [], 0
    for decided in _sets(decisions, last_days, champion_version):
        for batch in stored_batches(decisions, decided):
            if not set(challenger.input_names) <= set(batch.schema.names):
                break  # records of an earlier contract
            answered, scored = batch["default_probability"].to_numpy(), _scores(challenger, batch)
            valid = (scored >= 0) & (scored <= 1)
            days.add(decided.day)
            champions.append(answered[valid])
            challengers.append(scored[valid])
            rows += len(batch)
        if rows >= ROWS_LIMIT:
            break
    if not rows:
        return ShadowScores()
    return ShadowScores(
        tuple(sorted(days)), rows, np.concatenate(champions), np.concatenate(challengers)
    )


def _sets(decisions: StoredPath, last_days: int, champion_version: str) -> Iterator[DecisionSet]:
    """The API's decision sets of a version, latest days first."""
    for day in days_with_decisions(decisions)[: -last_days - 1 : -1]:
        for decided in sets_of(decisions, day):
            if decided.segment is not None and decided.champion.model_version == champion_version:
                yield decided


def _scores(challenger: Bundle, records: pa.RecordBatch) -> FloatArray:
    """PDs of the challenger; NaN for all records if it fails."""
    try:
        return challenger.score(challenger.raw(records)).default_probability
    except Exception as error:  # a bundle may raise anything; the gate counts the failures
        log.error("shadow_not_scored", error=f"{type(error).__name__}: {error}")
        return np.full(len(records), np.nan)
