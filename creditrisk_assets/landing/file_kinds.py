"""Detection of a file's kind by its first bytes, for messages about misnamed files."""

import codecs

HEAD_BYTES = 512
"""Long enough for every signature below."""

VALID_CSV = "CSV in UTF-8 (in Excel: Save as, CSV UTF-8)"

_SIGNATURES = (
    (b"PAR1", "a Parquet file", "a name that ends in .parquet"),
    (b"\x1f\x8b", "compressed by gzip", "a name that ends in .csv.gz, or the file that is in it"),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "an old Excel workbook (.xls)",
        f"its sheet as {VALID_CSV}",
    ),
    (b"BZh", "compressed by bzip2", "the file that is in it"),
    (b"\xfd7zXZ\0", "compressed by xz", "the file that is in it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "the file that is in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "the file that is in it"),
    (b"Rar!", "a RAR archive", "the file that is in it"),
    (b"ARROW1", "a Feather or Arrow file", "the table as Parquet"),
    (b"FEA1", "a Feather file", "the table as Parquet"),
    (b"ORC", "an ORC file", "the table as Parquet"),
    (b"Obj\x01", "an Avro file", "the table as Parquet"),
    (b"\x89HDF", "an HDF5 file", "the table as Parquet"),
    (b"SQLite format 3", "an SQLite database", "its table as CSV or Parquet"),
    (b"%PDF", "a PDF document", "the table as CSV or Parquet"),
    (b"\x80\x04\x95", "a Python pickle, which is never opened", "the table as Parquet"),
    (b"\x80\x05\x95", "a Python pickle, which is never opened", "the table as Parquet"),
    (codecs.BOM_UTF32_LE, "UTF-32 text", VALID_CSV),
    (codecs.BOM_UTF32_BE, "UTF-32 text", VALID_CSV),
    (codecs.BOM_UTF16_LE, "UTF-16 text", VALID_CSV),
    (codecs.BOM_UTF16_BE, "UTF-16 text", VALID_CSV),
)
_TEXT_SIGNATURES = (
    (b"<", "HTML or XML", "the table as CSV or Parquet"),
    (b"{", "JSON", "the table as CSV or Parquet"),
    (b"[{", "JSON", "the table as CSV or Parquet"),
    (b"[\n", "JSON", "the table as CSV or Parquet"),
)


def not_a_table(head: bytes) -> str | None:
    """Message about a file that is neither CSV nor Parquet; None if its kind is unknown.

    Args:
        head: its first `HEAD_BYTES` bytes.
    """
    if head.startswith(b"PK\x03\x04"):
        return _zip(head)
    for signature, kind, valid in _SIGNATURES:
        if head.startswith(signature):
            return f"the file is {kind}; valid: {valid}"
    if _is_wide_text(head):
        return f"the file is UTF-16 text; valid: {VALID_CSV}"
    return None


def not_a_csv(head: bytes) -> str | None:
    """Message as by `not_a_table`, also for text formats other than CSV."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    for signature, kind, valid in _TEXT_SIGNATURES:
        if text.startswith(signature):
            return f"the file is {kind}; valid: {valid}"
    return not_a_table(head)


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are UTF-8 text."""
    return (
        b"\0" not in head
        and bool(head.decode(errors="ignore").strip())
        and len(head.decode(errors="ignore").encode()) > len(head) - 4
    )


def _zip(head: bytes) -> str:
    if b"[Content_Types].xml" in head or b"xl/" in head or b"_rels/" in head:
        return f"the file is an Excel workbook (.xlsx); valid: its sheet as {VALID_CSV}"
    if b"opendocument" in head:
        return f"the file is an OpenDocument table (.ods); valid: its sheet as {VALID_CSV}"
    return "the file is a zip archive; valid: the CSV or Parquet file that is in it"


def _is_wide_text(head: bytes) -> bool:
    """Whether every second of the first bytes is zero and the others are not."""
    start = head[: len(head) // 2 * 2][:64]
    if len(start) < 8:
        return False
    even, odd = start[::2], start[1::2]
    return any(not any(zeros) and all(others) for zeros, others in ((even, odd), (odd, even)))
