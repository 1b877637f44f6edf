"""Replays decisions: the stored bundle of a decision must give the same bits on the stored
record.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from creditrisk_assets.decisions.sets import (
    DECISION_ID,
    REASONS,
    DecisionsError,
    DecisionSet,
    answer_columns,
    days_with_decisions,
    sets_of,
    stored_batches,
)
from creditrisk_assets.scoring.bundle import BundleError, ChampionRecord
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.scoring.runtime import DifferentDecisionError, Runtime
from creditrisk_assets.storage import StoredPath

SAMPLED_SETS = 5
SAMPLED_ROWS = 1_000
SHOWN = 20
"""Differences that a replay names; the others are only counted."""


@dataclass(frozen=True)
class ReplayedSet:
    """The replay of a set.

    Attributes:
        decisions: the set.
        rows: number of replayed decisions.
        differences: the first decisions with another PD, score, prediction or reason, in words.
        different: number of such decisions.
        problem: the reason for an incomplete replay, or None.
    """

    decisions: DecisionSet
    rows: int
    differences: tuple[str, ...]
    different: int
    problem: str | None

    @property
    def exact(self) -> bool:
        """True if every decision is the same to the bit."""
        return self.problem is None and self.different == 0


def replay_set(
    folder: StoredPath,
    bundles: BundleStore,
    decisions: DecisionSet,
    on_progress: Callable[[int], None] | None = None,
    sample: Callable[[int], NDArray[np.int64]] | None = None,
    compiled_code: Path | None = None,
) -> ReplayedSet:
    """Replay the decisions of a set.

    Args:
        folder: of all decisions.
        bundles: store of their bundles.
        decisions: the set.
        on_progress: called with the number of rows of each chunk.
        sample: chooses rows to replay, given their number; None for all.
        compiled_code: folder of compiled code for long sets; without it the graphs replay.
    """
    differences: list[str] = []
    rows = different = 0
    try:
        bundle = bundles.load(decisions.champion.bundle_sha256)
        runtime = Runtime.for_rows(
            bundle, decisions.champion.rule, decisions.rows, None if sample else compiled_code
        )
        for batch in stored_batches(folder, decisions):
            part = batch.take(pa.array(sample(len(batch)))) if sample else batch
            found = list(_differences(runtime, part))
            differences += found[: SHOWN - len(differences)]
            different += len(found)
            rows += len(part)
            if on_progress:
                on_progress(len(batch))
    except DifferentDecisionError:  # the graphs say what the decisions are
        return replay_set(folder, bundles, decisions, on_progress, sample)
    except (BundleError, DecisionsError) as error:
        return ReplayedSet(decisions, rows, tuple(differences), different, str(error))
    problem = (
        None
        if sample or rows == decisions.rows
        else f"{rows} rows are stored; valid: {decisions.rows}"
    )
    return ReplayedSet(decisions, rows, tuple(differences), different, problem)


def replay_sample(folder: StoredPath, bundles: BundleStore, seed: int) -> list[ReplayedSet]:
    """Replay a random sample of past decisions.

    Args:
        folder: of all decisions.
        bundles: store of their bundles.
        seed: of the sample.

    Returns:
        Up to five sets, each with up to a thousand of its decisions (of each 16,384 at most a
        thousand).
    """
    rng = np.random.default_rng(seed)
    days = days_with_decisions(folder)
    if not days:
        return []
    chosen = sorted(rng.choice(days, min(SAMPLED_SETS, len(days)), replace=False).tolist())

    def rows_of(rows: int) -> NDArray[np.int64]:
        return np.sort(rng.choice(rows, min(SAMPLED_ROWS, rows), replace=False)).astype(np.int64)

    sets = [decisions for day in chosen for decisions in sets_of(folder, day)[-1:]]
    return [replay_set(folder, bundles, decisions, sample=rows_of) for decisions in sets]


@dataclass(frozen=True)
class ReplayedDecision:
    """The replay of a decision: its champion, the stored row, and the answer now."""

    champion: ChampionRecord
    stored: dict[str, Any]
    now: dict[str, Any]
    reasons: tuple[tuple[str, str], ...]

    @property
    def exact(self) -> bool:
        """True if the answer is the same to the bit."""
        return all(self.stored[name] == value for name, value in self.now.items())


def replay_decision(
    bundles: BundleStore, champion: ChampionRecord, record: pa.RecordBatch
) -> ReplayedDecision:
    """Replay a decision of a batch or of the API.

    Args:
        bundles: store of its bundle.
        champion: the model that decided.
        record: its stored row.

    Raises:
        BundleError: if its bundle is gone or was changed.
    """
    bundle = bundles.load(champion.bundle_sha256)
    answers = answer_columns(Runtime(bundle, champion.rule), record)
    texts = {reason.code: reason.text for reason in bundle.manifest.reasons}
    stored = record.to_pylist()[0]
    reasons = tuple(
        (stored[name], texts.get(stored[name], "not a reason of this bundle"))
        for name in REASONS
        if stored[name]
    )
    return ReplayedDecision(
        champion, stored, {name: array[0].as_py() for name, array in answers.items()}, reasons
    )


def _differences(runtime: Runtime, records: pa.RecordBatch) -> Iterator[str]:
    for name, now in answer_columns(runtime, records).items():
        stored = records.column(name)
        if stored.equals(now):
            continue
        pairs = zip(stored.to_pylist(), now.to_pylist(), strict=True)
        for row, (before, after) in enumerate(pairs):
            if before != after:
                decision_id = records.column(DECISION_ID)[row].as_py()
                yield f"{decision_id}: {name} was {before}, comes out {after}"
