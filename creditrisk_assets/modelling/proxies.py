"""Proxy report: how much the features reveal of each protected field, by models made only for this
report.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from creditrisk_assets.modelling.boosting import SEED
from creditrisk_assets.modelling.fairness import NORMAL_95, SMALLEST_GROUP, Grouping, Groups
from creditrisk_assets.modelling.metrics import auc_standard_error

FOLDS = 3

TREES = {"max_iter": 60, "max_leaf_nodes": 8}
"""Small trees find more of a weak relation: AUC 0.614 for the first protected field of the UCI
data, against 0.605 by default.
"""


@dataclass(frozen=True)
class ProxyFigures:
    """Accuracy with which the features predict a group of a protected field.

    Attributes:
        field: the protected field.
        group: one of its groups.
        n: rows of the group.
        auc: cross-validated ROC-AUC of the group against the rest; 0.5 means no proxy. None if the
            group is too small.
        low: lower end of its 95 % interval (DeLong).
        high: upper end.
    """

    field: str
    group: str
    n: int
    auc: float | None
    low: float | None
    high: float | None


def proxies(
    features: NDArray[np.float32], groups: Groups, on_progress: Callable[[str], None]
) -> list[ProxyFigures]:
    """Compute the proxy report: gradient-boosted trees, three folds, every group against the rest.

    Numbers are grouped by the bands of fairness monitoring, which include the edges in legal rules.

    Args:
        features: n x features, from the decision graph.
        groups: groups of each protected field.
        on_progress: called with each field when it is done.
    """
    figures = []
    for field, grouping in groups.items():
        figures += _field_proxies(field, features, grouping)
        on_progress(field)
    return figures


def _field_proxies(
    field: str, features: NDArray[np.float32], grouping: Grouping
) -> list[ProxyFigures]:
    sizes = grouping.sizes
    large = np.flatnonzero(sizes >= SMALLEST_GROUP)
    rows = np.isin(grouping.place, large)
    probability = _cross_fit(features[rows], grouping.place[rows]) if len(large) > 1 else None
    figures = []
    for place in np.flatnonzero(sizes):
        name, n = grouping.names[place], int(sizes[place])
        if probability is None or place not in large:
            figures.append(ProxyFigures(field, name, n, None, None, None))
            continue
        member = (grouping.place[rows] == place).astype(np.int64)
        group_probability = probability[:, int(np.searchsorted(large, place))]
        auc = float(roc_auc_score(member, group_probability))
        margin = NORMAL_95 * auc_standard_error(member, group_probability)
        figures.append(
            ProxyFigures(field, name, n, auc, max(0.0, auc - margin), min(1.0, auc + margin))
        )
    return figures


def _cross_fit(features: NDArray[np.float32], place: NDArray[np.int64]) -> NDArray[np.float64]:
    """Out-of-fold probability of each group, in ascending order of place: n x groups."""
    probability = np.empty((len(place), len(np.unique(place))))
    with threadpool_limits(limits=1, user_api="openmp"):
        for inside, outside in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(
            features, place
        ):
            model = HistGradientBoostingClassifier(**TREES, early_stopping=False, random_state=SEED)
            probability[outside] = model.fit(features[inside], place[inside]).predict_proba(
                features[outside]
            )
    return probability
