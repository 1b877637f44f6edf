"""Days of customers whose counts can be drawn by the thousand: a champion, its profile, and
customers put into its bins once.

A world is one history with the champion that was trained on it, made as in production; another
world has another history of the same population, so that a reference's own luck is part of what is
measured. A day is drawn from a pool of customers that the champion has not seen, whole rows at a
time, so that its columns depend on each other as they do.
"""

import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from creditrisk_assets.landing.history import read_history
from creditrisk_assets.modelling.bundling import make_bundle
from creditrisk_assets.modelling.datasets import history_set, with_features
from creditrisk_assets.modelling.selection import CANDIDATES
from creditrisk_assets.modelling.training import cross_fit_candidates
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import HELD_OUT, REFERENCE, Bundle
from creditrisk_assets.scoring.reference_profile import (
    SCORE,
    ReferenceProfile,
    RowCounter,
    reference_profile_of,
)
from creditrisk_assets.simulation.card_customers import simulate

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

HISTORY_ROWS = 20_000
PRODUCTION = 10_000_000
"""The first identifier of simulated customers that are no history."""


@dataclass(frozen=True)
class World:
    """A champion and its profile.

    `expected` has the effective reference counts of each column, `reference` the training rows that
    the bundle keeps as they are, the score first; `held_out` has its held-out rows.
    """

    bundle: Bundle
    profile: ReferenceProfile
    expected: list[FloatArray]
    reference: pd.DataFrame
    held_out: pd.DataFrame
    customers: Callable[[int, int], pd.DataFrame]
    """Customers that the champion has not seen: `(rows, seed)`."""

    def pool(self, frame: pd.DataFrame) -> "Pool":
        """Put customers into the champion's bins."""
        raw = self.bundle.raw(frame)
        columns = [self.bundle.score(raw).score, *raw.T]
        layout = Layout.of(self.profile)
        places = np.empty((len(frame), len(columns)), dtype=np.int32)
        for number, (column, values) in enumerate(zip(self.profile.columns, columns, strict=True)):
            bins = np.searchsorted(column.edges, values.astype(np.float64), side="left")
            if column.codes is None:
                outside = (values < column.minimum) | (values > column.maximum)
            else:
                outside = ~np.isin(values, column.codes)
            places[:, number] = layout.starts[number] + 2 * bins + outside
        return Pool(places, layout, np.stack([one.astype(np.float64) for one in columns], axis=1))

    def counted(self, frame: pd.DataFrame) -> list[IntArray]:
        """The bins' counts as production counts them."""
        raw = self.bundle.raw(frame)
        batch = pa.RecordBatch.from_pandas(
            frame.assign(**{SCORE: self.bundle.score(raw).score}), preserve_index=False
        )
        counts = RowCounter(self.profile, self.bundle.manifest.inputs)(batch)
        return [counts[name].bins for name in self.profile.names]


@dataclass(frozen=True)
class Layout:
    """Where each column's cells are in one long row: for each bin the usual rows, then those out of
    range or with a new code.
    """

    starts: list[int]
    cells: int

    @classmethod
    def of(cls, profile: ReferenceProfile) -> "Layout":
        """For the columns of a profile."""
        ends = np.cumsum([2 * len(column.counts) for column in profile.columns]).tolist()
        return cls([0, *ends[:-1]], ends[-1])


@dataclass(frozen=True)
class Pool:
    """Customers in bins: `places` is customers x columns, a cell of the layout each; `values` what
    the columns hold.
    """

    places: NDArray[np.int32]
    layout: Layout
    values: FloatArray

    def day(self, chosen: IntArray) -> IntArray:
        """Counts in every cell of a day with these customers."""
        return np.bincount(self.places[chosen].ravel(), minlength=self.layout.cells)


def columns_of(cells: IntArray, layout: Layout) -> tuple[list[IntArray], IntArray]:
    """Of days (... x cells) the counts of each column's bins (a list of ... x bins), and the rows
    of each column that are out of range or have a new code (... x columns).
    """
    ends = [*layout.starts[1:], layout.cells]
    pairs = [
        cells[..., start:end].reshape(*cells.shape[:-1], -1, 2)
        for start, end in zip(layout.starts, ends, strict=True)
    ]
    return [one.sum(axis=-1) for one in pairs], np.stack(
        [one[..., 1].sum(axis=-1) for one in pairs], axis=-1
    )


def draw(pool: Pool, days: int, rows: int, rng: np.random.Generator) -> IntArray:
    """Days x cells: each day's customers are drawn from the pool with replacement."""
    return np.stack([pool.day(rng.integers(0, len(pool.places), rows)) for _ in range(days)])


def pooled(cells: IntArray, days: int) -> IntArray:
    """The sums over each day and those before it, `days` of them where there are so many;
    days are the first axis.
    """
    total = np.cumsum(cells, axis=0)
    total[days:] -= total[:-days].copy()
    return total


def worlds(count: int, seed: int, data: Path | None) -> Sequence[Callable[[], World]]:
    """Worlds to be made one after the other.

    Args:
        count: how many.
        seed: of the first.
        data: a file with the portfolio's columns, whose customers are dealt to history and
            production anew in each world; by default customers are simulated.
    """
    return [partial(_world, seed + number, data) for number in range(count)]


@cache
def _world(seed: int, data: Path | None) -> World:
    if data is None:
        history = simulate(HISTORY_ROWS, seed)

        def customers(rows: int, other: int) -> pd.DataFrame:
            return simulate(rows, other, PRODUCTION)

    else:
        whole = read_history(str(data), PORTFOLIO).rows.accepted
        order = np.random.default_rng(seed).permutation(len(whole))
        history = whole.iloc[order[: min(HISTORY_ROWS, len(whole) * 2 // 3)]]
        others = whole.iloc[order[len(history) :]].reset_index(drop=True)

        def customers(rows: int, other: int) -> pd.DataFrame:
            return others.iloc[
                np.random.default_rng(other).integers(0, len(others), rows)
            ].reset_index(drop=True)

    learning = history_set(with_features(history.reset_index(drop=True), PORTFOLIO), PORTFOLIO)
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(limits=1):
        fits = cross_fit_candidates(PORTFOLIO, learning.fit, CANDIDATES[-1:])
        bundle = make_bundle(
            Path(folder), PORTFOLIO, learning.fit, learning.held_out, "history", [], fits
        )
        profile = reference_profile_of(bundle)
        reference = pd.read_parquet(io.BytesIO(bundle.document(REFERENCE)))[profile.names].astype(
            np.float64
        )
        held_out = pd.read_parquet(io.BytesIO(bundle.document(HELD_OUT)))
    return World(
        bundle,
        profile,
        [profile.effective_counts(column) for column in profile.columns],
        reference,
        held_out,
        customers,
    )
