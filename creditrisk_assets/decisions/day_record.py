"""Writes the record of a day: the decisions that were acted on.

A day may be scored more than once, by another champion or after another file has landed. Each
scoring is stored as a set of its own (`sets`). Of several decisions on the same customer with the
same record, the first was acted on, so it is the one that is monitored.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from creditrisk_assets.decisions.sets import DecisionSet, stored_batches
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.portfolio.encoding import raw_matrix
from creditrisk_assets.storage import StoredPath

ROW_GROUP_ROWS = 65_536


def write_day_record(
    folder: StoredPath,
    earlier: Sequence[DecisionSet],
    scored: Path,
    record: Path,
    portfolio: Portfolio,
) -> None:
    """Write the record of a day whose files have changed since it was first scored.

    Args:
        folder: of all decisions.
        earlier: the scorings before the present one, oldest first.
        scored: the present scoring, a Parquet file of all present rows of the day.
        record: path of the record: the rows of `scored`, each with the first decision on it.
        portfolio: of the customers.

    Raises:
        DecisionsError: if an earlier set cannot be read or was changed.
    """
    first = _first_decisions(folder, earlier, portfolio)
    own = {portfolio.identifier, *portfolio.field_names}
    with pq.ParquetFile(scored, pre_buffer=False) as file:
        answers = [name for name in file.schema_arrow.names if name not in own]
        with pq.ParquetWriter(record, file.schema_arrow) as writer:
            for batch in file.iter_batches(ROW_GROUP_ROWS):
                rows = batch.to_pandas()
                places = first.index.get_indexer(_keys(rows, portfolio))
                known = np.flatnonzero(places >= 0)
                for name in answers if len(known) else ():
                    values = rows[name].to_numpy(copy=True)
                    values[known] = first[name].to_numpy()[places[known]]
                    place = batch.schema.get_field_index(name)
                    column = pa.array(values, batch.schema.field(name).type, from_pandas=True)
                    batch = batch.set_column(place, batch.schema.field(name), column)
                writer.write_batch(batch)


def _first_decisions(
    folder: StoredPath, sets: Sequence[DecisionSet], portfolio: Portfolio
) -> pd.DataFrame:
    """The first decision on each record, by the record's key."""
    own = [portfolio.identifier, *portfolio.field_names]
    parts = []
    for decisions in sets:
        for batch in stored_batches(folder, decisions):
            # An earlier contract with fewer fields had other records.
            if set(own) <= set(batch.schema.names):
                rows = batch.to_pandas()
                parts.append(rows.drop(columns=own).set_index(_keys(rows, portfolio)))
    found = pd.concat(parts) if parts else pd.DataFrame(index=pd.MultiIndex.from_arrays([[], []]))
    return found[~found.index.duplicated()]


def _keys(rows: pd.DataFrame, portfolio: Portfolio) -> pd.Index:
    """A key for each record: the customer's identifier, and a hash of the decision graph's
    inputs.
    """
    fields = pd.util.hash_pandas_object(
        pd.DataFrame(raw_matrix(rows, portfolio.fields)), index=False
    )
    return pd.MultiIndex.from_arrays([rows[portfolio.identifier].astype(str), fields])
