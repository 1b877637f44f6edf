"""How much of a day's batch was delivered on an earlier day already: the same customers with the
same values.

Yesterday's file under today's date passes every other check, for nothing in it is wrong or has
drifted. Rows are compared by identifier and all fields; a sample of bounded size, chosen by the
identifier, stands for days of any size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from creditrisk_assets.storage import StoredPath

REPEATED_SHARE_LIMIT = 0.5
"""More than half of a day's rows unchanged is no new day. A delivery of the same customers with
fresh values changes most of its rows; one of other customers repeats none.
"""

DAYS_LOOKED_AT = 7
"""Earlier days that a day is compared with: a week covers what a re-run of a delivery repeats."""

SAMPLE_ROWS = 20_000
"""Rows that are compared at most, on average: their share has a standard error of 0.004 at the
limit.
"""

BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Repeated:
    """The earlier day that has most of a day's rows.

    Attributes:
        day: the earlier day; None where there is none.
        share: of the compared rows, those that the earlier day has with the same values, 0 to 1.
        rows: rows that were compared.
    """

    day: str | None
    share: float
    rows: int


def most_repeated(
    today: StoredPath,
    earlier: Sequence[tuple[str, StoredPath]],
    identifier: str,
    fields: Sequence[str],
) -> Repeated:
    """Compare a day's batch with those of earlier days.

    Args:
        today: Parquet file of the day.
        earlier: name and Parquet file of each earlier day.
        identifier: column of the customer.
        fields: columns of values.

    Returns:
        The earlier day with the largest share; on a tie the one that stands first.
    """
    columns = [identifier, *fields]
    with today.open("rb") as file:
        one_in = max(1, math.ceil(pq.ParquetFile(file).metadata.num_rows / SAMPLE_ROWS))
    rows = _row_digests(today, columns, one_in)
    best = Repeated(None, 0.0, len(rows))
    for day, path in earlier:
        shared = np.isin(rows, _row_digests(path, columns, one_in)).mean() if len(rows) else 0.0
        if shared > best.share:
            best = Repeated(day, float(shared), len(rows))
    return best


def _row_digests(path: StoredPath, columns: list[str], one_in: int) -> np.ndarray:
    """A 64-bit digest of each row whose identifier's digest is a multiple of `one_in`; a column
    that a file lacks is empty.
    """
    found = []
    with path.open("rb") as file:
        stored = pq.ParquetFile(file, pre_buffer=False)
        present = [name for name in columns if name in stored.schema_arrow.names]
        for batch in stored.iter_batches(BATCH_ROWS, columns=present):
            frame = pa.Table.from_batches([batch]).to_pandas().reindex(columns=columns)
            chosen = (
                pd.util.hash_array(frame[columns[0]].astype("str").to_numpy(dtype=object))
                % np.uint64(one_in)
                == 0
            )
            found.append(
                pd.util.hash_pandas_object(frame[chosen], index=False, categorize=False).to_numpy()
            )
    return np.concatenate(found) if found else np.empty(0, dtype=np.uint64)
