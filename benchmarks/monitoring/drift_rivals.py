"""Verdicts of other rules on the same days: a fixed line for PSI, and Evidently's default preset.

Evidently's report takes seconds for a day, so its default tests are computed here: with a
reference of more than 1,000 rows the Wasserstein distance in standard deviations of the reference
for a number of more than five values, the Jensen-Shannon distance of the shares for a code, a
column drifted from 0.1 on, the data set from half of the columns on. `agrees_with_evidently` holds
this against the report itself.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from benchmarks.monitoring.drift_worlds import IntArray, World
from creditrisk_assets.scoring.reference_profile import SCORE

FloatArray = NDArray[np.float64]

LINE = 0.1
SHARE = 0.5


@dataclass(frozen=True)
class EvidentlyDefault:
    """Evidently's default distances of days from a reference.

    `widths` has for each column the gaps between the values that there are, rising; `places` for
    each customer of the pool the place of each of its values among them; `shares` for each column
    the reference's share up to each value, or, of a code, of each.
    """

    codes: list[bool]
    widths: list[FloatArray]
    places: NDArray[np.int32]
    shares: list[FloatArray]
    spreads: list[float]

    @classmethod
    def of(cls, world: World, values: FloatArray) -> "EvidentlyDefault":
        """For days drawn from customers with these values (customers x columns)."""
        codes, widths, shares, spreads = [], [], [], []
        places = np.empty(values.shape, dtype=np.int32)
        for number, column in enumerate(world.profile.columns):
            reference = world.reference[column.name].to_numpy()
            grid = np.unique(np.concatenate([reference, values[:, number]]))
            codes.append(column.codes is not None)
            share = np.bincount(np.searchsorted(grid, reference), minlength=len(grid)) / len(
                reference
            )
            widths.append(np.diff(grid))
            shares.append(share if codes[-1] else share.cumsum())
            spreads.append(max(float(np.std(reference)), 0.001))
            places[:, number] = np.searchsorted(grid, values[:, number])
        return cls(codes, widths, places, shares, spreads)

    def distances(self, chosen: IntArray) -> FloatArray:
        """Of a day with these customers, one for each column."""
        day = self.places[chosen]
        found = []
        for number, (coded, width, share, spread) in enumerate(
            zip(self.codes, self.widths, self.shares, self.spreads, strict=True)
        ):
            mine = np.bincount(day[:, number], minlength=len(share)) / len(chosen)
            if coded:
                found.append(float(jensenshannon(share, mine)))
            else:
                found.append(float((np.abs(mine.cumsum() - share)[:-1] * width).sum()) / spread)
        return np.array(found)


def agrees_with_evidently(
    world: World, rival: EvidentlyDefault, values: FloatArray, chosen: IntArray
) -> float:
    """The largest difference between these distances and those of Evidently's own report on one
    day.

    Raises:
        AssertionError: if it calls other columns drifted.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    names = world.profile.names
    coded = [name for name, code in zip(names, rival.codes, strict=True) if code]
    definition = DataDefinition(
        numerical_columns=[name for name in names if name not in coded], categorical_columns=coded
    )
    texts = dict.fromkeys(coded, "int64"), dict.fromkeys(coded, str)
    frames = (pd.DataFrame(values[chosen], columns=names), world.reference)
    sides = [
        Dataset.from_pandas(frame.astype(texts[0]).astype(texts[1]), definition) for frame in frames
    ]
    metrics = Report([DataDriftPreset()]).run(*sides).dict()["metrics"]
    theirs = {
        one["config"]["column"]: float(one["value"])
        for one in metrics
        if "column" in one.get("config", {})
    }
    mine = dict(zip(names, rival.distances(chosen).tolist(), strict=True))
    assert {name for name, value in theirs.items() if value >= LINE} == {
        name for name, value in mine.items() if value >= LINE
    }
    assert int(metrics[0]["value"]["count"]) == sum(value >= LINE for value in mine.values())
    assert SCORE in theirs
    return float(max(abs(theirs[name] - mine[name]) for name in names))
