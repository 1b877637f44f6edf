"""How well the features give away what the model must not know: a model of each protected field,
made for this report alone.
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
"""Small trees find more of a weak relation: for the first protected field of the UCI data AUC
0.614, by default 0.605.
"""


@dataclass(frozen=True)
class ProxyFigures:
    """How well the features tell one group of a protected field from the rest.

    Attributes:
        field: the protected field.
        group: which of its groups.
        n: rows of the group.
        auc: cross-validated ROC-AUC of the group against the rest; 0.5 is no proxy at all. None
            where the group is too small.
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
    features: NDArray[np.float32], groups: Groups, told: Callable[[str], None]
) -> list[ProxyFigures]:
    """The proxy report: gradient-boosted trees, three folds, every group against the rest.

    Numbers are judged by the bands that fairness monitoring uses, so that an edge from which a rule
    protects is one of theirs.

    Args:
        features: n x features, as the decision graph computes them.
        groups: for each protected field n group names.
        told: called with each field when it is done.
    """
    figures = []
    for field, grouping in groups.items():
        figures += _field_proxies(field, features, grouping)
        told(field)
    return figures


def _field_proxies(
    field: str, features: NDArray[np.float32], grouping: Grouping
) -> list[ProxyFigures]:
    sizes = grouping.sizes
    large = np.flatnonzero(sizes >= SMALLEST_GROUP)
    rows = np.isin(grouping.place, large)
    probability = _cross_fitted(features[rows], grouping.place[rows]) if len(large) > 1 else None
    figures = []
    for place in np.flatnonzero(sizes):
        name, n = grouping.names[place], int(sizes[place])
        if probability is None or place not in large:
            figures.append(ProxyFigures(field, name, n, None, None, None))
            continue
        member = (grouping.place[rows] == place).astype(np.int64)
        its_probability = probability[:, int(np.searchsorted(large, place))]
        auc = float(roc_auc_score(member, its_probability))
        margin = NORMAL_95 * auc_standard_error(member, its_probability)
        figures.append(
            ProxyFigures(field, name, n, auc, max(0.0, auc - margin), min(1.0, auc + margin))
        )
    return figures


def _cross_fitted(features: NDArray[np.float32], place: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability of each group, in ascending order of place, by a model that has not seen the row:
    n x groups.
    """
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
