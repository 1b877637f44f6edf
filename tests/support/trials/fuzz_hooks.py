"""Facts for schemathesis beyond the OpenAPI document: valid batches that are no JSON, and keys that
are used once.

Loaded by schemathesis itself, by the name in `SCHEMATHESIS_HOOKS`.
"""

import csv
import io
import itertools
import json
import os
import re
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import schemathesis
from hypothesis import strategies as st

from creditrisk_assets.portfolio.contract import Field
from creditrisk_assets.settings import Settings

VALID_KEY = re.compile(r"[!-~]{1,255}")
KEY_LENGTH = 255
TEXT_FORMATS = ("application/x-ndjson", "text/csv")

numbers = itertools.count()
portfolio = Settings().portfolio


def _values(field: Field) -> st.SearchStrategy[Any]:
    if field.codes is not None:
        return st.sampled_from(list(field.codes))
    low, high = field.minimum, field.maximum
    if field.decimal:
        return st.floats(low, high, allow_nan=False)
    return st.integers(None if low is None else int(low), None if high is None else int(high))


customers = st.lists(
    st.fixed_dictionaries({field.name: _values(field) for field in portfolio.fields}),
    min_size=1,
    max_size=4,
)


def _lines(records: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, records)).encode()


def _table_text(records: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, list(records[0]))
    table.writeheader()
    table.writerows(records)
    return text.getvalue().encode()


def _parquet(records: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), sink)
    return sink.getvalue()


def _stream(records: list[dict[str, Any]]) -> bytes:
    sink, table = io.BytesIO(), pa.Table.from_pylist(records)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


schemathesis.openapi.media_type("application/x-ndjson", customers.map(_lines))
schemathesis.openapi.media_type("text/csv", customers.map(_table_text))
schemathesis.openapi.media_type("application/vnd.apache.parquet", customers.map(_parquet))
schemathesis.openapi.media_type("application/vnd.apache.arrow.stream", customers.map(_stream))


@schemathesis.hook
def before_call(
    _: schemathesis.HookContext, case: "schemathesis.Case[Any]", kwargs: dict[str, Any]
) -> None:
    r"""Make a valid idempotency key one that nobody has used: that is part of being valid, and no
    schema can say it. And take out of a valid identifier what `\p{C}` forbids, but schemathesis
    draws: its `\p{C}` lacks most of what Unicode has.
    """
    for headers in (case.headers, kwargs.get("headers") or {}):
        key = headers.get("Idempotency-Key")
        if key is not None and VALID_KEY.fullmatch(str(key)):
            headers["Idempotency-Key"] = f"{os.getpid()}.{next(numbers)}.{key}"[:KEY_LENGTH]
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    if (
        is_valid
        and isinstance(case.body, dict)
        and isinstance(name := case.body.get(portfolio.identifier), str)
    ):
        shown = "".join(letter if letter.isprintable() else "x" for letter in name)
        case.body = {**case.body, portfolio.identifier: shown}


@schemathesis.hook
def before_load_schema(_: schemathesis.HookContext, document: dict[str, Any]) -> None:
    """Take the examples of text formats out: schemathesis sends none where batches are drawn from a
    strategy, and calls that an error. They are sent as printed by a test of their own.
    """
    for media_type in TEXT_FORMATS:
        document["paths"]["/predict/batch"]["post"]["requestBody"]["content"][media_type].pop(
            "example", None
        )
