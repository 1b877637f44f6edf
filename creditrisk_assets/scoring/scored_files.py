"""Writers of scored rows: one file, or a folder of parts, which a scoring that was killed goes on
with behind the last part. Every file appears whole or not at all.
"""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq

from creditrisk_assets.landing.table_reader import Malformed
from creditrisk_assets.landing.validation import text_columns
from creditrisk_assets.scoring.scorers import Answers, ScoringError
from creditrisk_assets.storage import StoredPath, replacing

MALFORMED_SHOWN = 100
GROUP_ROWS = 1 << 18
"""Rows of a Parquet file's row group."""

PART_ROWS = 1 << 20
"""Least rows of a part but the last; a part ends with a batch."""

RUN, SUMMARY = "run.json", "summary.json"
FIGURES = b"creditrisk_figures"
"""Key of a part's figures in its metadata."""


@dataclass
class ScoredFile:
    """Figures of scored rows.

    Attributes:
        scored: rows with a decision.
        rejected: rows with an error.
        declined: scored rows with the prediction 1.
        pd_sum: over the scored rows.
        errors: number of cells by field and rule, such as `age: out of range`.
        malformed: the first 100 lines that are not rows.
        malformed_lines: number of all such lines.
    """

    scored: int = 0
    rejected: int = 0
    declined: int = 0
    pd_sum: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    malformed: list[Malformed] = field(default_factory=list)
    malformed_lines: int = 0

    @property
    def mean_pd(self) -> float:
        """Mean PD of the scored rows; NaN without one."""
        return self.pd_sum / self.scored if self.scored else float("nan")

    @property
    def declined_share(self) -> float:
        """Share of the scored rows that are declined; NaN without one."""
        return self.declined / self.scored if self.scored else float("nan")

    def values(self) -> dict[str, Any]:
        """The figures for JSON."""
        return vars(self) | {"errors": dict(self.errors)}

    @classmethod
    def from_json(cls, text: bytes) -> "ScoredFile":
        """Figures from the JSON of their values."""
        values = json.loads(text)
        values["errors"] = Counter(values["errors"])
        values["malformed"] = [(line, reason, row) for line, reason, row in values["malformed"]]
        return cls(**values)

    def add(self, other: "ScoredFile") -> None:
        """Add the figures of the rows that follow."""
        self.scored += other.scored
        self.rejected += other.rejected
        self.declined += other.declined
        self.pd_sum += other.pd_sum
        self.errors += other.errors
        self.malformed_lines += other.malformed_lines
        self.malformed += other.malformed[: MALFORMED_SHOWN - len(self.malformed)]


@dataclass(frozen=True)
class ScoredRows:
    """Rows of a batch.

    Attributes:
        cells: all rows, unchanged.
        answers: decisions, null where there is none.
        errors: error of each row, or null.
        figures: of the rows, and of lines among them that are none.
    """

    cells: pa.RecordBatch
    answers: Answers
    errors: pa.Array
    figures: ScoredFile


class Writer(Protocol):
    """Writer of scored rows, used within `with`; an error there leaves nothing half-written.

    Attributes:
        rows_done: rows of the source that were written by an earlier, unfinished scoring.
        figures: of all rows so far.
    """

    rows_done: int
    figures: ScoredFile

    def write(self, rows: ScoredRows) -> None:
        """Add the rows that follow."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: Any) -> None: ...


class TableWriter:
    """Writer of one file.

    Args:
        file: open for writing.
        headers: the written columns of the source, and their headers there.
        as_parquet: as Parquet, otherwise as CSV.
    """

    rows_done = 0

    def __init__(self, file: IO[bytes], headers: Mapping[str, str], as_parquet: bool) -> None:
        self.figures = ScoredFile()
        self._file = file
        self._headers = headers
        self._as_parquet = as_parquet
        self._parquet: pq.ParquetWriter | None = None
        self._has_header = False
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0

    def write(self, rows: ScoredRows) -> None:
        """Add rows."""
        self.figures.add(rows.figures)
        columns = {header: rows.cells.column(name) for name, header in self._headers.items()}
        batch = pa.RecordBatch.from_pydict(columns | rows.answers | {"error": rows.errors})
        if not self._as_parquet:
            # A null must not turn the column's integers into floats.
            table = text_columns(pa.Table.from_batches([batch]))
            frame = table.to_pandas(integer_object_nulls=True)
            frame.to_csv(self._file, index=False, header=not self._has_header)
            self._has_header = True
            return
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        if self._waiting_rows >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        """Write the waiting rows as a row group."""
        if self._waiting:
            table = pa.Table.from_batches(self._waiting)
            self._parquet = self._parquet or pq.ParquetWriter(self._file, table.schema)
            self._parquet.write_table(table)
            self._waiting, self._waiting_rows = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        if self._parquet is not None:
            if kind is None:
                figures = json.dumps(self.figures.values()).encode()
                self._parquet.add_key_value_metadata({FIGURES: figures})
            self._parquet.close()


class FolderWriter:
    """Writer of a folder of Parquet files, `part-00000.parquet` and so on.

    Args:
        folder: new, or of an unfinished scoring of the same file by the same model.
        headers: as for `TableWriter`.
        run: the source and the model, in words; a folder with other words is refused.

    Raises:
        ScoringError: if the folder holds anything else, or a finished scoring.
    """

    def __init__(self, folder: StoredPath, headers: Mapping[str, str], run: object) -> None:
        self._folder = folder
        self._headers = headers
        self._claim(run)
        self.figures = ScoredFile()
        self.rows_done = self._parts = 0
        while self._part().exists():
            with self._part().open("rb") as file:
                metadata = pq.read_metadata(file)
            self.figures.add(ScoredFile.from_json(metadata.metadata[FIGURES]))
            self.rows_done += metadata.num_rows
            self._parts += 1
        self._open = ExitStack()
        self._table: TableWriter | None = None

    def _claim(self, run: object) -> None:
        """Name the run in the folder."""
        names = {path.name for path in self._folder.iterdir()} if self._folder.is_dir() else set()
        words = json.dumps(run, indent=2)
        if SUMMARY in names:
            raise ScoringError(f"{self._folder}: holds a finished scoring; valid: a new folder")
        if RUN not in names:
            if names:
                raise ScoringError(f"{self._folder}: holds {min(names)}; valid: a new folder")
            with replacing(self._folder / RUN) as file:
                file.write(words.encode())
        elif (self._folder / RUN).read_text() != words:
            raise ScoringError(
                f"{self._folder}: holds an unfinished scoring of another file or by another "
                f"model ({self._folder / RUN}); valid: a new folder, or the same again"
            )

    def _part(self) -> StoredPath:
        """Path of the part that follows the finished ones."""
        return self._folder / f"part-{self._parts:05}.parquet"

    def write(self, rows: ScoredRows) -> None:
        """Add rows."""
        if self._table is None:
            file = self._open.enter_context(replacing(self._part()))
            self._table = self._open.enter_context(TableWriter(file, self._headers, True))
        self._table.write(rows)
        figures = self._table.figures
        if figures.scored + figures.rejected >= PART_ROWS:
            self._finish_part()

    def _finish_part(self) -> None:
        if self._table is not None:
            self._open.close()
            self.figures.add(self._table.figures)
            self._table = None
            self._parts += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is not None:
            self._open.__exit__(kind, *rest)
            return
        self._finish_part()
        summary = self.figures.values() | {
            "mean_pd": self.figures.mean_pd if self.figures.scored else None,
            "declined_share": self.figures.declined_share if self.figures.scored else None,
            "parts": self._parts,
        }
        with replacing(self._folder / SUMMARY) as file:
            file.write((json.dumps(summary, indent=2) + "\n").encode())
