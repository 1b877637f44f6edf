"""Rows against the contract: what is accepted, what is rejected and why, and that both add up.

Reading files is `landing`'s matter; the contract itself is in `contract`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pandera
from pandera.errors import SchemaErrors

from creditrisk_assets.portfolio.contract import Field, Portfolio
from creditrisk_assets.portfolio.landing import RawRows, UnreadableFile, read_rows, record_text

REJECTED_COLUMNS = ["file", "line", "field", "value", "rule", "message", "rows", "record"]
"""Columns of a quarantine file. `line` is 0 and `rows` their number where the file as a whole was rejected."""


@dataclass(frozen=True)
class Reconciliation:
    """Where the rows of one file went: `rows_in` = `accepted` + `rejected` + `duplicates`."""

    file: str
    rows_in: int
    accepted: int
    rejected: int
    duplicates: int

    @property
    def holds(self) -> bool:
        """Whether every row is accounted for."""
        return self.rows_in == self.accepted + self.rejected + self.duplicates


@dataclass(frozen=True)
class ValidatedRows:
    """The outcome of validation.

    `accepted` has the identifier (text) and the wanted fields (int64); `rejected` has `REJECTED_COLUMNS`, one line for each
    thing wrong; `ignored_columns` were in a file and mean nothing to the contract.
    """

    accepted: pd.DataFrame
    rejected: pd.DataFrame
    files: tuple[Reconciliation, ...]
    ignored_columns: tuple[str, ...]

    @property
    def rows_in(self) -> int:
        """Rows that arrived."""
        return sum(file.rows_in for file in self.files)

    @property
    def rejected_rows(self) -> int:
        """Rows that were rejected, each counted once however much is wrong with it."""
        return sum(file.rejected for file in self.files)

    @property
    def rejected_share(self) -> float:
        """Rejected rows as a share of those that arrived; 1.0 if a file could not be read and nothing was accepted."""
        if self.rows_in == 0:
            return 1.0 if len(self.rejected) else 0.0
        return self.rejected_rows / self.rows_in


def target_field(portfolio: Portfolio) -> Field:
    """The outcome as a contract field."""
    return Field(portfolio.target, "default in the next month", "", 0, 1, {0: "good", 1: "bad"})


def validate_files(paths: Sequence[Path], portfolio: Portfolio, fields: Sequence[Field]) -> ValidatedRows:
    """Validate the files of one day together, in the order given.

    Of each customer the last row counts. An earlier row like it is dropped as a duplicate, an earlier row with other values is
    rejected.

    Args:
        paths: CSV or Parquet files.
        portfolio: whose identifier column the rows carry.
        fields: the columns wanted, apart from the identifier.
    """
    parts: list[ValidatedRows] = []
    for path in paths:
        try:
            parts.append(validate_rows(read_rows(path), portfolio, fields))
        except UnreadableFile as error:
            parts.append(_whole_file_rejected(path.name, 0, "unreadable file", "", str(error), portfolio, fields))
    return _without_repeats(parts, portfolio, fields)


def validate_rows(rows: RawRows, portfolio: Portfolio, fields: Sequence[Field]) -> ValidatedRows:
    """Validate one file's rows by themselves; repeated customers are left in."""
    wanted = [portfolio.identifier, *(field.name for field in fields)]
    missing = [name for name in wanted if name not in rows.cells.columns]
    if missing:
        message = f"missing column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; valid: {', '.join(wanted)}"
        return _whole_file_rejected(rows.file, rows.count, "missing column", ", ".join(missing), message, portfolio, fields)

    cells = rows.cells[wanted]
    identifiers = identifier_text(cells[portfolio.identifier])
    numbers = pd.DataFrame({field.name: to_numbers(cells[field.name]) for field in fields})
    problems = [
        (int(position), portfolio.identifier, "missing", f"{portfolio.identifier}: missing; valid: a customer identifier")
        for position in np.flatnonzero(identifiers == "")
    ]
    problems += contract_problems(numbers, cells, fields)
    lines = np.array(rows.lines, dtype=np.int64)
    bad = np.zeros(len(lines), dtype=bool)
    bad[[position for position, *_ in problems]] = True
    rejected = pd.DataFrame(
        [
            (
                rows.file,
                int(lines[position]),
                name,
                str(cells[name].iloc[position]),
                rule,
                message,
                1,
                record_text({str(key): value for key, value in cells.iloc[position].items()}),
            )
            for position, name, rule, message in sorted(problems)
        ]
        + [(rows.file, line, "", "", "malformed line", f"{why}", 1, text) for line, why, text in rows.malformed],
        columns=REJECTED_COLUMNS,
    )
    accepted = numbers[~bad].astype("int64")
    accepted.insert(0, portfolio.identifier, identifiers[~bad].to_numpy())
    accepted.insert(0, "line", lines[~bad])
    accepted.insert(0, "file", rows.file)
    counts = Reconciliation(rows.file, rows.count, len(accepted), int(bad.sum()) + len(rows.malformed), 0)
    ignored = tuple(name for name in rows.cells.columns if name not in wanted)
    return ValidatedRows(accepted.reset_index(drop=True), rejected, (counts,), ignored)


def contract_problems(numbers: pd.DataFrame, cells: pd.DataFrame, fields: Sequence[Field]) -> list[tuple[int, str, str, str]]:
    """Every cell that breaks the contract, as (row position, field, rule, message).

    Args:
        numbers: the cells as float64, NaN where a cell holds no number; index 0..n-1.
        cells: the cells as they came, for the messages.
        fields: the contract of each column.
    """
    try:
        contract_schema(fields).validate(numbers, lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases
    else:
        return []
    by_name = {field.name: field for field in fields}
    problems = {}
    for name, rule, position in zip(cases["column"], cases["check"], cases["index"], strict=True):
        value = cells[name].iloc[int(position)]
        if rule == "not_nullable":
            text = "" if pd.isna(value) else str(value).strip()
            rule = "missing" if text.lower() in ("", "nan", "na", "null", "none") else "not a number"
        what = "missing" if rule == "missing" else f"{str(value)[:60]!r} is {rule}"
        problems[int(position), name] = (rule, f"{name}: {what}; valid: {by_name[name].valid}")
    return [(position, name, rule, message) for (position, name), (rule, message) in problems.items()]


def contract_schema(fields: Sequence[Field]) -> pandera.DataFrameSchema:
    """The contract as a pandera schema over float64 columns."""

    def column(field: Field) -> pandera.Column:
        if field.codes is not None:
            inside = pandera.Check.isin(sorted(field.codes), error="not a known code")
        else:
            inside = pandera.Check.in_range(field.minimum, field.maximum, error="out of range")
        whole = pandera.Check(lambda values: values % 1 == 0, error="not a whole number")
        return pandera.Column(float, [whole, inside], nullable=False)

    return pandera.DataFrameSchema({field.name: column(field) for field in fields})


def to_numbers(cells: pd.Series) -> pd.Series:
    """A column's cells as float64, NaN where a cell holds no number; index 0..n-1."""
    numbers = pd.to_numeric(cells.reset_index(drop=True), errors="coerce")
    return pd.Series(numbers.to_numpy(dtype="float64", na_value=np.nan), name=cells.name)


def identifier_text(cells: pd.Series) -> pd.Series:
    """Identifiers as text: 7, 7.0 and " 7 " are the same customer; a missing one is ""."""
    text = cells.reset_index(drop=True).astype("object").where(cells.notna().to_numpy(), "")
    whole = text.map(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)
    return whole.map(lambda value: str(value).strip()).str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True).astype("object")


def _whole_file_rejected(
    file: str, rows: int, rule: str, field: str, message: str, portfolio: Portfolio, fields: Sequence[Field]
) -> ValidatedRows:
    accepted = _nothing_accepted(portfolio, fields)
    rejected = pd.DataFrame([(file, 0, field, "", rule, message, rows, "")], columns=REJECTED_COLUMNS)
    return ValidatedRows(accepted, rejected, (Reconciliation(file, rows, 0, rows, 0),), ())


def _nothing_accepted(portfolio: Portfolio, fields: Sequence[Field]) -> pd.DataFrame:
    columns = {"file": "object", "line": "int64", portfolio.identifier: "object"}
    columns |= {field.name: "int64" for field in fields}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})


def _without_repeats(parts: Sequence[ValidatedRows], portfolio: Portfolio, fields: Sequence[Field]) -> ValidatedRows:
    """Join the files of a day: of each customer the last row counts; earlier ones like it are dropped, others rejected."""
    together = pd.concat([_nothing_accepted(portfolio, fields), *(part.accepted for part in parts)], ignore_index=True)
    content = [portfolio.identifier, *(field.name for field in fields)]
    last = together[~together.duplicated(portfolio.identifier, keep="last")]
    earlier = together[together.duplicated(portfolio.identifier, keep="last")]
    names = [field.name for field in fields]
    winners = last.set_index(portfolio.identifier)[names].reindex(earlier[portfolio.identifier])
    same = (winners.to_numpy() == earlier[names].to_numpy()).all(axis=1)
    repeated, earlier = earlier[same], earlier[~same]
    superseded_rows = pd.DataFrame(
        [
            (
                row["file"],
                row["line"],
                portfolio.identifier,
                row[portfolio.identifier],
                "superseded",
                f"{portfolio.identifier}: customer {row[portfolio.identifier]!r} stands again later in the day with other "
                "values; valid: one row for each customer",
                1,
                record_text({name: row[name] for name in content}),
            )
            for row in earlier.to_dict("records")
        ],
        columns=REJECTED_COLUMNS,
    )
    accepted = last
    files = tuple(
        Reconciliation(
            counts.file,
            counts.rows_in,
            int((accepted["file"] == counts.file).sum()),
            counts.rejected + int((earlier["file"] == counts.file).sum()),
            int((repeated["file"] == counts.file).sum()),
        )
        for part in parts
        for counts in part.files
    )
    rejected = pd.concat([*(part.rejected for part in parts), superseded_rows], ignore_index=True)
    ignored = tuple(sorted({name for part in parts for name in part.ignored_columns}))
    return ValidatedRows(accepted[content].reset_index(drop=True), rejected.reindex(columns=REJECTED_COLUMNS), files, ignored)
