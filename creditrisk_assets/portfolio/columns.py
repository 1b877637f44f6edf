"""Types of a contract's fields in stored files. The module imports no pandas, so the API can use
it.
"""

import pyarrow as pa

from creditrisk_assets.portfolio.contract import Field


def arrow_type(field: Field) -> pa.DataType:
    """Type of a field's accepted values; missing values are null."""
    if field.is_text:
        return pa.string()
    return pa.float64() if field.kind == "decimal" else pa.int64()
