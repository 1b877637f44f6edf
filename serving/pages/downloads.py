"""Tables of the pages as CSV (RFC 4180), with the figures unrounded."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import Response
from pydantic import BaseModel

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A text that begins so would be run by a spreadsheet."""


def csv_response(name: str, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Response:
    """Rows as a file to download.

    Args:
        name: of the file, without its ending.
        rows: values by column; a missing one is empty.
        columns: in order.
    """
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(file.getvalue().encode(), headers=headers, media_type="text/csv; charset=utf-8")


def csv_of(name: str, rows: Iterable[BaseModel], without: Sequence[str] = ()) -> Response:
    """Documents of one kind as a file to download, a line each.

    Args:
        name: of the file, without its ending.
        rows: the documents.
        without: fields that are left out.
    """
    listed = list(rows)
    columns = [
        one for one in (type(listed[0]).model_fields if listed else ()) if one not in without
    ]
    return csv_response(name, (row.model_dump(include={*columns}) for row in listed), columns)


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value
