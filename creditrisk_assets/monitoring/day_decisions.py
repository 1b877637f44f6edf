"""The decisions of a day in figures: approvals, expected loss, grades, groups and migration.

A day is read batch by batch, so its size does not matter to the memory.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from creditrisk_assets.modelling.fairness import (
    SMALLEST_GROUP,
    Grouping,
    grouping_of,
    impact_by_counts,
    quartile_bands,
)
from creditrisk_assets.modelling.grades import grade_names, grades_of
from creditrisk_assets.monitoring.day_documents import (
    DecisionsDocument,
    Grade,
    Group,
    Migration,
)
from creditrisk_assets.portfolio.columns import encoded_columns
from creditrisk_assets.portfolio.contract import Portfolio

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PD, PREDICTION = "default_probability", "prediction"


def currency_of(portfolio: Portfolio) -> str:
    """The unit of the exposure; empty without one."""
    return next((one.unit for one in portfolio.fields if one.name == portfolio.exposure), "")


def loss_given_default(batch: pa.RecordBatch, portfolio: Portfolio) -> FloatArray | None:
    """LGD x EAD of each row, by the portfolio's assumptions; None if it names no exposure."""
    if portfolio.exposure is None:
        return None
    exposure = batch.column(portfolio.exposure).cast(pa.float64(), safe=False)
    amounts = np.asarray(pc.fill_null(exposure, 0.0).to_numpy())
    return amounts * (portfolio.loss_given_default * portfolio.exposure_share)


class DecisionCounter:
    """Adds up the decisions of a day.

    Args:
        portfolio: with grades, protected fields and exposure.
    """

    def __init__(self, portfolio: Portfolio) -> None:
        self._portfolio = portfolio
        self._protected = [one for one in portfolio.fields if one.name in portfolio.protected]
        exposure = [] if portfolio.exposure is None else [portfolio.exposure]
        self.columns = list(dict.fromkeys([PD, PREDICTION, *portfolio.protected, *exposure]))
        self._bands: dict[str, tuple[float, ...]] = {}
        grades = len(portfolio.grade_bounds) + 1
        self._grade_rows = np.zeros(grades, dtype=np.int64)
        self._grade_pd = np.zeros(grades)
        self._groups: dict[str, dict[str, IntArray]] = {}
        self._rows = self._approved = 0
        self._pd = self._loss = self._approved_loss = 0.0

    def add(self, batch: pa.RecordBatch) -> None:
        """Count some rows, with `columns`."""
        probability = batch.column(PD).to_numpy()
        approved = batch.column(PREDICTION).to_numpy(zero_copy_only=False) == 0
        self._rows += len(batch)
        self._approved += int(approved.sum())
        self._pd += float(probability.sum())
        loss = loss_given_default(batch, self._portfolio)
        if loss is not None:
            self._loss += float(probability @ loss)
            self._approved_loss += float((probability * loss)[approved].sum())
        grades = grades_of(probability, self._portfolio.grade_bounds)
        most = len(self._grade_rows)
        self._grade_rows += np.bincount(grades, minlength=most)
        self._grade_pd += np.bincount(grades, weights=probability, minlength=most)
        for name, grouping in self._groupings(batch).items():
            counted = self._groups.setdefault(name, {})
            approvals = np.bincount(grouping.place, approved, minlength=len(grouping.names))
            for place, group in enumerate(grouping.names):
                counts = np.array([approvals[place], grouping.sizes[place]], dtype=np.int64)
                counted[group] = counted.get(group, np.zeros(2, dtype=np.int64)) + counts

    def _groupings(self, batch: pa.RecordBatch) -> Mapping[str, Grouping]:
        """Groups by each protected field; the quartiles of the first rows are the bands of a number
        without bands of its own.
        """
        groupings = {}
        columns = encoded_columns(batch, self._protected)
        for field, values in zip(self._protected, columns, strict=True):
            numbers = values.astype(np.float32)
            if field.codes is None and not field.bands and field.name not in self._bands:
                self._bands[field.name] = quartile_bands(numbers)
            bands = self._bands.get(field.name)
            groupings[field.name] = grouping_of(
                replace(field, bands=bands) if bands else field, numbers
            )
        return groupings

    def document(
        self, day: str, run_id: str | None, version: str, migration: Migration | None
    ) -> DecisionsDocument:
        """The document of the rows so far.

        Raises:
            ValueError: if there is no row.
        """
        if not self._rows:
            raise ValueError("no decisions; valid: at least one")
        has_exposure = self._portfolio.exposure is not None
        return DecisionsDocument(
            day=day,
            run_id=run_id,
            model_version=version,
            rows=self._rows,
            approved=self._approved,
            mean_pd=self._pd / self._rows,
            expected_loss=self._loss if has_exposure else None,
            approved_expected_loss=self._approved_loss if has_exposure else None,
            currency=currency_of(self._portfolio),
            grades=self._grades(),
            groups=tuple(self._group_figures()),
            migration=migration,
        )

    def _grades(self) -> tuple[Grade, ...]:
        bounds = self._portfolio.grade_bounds
        edges = [0.0, *bounds, 1.0]
        return tuple(
            Grade(
                grade=name,
                pd_from=edges[place],
                pd_to=edges[place + 1],
                customers=int(self._grade_rows[place]),
                mean_pd=float(self._grade_pd[place] / self._grade_rows[place])
                if self._grade_rows[place]
                else None,
            )
            for place, name in enumerate(grade_names(bounds))
        )

    def _group_figures(self) -> Iterable[Group]:
        labels = {one.name: one.label for one in self._protected}
        for name, counted in self._groups.items():
            present = {group: counts for group, counts in counted.items() if counts[1]}
            impacts = {
                one.group: one
                for one in impact_by_counts(
                    name, {group: (int(a), int(n)) for group, (a, n) in present.items()}
                )
            }
            for group, (approvals, rows) in present.items():
                impact = impacts.get(group)
                yield Group(
                    field=labels[name],
                    group=group,
                    rows=int(rows),
                    approval_rate=float(approvals / rows) if rows >= SMALLEST_GROUP else None,
                    ratio=None if impact is None else impact.ratio,
                    low=None if impact is None else impact.low,
                    high=None if impact is None else impact.high,
                )


def migration_of(
    today: pa.Table,
    earlier: Iterable[pa.Table],
    identifier: str,
    bounds: Sequence[float],
    since: str,
) -> Migration | None:
    """Grades of the day's customers on their latest earlier day, and today.

    Args:
        today: identifier and PD of the day.
        earlier: the same of earlier days, newest first.
        identifier: name of its column.
        bounds: PDs between the grades.
        since: the first of the days.

    Returns:
        The migration; None if no customer was decided before.
    """
    names = grade_names(bounds)
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    waiting = today.column(identifier).combine_chunks()
    now = grades_of(today.column(PD).to_numpy(), bounds)
    places = np.arange(len(waiting))
    for day in earlier:
        found = pc.index_in(waiting, day.column(identifier).combine_chunks())
        known = found.is_valid().to_numpy(zero_copy_only=False)
        if not known.any():
            continue
        rows = found.drop_null().to_numpy()
        before = grades_of(day.column(PD).to_numpy()[rows], bounds)
        np.add.at(counts, (before, now[places[known]]), 1)
        waiting = waiting.filter(pa.array(~known))
        places = places[~known]
    if not counts.any():
        return None
    return Migration(since=since, grades=names, customers=tuple(map(tuple, counts.tolist())))
