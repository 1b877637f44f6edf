"""The raw fields that each feature is made of, by experiment on the traced feature graph.

A feature function is free code, so its sources stand nowhere. A field is a source if a change of it
alone changes the feature on a row that was tried: what is named is so, and a source that shows on
none of these rows is not named.
"""

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.modelling.boosting import SEED
from creditrisk_assets.modelling.decision_graph import feature_matrix
from creditrisk_assets.portfolio.contract import Portfolio

ROWS_TRIED = 1_000


def feature_sources(portfolio: Portfolio, raw: NDArray[np.float32]) -> dict[str, tuple[str, ...]]:
    """The fields behind each feature, by its name.

    Args:
        portfolio: defines the features.
        raw: rows x fields, float32, contract order; the first rows are tried.
    """
    rows = np.ascontiguousarray(raw[:ROWS_TRIED])
    before, rng = feature_matrix(portfolio, rows), np.random.default_rng(SEED)
    sources: dict[str, list[str]] = {name: [] for name in portfolio.feature_names}
    for place, field in enumerate(portfolio.field_names):
        changed = rows.copy()
        changed[:, place] = rng.permutation(rows[:, place])
        after = feature_matrix(portfolio, changed)
        differs = ~((before == after) | (np.isnan(before) & np.isnan(after))).all(axis=0)
        for name, is_source in zip(portfolio.feature_names, differs, strict=True):
            if is_source:
                sources[name].append(field)
    return {name: tuple(fields) for name, fields in sources.items()}
