"""What a challenger said of live traffic, checked against the decisions as they were kept."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from creditrisk_assets.decisions.sets import (
    ROWS_AT_ONCE,
    NoSuchDecision,
    batches,
    parsed_id,
    proven_file,
    set_and_row,
)
from creditrisk_assets.decisions.shadow import shadow_days, shadow_scores
from creditrisk_assets.scoring.bundle import Bundle
from creditrisk_assets.storage import StoredPath

FloatArray = NDArray[np.float64]

ROWS_LIMIT = 200_000
"""Decisions that are made again, the latest ones: some seconds, and more would change no figure
that is looked at.
"""


@dataclass(frozen=True)
class ShadowEvidence:
    """Shadow scores of one challenger on decisions that are kept.

    Attributes:
        days: of the decisions.
        failed: how many the challenger gave no PD between 0 and 1.
        different: how many PDs, or records of what was told, do not come out again to the bit.
        waiting: how many are of decisions that are still in the log and not kept yet; they are no
            evidence.
        champion: the champion's PD where the champion now in force has decided and the challenger
            has scored.
        challenger: the challenger's on the same.
        rows: decisions looked at.
    """

    days: tuple[str, ...] = ()
    rows: int = 0
    failed: int = 0
    different: int = 0
    waiting: int = 0
    champion: FloatArray = field(default_factory=lambda: np.empty(0))
    challenger: FloatArray = field(default_factory=lambda: np.empty(0))


NOTHING_SHADOWED = ShadowEvidence()


@dataclass(frozen=True)
class ShadowFolders:
    """Where shadow scores and decisions are kept, and how many of the latest days count."""

    shadow: StoredPath
    decisions: StoredPath
    days: int

    def evidence(self, challenger: Bundle, champion_version: str) -> ShadowEvidence:
        """What a challenger said of the latest days.

        Raises:
            DecisionsError: if the decisions were changed.
        """
        looked = [
            _compared(self.decisions, day, name, table, challenger, champion_version)
            for day, name, table in self._sets(challenger.sha256)
        ]
        return ShadowEvidence(
            days=tuple(sorted({day for one in looked for day in one.days})),
            rows=sum(one.rows for one in looked),
            failed=sum(one.failed for one in looked),
            different=sum(one.different for one in looked),
            waiting=sum(one.waiting for one in looked),
            champion=np.concatenate([np.empty(0), *(one.champion for one in looked)]),
            challenger=np.concatenate([np.empty(0), *(one.challenger for one in looked)]),
        )

    def _sets(self, bundle_sha256: str) -> Iterator[tuple[str, str, pa.Table]]:
        """Day, name of the set of decisions, and the shadow scores on it, the latest days first, up
        to the limit.
        """
        rows = 0
        for day in shadow_days(self.shadow)[: -self.days - 1 : -1]:
            for table in shadow_scores(self.shadow, day, bundle_sha256):
                for name, of_this in _by_set(table).items():
                    if rows >= ROWS_LIMIT:
                        return
                    rows += len(of_this)
                    yield day, name, table.take(pa.array(of_this))


def _by_set(table: pa.Table) -> dict[str, list[int]]:
    """The rows of each set of decisions."""
    places = defaultdict(list)
    for place, decision_id in enumerate(table["decision_id"].to_pylist()):
        places[parsed_id(decision_id)[1]].append(place)
    return dict(places)


def _compared(
    decisions: StoredPath,
    day: str,
    name: str,
    shadow: pa.Table,
    challenger: Bundle,
    champion_version: str,
) -> ShadowEvidence:
    """Shadow scores on one set of decisions, made again."""
    try:
        kept, _ = set_and_row(decisions, f"{day}-{name}-0")
    except NoSuchDecision:
        return ShadowEvidence(waiting=len(shadow))
    rows = [parsed_id(one)[2] for one in shadow["decision_id"].to_pylist()]
    if max(rows) >= kept.rows:
        return ShadowEvidence(days=(day,), rows=len(rows), different=len(rows))
    told, again = _made_again(
        challenger, list(batches(proven_file(decisions, kept), ROWS_AT_ONCE)), rows
    )
    said, said_told = (
        shadow[name].to_numpy() for name in ("challenger_probability", "champion_probability")
    )
    scored = (said >= 0) & (said <= 1)  # what is null is NaN here, and is not
    exact = (said == again) & (said_told == told)
    alike = scored & (np.array(shadow["champion_version"].to_pylist()) == champion_version)
    return ShadowEvidence(
        days=(day,),
        rows=len(rows),
        failed=int((~scored).sum()),
        different=int((scored & ~exact).sum()),
        champion=said_told[alike],
        challenger=said[alike],
    )


def _made_again(
    challenger: Bundle, records: Sequence[pa.RecordBatch], rows: Sequence[int]
) -> tuple[FloatArray, FloatArray]:
    """PDs of some rows of kept decisions: as they were told, and as the challenger gives them on
    the kept records.
    """
    taken = pa.Table.from_batches(records).take(pa.array(rows)).combine_chunks()
    columns = {name: taken[name].to_numpy() for name in challenger.input_names}
    return taken["default_probability"].to_numpy(), challenger.score(
        challenger.raw(columns)
    ).default_probability
