"""Fairness monitoring: how decisions and PDs fall out by group of each protected field.

Figures to watch, never a proof that a rule is kept. Protected fields are no features of the model, so whatever differs between
groups comes from what the model does use; `proxies` tells how much of a protected field that gives away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from creditrisk_assets.portfolio.contract import Field, Portfolio
from creditrisk_assets.scoring.bundle import Scores

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Groups = Mapping[str, NDArray[np.str_]]
"""For each protected field the name of each row's group."""

FOUR_FIFTHS = 0.8
"""Adverse-impact ratio below which the Uniform Guidelines (29 CFR 1607.4 D) speak of adverse impact; in credit a convention."""

SMALLEST_GROUP = 100
"""Rows below which a group is named and not judged: at an approval rate of 75 % its 95 % interval is 17 points wide."""

NORMAL_95 = 1.959964
BANDS = 4
"""A protected number without bands of its own is cut at the quartiles of the rows at hand."""


@dataclass(frozen=True)
class GroupFigures:
    """One group of one protected field.

    Attributes:
        group: its name.
        n: rows.
        approval_rate: share of rows with a PD below the cut-off.
        impact_ratio: approval rate divided by that of the reference group, with a 95 % interval (Walter 1975, Biometrika 62:371).
        mean_difference: mean score less that of the reference group, in pooled standard deviations; below 0 is riskier.
        equal_opportunity: approval rate among goods; None without goods.
        mean_pd: mean PD.
        bad_rate: share of bads, with its 95 % Jeffreys interval.
        judged: False where there are too few rows to say anything.
    """

    group: str
    n: int
    approval_rate: float
    impact_ratio: float
    impact_ratio_low: float
    impact_ratio_high: float
    mean_difference: float
    equal_opportunity: float | None
    mean_pd: float
    bad_rate: float
    bad_rate_low: float
    bad_rate_high: float
    judged: bool


@dataclass(frozen=True)
class FieldFigures:
    """All groups of one protected field; `reference` is the judged group with the largest approval rate, or None."""

    field: str
    reference: str | None
    groups: tuple[GroupFigures, ...]

    @property
    def lowest_ratio(self) -> float | None:
        """The smallest adverse-impact ratio of a judged group; None where fewer than two groups are judged."""
        ratios = [one.impact_ratio for one in self.groups if one.judged]
        return min(ratios) if len(ratios) > 1 else None


def protected_groups(portfolio: Portfolio, numbers: Mapping[str, NDArray[np.float32]]) -> Groups:
    """The group of each row: codes by their meaning, numbers by bands.

    Args:
        portfolio: whose protected fields are looked at.
        numbers: for each protected field n values, as the decision graph sees them.
    """
    return {
        field.name: _group_names(field, numbers[field.name]) for field in portfolio.fields if field.name in portfolio.protected
    }


def _group_names(field: Field, values: NDArray[np.float32]) -> NDArray[np.str_]:
    if field.codes is not None:
        meaning = {field.code_numbers[code]: text for code, text in field.codes.items()}
        kinds, places = np.unique(values, return_inverse=True)
        names = ["missing" if np.isnan(kind) else meaning.get(float(kind), f"{kind:g}") for kind in kinds]
        return np.array(names, dtype=str)[places]
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return np.full(len(values), "missing")
    edges = np.array(field.bands or np.unique(np.quantile(known, np.arange(1, BANDS) / BANDS, method="higher")))
    names = [f"below {edges[0]:g}", *(f"{low:g} to below {high:g}" for low, high in pairwise(edges))]
    names += [f"{edges[-1]:g} and over", "missing"]
    places = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="right"))
    return np.array(names, dtype=str)[places]


def fairness_by_group(target: IntArray, scores: Scores, groups: Groups) -> list[FieldFigures]:
    """The figures of each group of each protected field.

    Args:
        target: n, 1 = bad.
        scores: n answers of one bundle; a prediction of 0 is an approval.
        groups: what `protected_groups` gives.
    """
    return [_field_figures(name, target, scores, names) for name, names in groups.items()]


def _field_figures(field: str, target: IntArray, scores: Scores, names: NDArray[np.str_]) -> FieldFigures:
    approved = scores.prediction == 0
    members = {str(name): names == name for name in np.unique(names)}
    judged = [name for name, rows in members.items() if rows.sum() >= SMALLEST_GROUP]
    reference = max(judged, key=lambda name: float(approved[members[name]].mean()), default=None)
    against = members[reference] if reference is not None else np.ones(len(target), dtype=bool)
    figures = tuple(
        _group_figures(name, rows, against, target, approved, scores, name in judged) for name, rows in members.items()
    )
    return FieldFigures(field, reference, figures)


def _group_figures(
    name: str,
    rows: NDArray[np.bool_],
    against: NDArray[np.bool_],
    target: IntArray,
    approved: NDArray[np.bool_],
    scores: Scores,
    judged: bool,
) -> GroupFigures:
    ratio, low, high = impact_ratio(int(approved[rows].sum()), int(rows.sum()), int(approved[against].sum()), int(against.sum()))
    goods = rows & (target == 0)
    bads = int(target[rows].sum())
    bad_low, bad_high = jeffreys_interval(bads, int(rows.sum()))
    return GroupFigures(
        group=name,
        n=int(rows.sum()),
        approval_rate=float(approved[rows].mean()),
        impact_ratio=ratio,
        impact_ratio_low=low,
        impact_ratio_high=high,
        mean_difference=_mean_difference(scores.score[rows], scores.score[against]),
        equal_opportunity=float(approved[goods].mean()) if goods.any() else None,
        mean_pd=float(scores.default_probability[rows].mean()),
        bad_rate=float(target[rows].mean()),
        bad_rate_low=bad_low,
        bad_rate_high=bad_high,
        judged=judged,
    )


def impact_ratio(approved: int, n: int, reference_approved: int, reference_n: int) -> tuple[float, float, float]:
    """Ratio of two approval rates with its 95 % interval by logarithms, half an approval added to each side (Walter 1975).

    A reference group that approves nobody gives 1: nobody is treated differently.
    """
    ratio = (approved / n) / (reference_approved / reference_n) if reference_approved else 1.0
    middle = np.log((approved + 0.5) / (n + 0.5)) - np.log((reference_approved + 0.5) / (reference_n + 0.5))
    variance = 1 / (approved + 0.5) - 1 / (n + 0.5) + 1 / (reference_approved + 0.5) - 1 / (reference_n + 0.5)
    margin = NORMAL_95 * np.sqrt(variance)
    return ratio, min(ratio, float(np.exp(middle - margin))), max(ratio, float(np.exp(middle + margin)))


def jeffreys_interval(bads: int, n: int) -> tuple[float, float]:
    """95 % interval of a share: quantiles of Beta(bads + 1/2, n - bads + 1/2), closed at 0 and at 1."""
    low, high = (float(stats.beta.ppf(level, bads + 0.5, n - bads + 0.5)) for level in (0.025, 0.975))
    return (0.0 if bads == 0 else low), (1.0 if bads == n else high)


def _mean_difference(scores: FloatArray, reference: FloatArray) -> float:
    spread = float(np.sqrt((scores.var() + reference.var()) / 2))
    return float((scores.mean() - reference.mean()) / spread) if spread > 0 else 0.0


def lowest_ratios(figures: Sequence[FieldFigures]) -> dict[str, float]:
    """The smallest adverse-impact ratio of each field in which groups can be compared."""
    return {one.field: one.lowest_ratio for one in figures if one.lowest_ratio is not None}
