"""Making a decision again: the bundle that made it, loaded from the store, must give the same bits
on the record as kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from creditrisk_assets.decisions.sets import (
    DECISION_ID,
    REASONS,
    ROWS_AT_ONCE,
    DecisionsError,
    DecisionSet,
    answer_columns,
    batches,
    days_with_decisions,
    proven_file,
    sets_of,
)
from creditrisk_assets.scoring.bundle import Bundle, BundleError, ChampionRecord, DecisionRule
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.storage import StoredPath

SAMPLED_SETS = 5
SAMPLED_ROWS = 1_000
SHOWN = 20
"""Differences that a replay names; the others it counts."""


@dataclass(frozen=True)
class Replayed:
    """One set made again.

    Attributes:
        decisions: the set.
        rows: how many decisions were made again.
        differences: the first ids whose PD, score, prediction or reasons came out otherwise, and
            what.
        different: how many there are.
        problem: why the set could not be made again, or None.
    """

    decisions: DecisionSet
    rows: int
    differences: tuple[str, ...]
    different: int
    problem: str | None

    @property
    def exact(self) -> bool:
        """Whether every decision came out to the bit."""
        return self.problem is None and self.different == 0


def replay_set(
    folder: StoredPath,
    bundles: BundleStore,
    decisions: DecisionSet,
    told: Callable[[int], None] | None = None,
    sample: Callable[[int], NDArray[np.int64]] | None = None,
) -> Replayed:
    """Make the decisions of a set again.

    Args:
        folder: where all decisions are.
        bundles: where the bundles are that made them.
        decisions: the set.
        told: called with the rows done.
        sample: given a number of rows, which of them to make again; None for all.
    """
    differences: list[str] = []
    rows = different = 0
    try:
        bundle = bundles.load(decisions.champion.bundle_sha256)
        for batch in batches(proven_file(folder, decisions), ROWS_AT_ONCE):
            part = batch.take(pa.array(sample(len(batch)))) if sample else batch
            found = list(_differences(bundle, decisions.champion.rule, part))
            differences += found[: SHOWN - len(differences)]
            different += len(found)
            rows += len(part)
            if told:
                told(len(batch))
    except (BundleError, DecisionsError) as error:
        return Replayed(decisions, rows, tuple(differences), different, str(error))
    problem = (
        None
        if sample or rows == decisions.rows
        else f"{rows} rows are kept; valid: {decisions.rows}"
    )
    return Replayed(decisions, rows, tuple(differences), different, problem)


def replay_sample(folder: StoredPath, bundles: BundleStore, seed: int) -> list[Replayed]:
    """Make a random sample of past decisions again.

    Args:
        folder: where all decisions are.
        bundles: where the bundles are that made them.
        seed: of the sample.

    Returns:
        Up to five sets, each with up to a thousand of its decisions (of each 16,384 at most a
        thousand).
    """
    rng = np.random.default_rng(seed)
    days = days_with_decisions(folder)
    chosen = (
        sorted(rng.choice(days, min(SAMPLED_SETS, len(days)), replace=False).tolist())
        if days
        else []
    )

    def rows_of(rows: int) -> NDArray[np.int64]:
        return np.sort(rng.choice(rows, min(SAMPLED_ROWS, rows), replace=False)).astype(np.int64)

    sets = [kept for day in chosen for kept in sets_of(folder, day)[-1:]]
    return [replay_set(folder, bundles, kept, sample=rows_of) for kept in sets]


@dataclass(frozen=True)
class ReplayedDecision:
    """One decision made again: what was kept, what came out now, and who made it."""

    champion: ChampionRecord
    kept: dict[str, Any]
    now: dict[str, Any]
    reasons: tuple[tuple[str, str], ...]

    @property
    def exact(self) -> bool:
        """Whether it came out to the bit."""
        return all(self.kept[name] == value for name, value in self.now.items())


def replay_decision(
    bundles: BundleStore, champion: ChampionRecord, record: pa.RecordBatch
) -> ReplayedDecision:
    """Make one decision again, of a batch or of the API.

    Args:
        bundles: where the bundle is that made it.
        champion: who made it.
        record: its row as it was kept.

    Raises:
        BundleError: if the bundle that made it is gone or was changed.
    """
    bundle = bundles.load(champion.bundle_sha256)
    answers = answer_columns(bundle, champion.rule, record)
    texts = {reason.code: reason.text for reason in bundle.manifest.reasons}
    kept = record.to_pylist()[0]
    given = tuple(
        (kept[name], texts.get(kept[name], "not a reason of this bundle"))
        for name in REASONS
        if kept[name]
    )
    return ReplayedDecision(
        champion, kept, {name: array[0].as_py() for name, array in answers.items()}, given
    )


def _differences(bundle: Bundle, rule: DecisionRule, records: pa.RecordBatch) -> Iterator[str]:
    for name, now in answer_columns(bundle, rule, records).items():
        kept = records.column(name)
        if kept.equals(now):
            continue
        for row, (was, comes) in enumerate(zip(kept.to_pylist(), now.to_pylist(), strict=True)):
            if was != comes:
                yield (
                    f"{records.column(DECISION_ID)[row].as_py()}: {name} was {was}, comes out "
                    f"{comes}"
                )
