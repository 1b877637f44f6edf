"""The types in which a contract's fields are kept in files. It holds no pandas, so that the API can
read what was kept.
"""

import pyarrow as pa

from creditrisk_assets.portfolio.contract import Field


def arrow_type(field: Field) -> pa.DataType:
    """The type of a field's accepted values; what is missing is null."""
    if field.is_text:
        return pa.string()
    return pa.float64() if field.kind == "decimal" else pa.int64()
