"""The drift table of a day as a document for people: labels, and the bins in words."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditrisk_assets.monitoring.day_documents import Bin, ColumnDrift, DriftDocument
from creditrisk_assets.portfolio.contract import Field, Portfolio
from creditrisk_assets.scoring.reference_profile import ColumnProfile, ReferenceProfile

CODES_NAMED = 3
"""Codes whose meanings name a bin; of more, the first and the last do."""


def drift_document(
    frame: pd.DataFrame,
    profile: ReferenceProfile,
    portfolio: Portfolio,
    month: Sequence[pd.DataFrame],
    day: str,
    run_id: str | None,
) -> DriftDocument:
    """The document of a day.

    Args:
        frame: from `drift_table`, with `model_version`.
        profile: of the day's champion.
        portfolio: labels of the fields.
        month: stored tables of the earlier days of the month, by the same version.
        day: `YYYY-MM-DD`.
        run_id: of the run that writes it.
    """
    fields = {one.name: one for one in portfolio.fields}
    of_month: NDArray[np.int64] = np.sum(
        [list(one["counts"].iloc[0]) for one in (frame, *month)], axis=0, dtype=np.int64
    )
    columns = []
    for place, (row, reference) in enumerate(
        zip(frame.to_dict("records"), profile.columns, strict=True)
    ):
        field = fields.get(reference.name)
        training = np.array(reference.counts, dtype=np.float64)
        today = np.array(list(row["counts"]), dtype=np.float64)
        monthly = of_month if place == 0 else None
        columns.append(
            ColumnDrift(
                name=reference.name,
                label="Score" if field is None else field.label,
                psi=float(row["value"]),
                psi_judged=float(row["pooled_value"]),
                threshold=float(row["threshold"]),
                days=int(row["days"]),
                drifted=bool(row["drifted"]),
                problem=str(row["quality_problem"]),
                problem_share=float(row["quality_share"]),
                problem_limit=float(row["quality_limit"]),
                broken=bool(row["broken"]),
                bins=tuple(_bins(_names(reference, field), training, today, monthly)),
            )
        )
    return DriftDocument(
        day=day,
        run_id=run_id,
        model_version=str(frame["model_version"].iloc[0]),
        rows=int(frame["rows"].iloc[0]),
        month_days=1 + len(month),
        columns=tuple(columns),
    )


def _bins(
    names: Sequence[str],
    training: NDArray[np.float64],
    today: NDArray[np.float64],
    month: NDArray[np.int64] | None,
) -> Iterable[Bin]:
    """The bins that hold a row of any side."""
    shares = [counts / max(counts.sum(), 1) for counts in (training, today)]
    monthly = None if month is None else month / max(month.sum(), 1)
    for place, name in enumerate(names):
        of_month = None if monthly is None else round(float(monthly[place]), 5)
        before, now = (round(float(share[place]), 5) for share in shares)
        if before or now or of_month:
            yield Bin(values=name, training=before, day=now, month=of_month)


def _names(column: ColumnProfile, field: Field | None) -> list[str]:
    """The bins in words, then the missing values. A bin includes its upper edge."""
    edges = [-np.inf, *column.edges, np.inf]
    if field is not None and field.codes is not None:
        numbers = field.code_numbers
        bins = [
            [text for code, text in field.codes.items() if low < numbers[code] <= high]
            for low, high in pairwise(edges)
        ]
        # Several codes may have the same meaning.
        return [*(_codes(list(dict.fromkeys(texts))) for texts in bins), "missing"]
    digits = 1 if field is None else 0 if field.kind == "whole" else 4
    shown = [_number(edge, digits) for edge in edges]
    names = []
    for place, (low, high) in enumerate(pairwise(edges)):
        if np.isinf(low):
            names.append("all" if np.isinf(high) else f"up to {shown[place + 1]}")
        elif np.isinf(high):
            names.append(f"above {shown[place]}")
        else:
            names.append(f"above {shown[place]} to {shown[place + 1]}")
    return [*names, "missing"]


def _codes(names: Sequence[str]) -> str:
    if not names:
        return "other codes"
    if len(names) > CODES_NAMED:
        return f"{names[0]} to {names[-1]}"
    return ", ".join(names)


def _number(edge: float, digits: int) -> str:
    text = f"{edge:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits > 1 and "." in text else text
