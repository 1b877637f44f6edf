"""Fairness monitoring: decisions and PDs by group of each protected field.

The figures are for monitoring and do not prove compliance. Protected fields are not features, so
differences between groups come from the features in use; `proxies` measures how much these reveal
of a protected field.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import special

from creditrisk_assets.modelling.metrics import Z95
from creditrisk_assets.portfolio.contract import Field, Portfolio
from creditrisk_assets.scoring.bundle import Scores

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
FOUR_FIFTHS = 0.8
"""Adverse-impact ratio that indicates adverse impact by the Uniform Guidelines (29 CFR 1607.4 D); a
convention in credit.
"""

SMALLEST_GROUP = 100
"""Rows below which a group is listed but not judged: at an approval rate of 75 % its 95 % interval
is 17 points wide.
"""

BANDS = 4
"""A protected number without bands of its own is cut at the quartiles of the rows at hand."""


@dataclass(frozen=True)
class Grouping:
    """Groups of n rows by a protected field: the names of the groups, and each row's place among
    them.
    """

    names: tuple[str, ...]
    place: IntArray

    @classmethod
    def of(cls, names: NDArray[np.str_]) -> Self:
        """Create a grouping from the name of each row's group."""
        distinct, place = np.unique(names, return_inverse=True)
        return cls(tuple(distinct.tolist()), place.astype(np.int64))

    def part(self, rows: NDArray[np.bool_] | IntArray) -> "Grouping":
        return Grouping(self.names, self.place[rows])

    @property
    def sizes(self) -> IntArray:
        """Rows of each group."""
        return np.bincount(self.place, minlength=len(self.names))


Groups = Mapping[str, Grouping]
"""Grouping of each protected field."""


@dataclass(frozen=True)
class GroupFigures:
    """Figures of a group of a protected field.

    Attributes:
        group: its name.
        n: number of rows.
        approval_rate: share of rows with a PD below the cut-off.
        impact_ratio: approval rate divided by that of the reference group, 1 by definition for the
            reference group itself; with a 95 % interval (Walter 1975, Biometrika 62:371).
        mean_difference: mean score less that of the reference group, in pooled standard deviations;
            below 0 is riskier.
        equal_opportunity: approval rate among goods; None without goods.
        mean_pd: mean PD.
        bad_rate: share of bads, with its 95 % Jeffreys interval.
        judged: False if the group has too few rows.
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
    """Figures of all groups of a protected field; `reference` is the judged group with the largest
    approval rate, or None.
    """

    field: str
    reference: str | None
    groups: tuple[GroupFigures, ...]


def protected_groups(portfolio: Portfolio, numbers: Mapping[str, NDArray[np.float32]]) -> Groups:
    """Group rows by the protected fields: codes by their meaning, numbers by bands.

    Args:
        portfolio: defines the protected fields.
        numbers: n values of each protected field, encoded for the decision graph.
    """
    return {
        field.name: grouping_of(field, numbers[field.name])
        for field in portfolio.fields
        if field.name in portfolio.protected
    }


def quartile_bands(values: NDArray[np.float32]) -> tuple[float, ...]:
    """The quartiles of numbers, as edges of bands; none without a number."""
    present = values[~np.isnan(values)]
    if len(present) == 0:
        return ()
    quartiles = np.quantile(present, np.arange(1, BANDS) / BANDS, method="higher")
    return tuple(np.unique(quartiles).tolist())


def grouping_of(field: Field, values: NDArray[np.float32]) -> Grouping:
    """Group rows by one field: codes by their meaning, a number by its bands, or else by the
    quartiles of these rows.
    """
    missing = np.isnan(values)
    if field.codes is not None:
        meaning = {field.code_numbers[code]: text for code, text in field.codes.items()}
        kinds, place = np.unique(values, return_inverse=True)
        names = [
            "missing" if np.isnan(kind) else meaning.get(float(kind), f"{kind:g}") for kind in kinds
        ]
    elif missing.all():
        names, place = ["missing"], np.zeros(len(values), dtype=np.int64)
    else:
        edges = np.array(field.bands or quartile_bands(values))
        between = [f"{low:g} to below {high:g}" for low, high in pairwise(edges)]
        names = [f"below {edges[0]:g}", *between, f"{edges[-1]:g} and over", "missing"]
        place = np.where(missing, len(edges) + 1, np.searchsorted(edges, values, side="right"))
    distinct = list(dict.fromkeys(names))  # several codes may have the same meaning
    return Grouping(
        tuple(distinct), np.array([distinct.index(name) for name in names], dtype=np.int64)[place]
    )


def lowest_ratios(scores: Scores, groups: Groups) -> dict[str, float]:
    """Smallest adverse-impact ratio of each field with at least two judged groups."""
    ratios: dict[str, list[float]] = {}
    for impact in impact_by_group(scores.prediction == 0, groups):
        ratios.setdefault(impact.field, []).append(impact.ratio)
    return {field: min(found) for field, found in ratios.items() if len(found) > 1}


def fields_surely_below(scores: Scores, groups: Groups, line: float) -> set[str]:
    """Fields with a judged group whose adverse-impact ratio is below a line with its whole
    interval.
    """
    impacts = impact_by_group(scores.prediction == 0, groups)
    return {impact.field for impact in impacts if impact.high < line}


def fairness_by_group(target: IntArray, scores: Scores, groups: Groups) -> list[FieldFigures]:
    """Figures of each group of each protected field.

    Args:
        target: n, 1 = bad.
        scores: n scores of a bundle; a prediction of 0 is an approval.
        groups: from `protected_groups`.
    """
    return [_field_figures(field, target, scores, grouping) for field, grouping in groups.items()]


def _field_figures(
    field: str, target: IntArray, scores: Scores, grouping: Grouping
) -> FieldFigures:
    approved = scores.prediction == 0
    members = {
        name: grouping.place == place
        for place, name in enumerate(grouping.names)
        if grouping.sizes[place]
    }
    judged = [name for name, rows in members.items() if rows.sum() >= SMALLEST_GROUP]
    reference = max(judged, key=lambda name: float(approved[members[name]].mean()), default=None)
    against = members[reference] if reference is not None else np.ones(len(target), dtype=bool)
    figures = tuple(
        _group_figures(name, rows, against, target, scores, name in judged)
        for name, rows in members.items()
    )
    return FieldFigures(field, reference, figures)


def _group_figures(
    name: str,
    rows: NDArray[np.bool_],
    against: NDArray[np.bool_],
    target: IntArray,
    scores: Scores,
    judged: bool,
) -> GroupFigures:
    approved = scores.prediction == 0
    n, bads = int(rows.sum()), int(target[rows].sum())
    ratio, ratio_low, ratio_high = (
        impact_ratio(int(approved[rows].sum()), n, int(approved[against].sum()), int(against.sum()))
        if rows is not against
        else (1.0, 1.0, 1.0)
    )
    bad_low, bad_high = jeffreys_interval(bads, n)
    goods = rows & (target == 0)
    return GroupFigures(
        group=name,
        n=n,
        approval_rate=float(approved[rows].mean()),
        impact_ratio=ratio,
        impact_ratio_low=ratio_low,
        impact_ratio_high=ratio_high,
        mean_difference=_mean_difference(scores.score[rows], scores.score[against]),
        equal_opportunity=float(approved[goods].mean()) if goods.any() else None,
        mean_pd=float(scores.default_probability[rows].mean()),
        bad_rate=bads / n,
        bad_rate_low=bad_low,
        bad_rate_high=bad_high,
        judged=judged,
    )


@dataclass(frozen=True)
class GroupImpact:
    """Approvals of a group compared with the reference group, the judged group with the largest
    approval rate.

    `ratio` is the adverse-impact ratio, with its 95 % interval; 1 by definition for the reference
    group itself.
    """

    field: str
    group: str
    reference: str
    n: int
    approval_rate: float
    ratio: float
    low: float
    high: float


def impact_by_group(approved: NDArray[np.bool_], groups: Groups) -> list[GroupImpact]:
    """Adverse-impact ratios of decisions without outcomes, for each judged group.

    Args:
        approved: n, whether a customer was approved.
        groups: from `protected_groups`.
    """
    impacts = []
    for field, grouping in groups.items():
        approvals = np.bincount(grouping.place, weights=approved, minlength=len(grouping.names))
        counts = zip(approvals.astype(np.int64).tolist(), grouping.sizes.tolist(), strict=True)
        impacts += impact_by_counts(field, dict(zip(grouping.names, counts, strict=True)))
    return impacts


def impact_by_counts(field: str, counts: Mapping[str, tuple[int, int]]) -> list[GroupImpact]:
    """`impact_by_group` of one field, from the approvals and the rows of each group."""
    rates = {group: accepted / n for group, (accepted, n) in counts.items() if n >= SMALLEST_GROUP}
    best = max(rates, key=rates.__getitem__, default="")
    return [
        GroupImpact(
            field,
            group,
            best,
            counts[group][1],
            rate,
            *((1.0, 1.0, 1.0) if group == best else impact_ratio(*counts[group], *counts[best])),
        )
        for group, rate in rates.items()
    ]


def impact_ratio(
    approved: int, n: int, reference_approved: int, reference_n: int
) -> tuple[float, float, float]:
    """Ratio of two approval rates with its 95 % interval by logarithms, with half an approval added
    to each side (Walter 1975).

    A reference group without approvals gives 1: all groups are treated alike.
    """
    ratio = (approved / n) / (reference_approved / reference_n) if reference_approved else 1.0
    middle = np.log((approved + 0.5) / (n + 0.5)) - np.log(
        (reference_approved + 0.5) / (reference_n + 0.5)
    )
    variance = (
        1 / (approved + 0.5)
        - 1 / (n + 0.5)
        + 1 / (reference_approved + 0.5)
        - 1 / (reference_n + 0.5)
    )
    margin = Z95 * np.sqrt(variance)
    return (
        ratio,
        min(ratio, float(np.exp(middle - margin))),
        max(ratio, float(np.exp(middle + margin))),
    )


def under_line(ratio: float, high: float, line: float = FOUR_FIFTHS) -> str:
    """Flag of an adverse-impact ratio under its line; empty if it reaches the line.

    Args:
        ratio: the adverse-impact ratio.
        high: upper end of its 95 % interval.
        line: the smallest acceptable ratio.
    """
    if not ratio < line:
        return ""
    return (
        f"under {line:.2f}, with its whole interval"
        if high < line
        else f"under {line:.2f}, perhaps by chance"
    )


def jeffreys_interval(bads: int, n: int) -> tuple[float, float]:
    """95 % interval of a share: quantiles of Beta(bads + 1/2, n - bads + 1/2), closed at 0 and at
    1.
    """
    low, high = (
        float(special.betaincinv(bads + 0.5, n - bads + 0.5, level)) for level in (0.025, 0.975)
    )
    return (0.0 if bads == 0 else low), (1.0 if bads == n else high)


def _mean_difference(scores: FloatArray, reference: FloatArray) -> float:
    spread = float(np.sqrt((scores.var() + reference.var()) / 2))
    return float((scores.mean() - reference.mean()) / spread) if spread > 0 else 0.0
