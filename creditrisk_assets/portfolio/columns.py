"""Fields of a contract as columns of Arrow: their types in stored files, and their encoding for
compiled code. The module imports no pandas, so the API can use it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from creditrisk_assets.portfolio.contract import Field
from creditrisk_assets.portfolio.encoding import EncodedField

PLAIN_TYPES = (pa.int64(), pa.float64(), pa.float32())
"""Types of columns that are encoded without a copy."""


def arrow_type(field: Field) -> pa.DataType:
    """Type of a field's accepted values; missing values are null."""
    if field.is_text:
        return pa.string()
    return pa.float64() if field.kind == "decimal" else pa.int64()


def encoded_columns(records: pa.RecordBatch, fields: Sequence[EncodedField]) -> list[NDArray[Any]]:
    """Encode records that satisfy the contract, column by column.

    Args:
        records: a column for each field; other columns are ignored.
        fields: the columns, in order.

    Returns:
        A column for each field: int64, float64 or float32, NaN where a value is missing. As float32
        they are the columns of `raw_matrix`.

    Raises:
        ValueError: if a text is not a known code.
    """
    return [_encoded(records.column(field.name), field) for field in fields]


def _encoded(column: pa.Array, field: EncodedField) -> NDArray[Any]:
    if field.is_text:
        return _code_numbers(column, field)
    if column.type not in PLAIN_TYPES:
        column = column.cast(pa.float64(), safe=False)
    if column.null_count:
        column = pc.fill_null(column.cast(pa.float64(), safe=False), np.nan)
    values: NDArray[Any] = column.to_numpy()
    return values if values.dtype.kind == "i" else values + 0.0  # one zero, as in `raw_matrix`


def _code_numbers(column: pa.Array, field: EncodedField) -> NDArray[np.float64]:
    codes = pa.array(list(field.code_numbers), pa.string())
    places = pc.index_in(column.cast(pa.string()), codes)
    if places.null_count != column.null_count:
        unknown = pc.unique(column.filter(pc.and_(places.is_null(), column.is_valid())))
        raise ValueError(
            f"{field.name}: {unknown[0].as_py()!r} is not a known code; valid: one of "
            f"{', '.join(map(str, field.code_numbers))}"
        )
    numbers = pa.array(list(field.code_numbers.values()), pa.float64())
    return np.asarray(pc.fill_null(numbers.take(places), np.nan).to_numpy())
