"""Finds the format of a body of `/predict/batch` by its content type, a synonym of it, or a file
name.
"""

from email.message import Message

from serving.http.batch_formats import ARROW, CSV, FORMATS, JSON, NDJSON, PARQUET, Format

OTHER_NAMES = {
    "text/json": JSON,
    "application/ndjson": NDJSON,
    "application/jsonl": NDJSON,
    "application/jsonlines": NDJSON,
    "application/json-lines": NDJSON,
    "application/x-jsonlines": NDJSON,
    "application/x-json-stream": NDJSON,
    "text/x-ndjson": NDJSON,
    "application/csv": CSV,
    "application/x-csv": CSV,
    "text/x-csv": CSV,
    "text/comma-separated-values": CSV,
    "application/parquet": PARQUET,
    "application/x-parquet": PARQUET,
    "application/vnd.apache.arrow": ARROW,
    "application/x-apache-arrow-stream": ARROW,
}
"""Synonyms that clients use."""

BYTES = "application/octet-stream"
"""Names no format; the file name of `Content-Disposition` does."""

SUFFIXES = {
    ".json": JSON,
    ".ndjson": NDJSON,
    ".jsonl": NDJSON,
    ".csv": CSV,
    ".parquet": PARQUET,
    ".arrow": ARROW,
    ".arrows": ARROW,
}


class UnknownFormat(ValueError):
    """The headers do not name the body's format; the message has the valid ones."""


def format_of(content_type: str, disposition: str | None) -> Format:
    """The format of a body.

    Args:
        content_type: one of `FORMATS`, `OTHER_NAMES` and `BYTES`, with or without parameters.
        disposition: the header `Content-Disposition`, if there is one.

    Raises:
        UnknownFormat: if it is only bytes, without a file name with a known suffix.
    """
    name = content_type.split(";")[0].strip().lower()
    if name == BYTES:
        message = Message()
        message["Content-Disposition"] = disposition or ""
        file = message.get_filename() or ""
        name = next(
            (kind for suffix, kind in SUFFIXES.items() if file.lower().endswith(suffix)), ""
        )
        if not name:
            raise UnknownFormat(
                f"content type {BYTES!r} with file name {file!r:.100}; valid: one of {', '.join(FORMATS)}, or "  # noqa: E501
                f'Content-Disposition: attachment; filename="x", where x ends with {", ".join(SUFFIXES)}'  # noqa: E501
            )
    return FORMATS[OTHER_NAMES.get(name, name)]
