"""Storage of assets: Parquet files that are written atomically."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from creditrisk_assets.storage import put_file, replacing

MAY_BE_MISSING = "creditrisk/may_be_missing"
"""Metadata key of an input that is None if the other asset does not have the day."""


@dataclass(frozen=True)
class ParquetRows:
    """Reference to a Parquet file, for rows that are written and read in batches.

    An output is a finished local file, which is moved to the asset's path; an input is the asset's
    file.
    """

    path: UPath | Path

    def count(self, columns: list[str]) -> Counter[tuple[Any, ...]]:
        """The number of rows with each combination of the columns' values."""
        rows: Counter[tuple[Any, ...]] = Counter()
        with self.opened() as file:
            for batch in file.iter_batches(columns=columns):
                groups = pa.Table.from_batches([batch]).group_by(columns)
                for group in groups.aggregate([([], "count_all")]).to_pylist():
                    rows[tuple(group[name] for name in columns)] += group["count_all"]
        return rows

    @contextmanager
    def opened(self) -> Iterator[pq.ParquetFile]:
        """Open the file and read one row group at a time; read-ahead would hold the whole file in
        memory.
        """
        with self.path.open("rb") as file:
            yield pq.ParquetFile(file, pre_buffer=False)


class FramesByDay(Mapping[str, pd.DataFrame]):
    """Frames of an asset by day, each read when it is asked for and not held.

    Args:
        days: the asset's file of each day.
    """

    def __init__(self, days: Mapping[str, ParquetRows]) -> None:
        self._days = days

    def __getitem__(self, day: str) -> pd.DataFrame:
        with self._days[day].path.open("rb") as file:
            return pd.read_parquet(file)

    def __iter__(self) -> Iterator[str]:
        return iter(self._days)

    def __len__(self) -> int:
        return len(self._days)


class ParquetIOManager(dg.UPathIOManager):
    """IO manager with a Parquet file for each asset, or for each of its partitions.

    An input is loaded as a frame, or passed as `ParquetRows` if it is annotated so. An asset that
    reads all partitions of another receives a dict of the existing days.
    """

    extension = ".parquet"

    def dump_to_path(
        self,
        context: dg.OutputContext,  # noqa: ARG002
        obj: pd.DataFrame | ParquetRows,
        path: UPath,
    ) -> None:
        """Write a frame, or move a finished file to the path."""
        if isinstance(obj, ParquetRows):
            put_file(Path(str(obj.path)), path)
            return
        with replacing(path) as file:
            obj.to_parquet(file, index=False)

    def load_from_path(self, context: dg.InputContext, path: UPath) -> pd.DataFrame | ParquetRows:
        """Read a frame, or refer to its file."""
        annotated = context.dagster_type.typing_type
        # Alone, in a union, or in a dictionary of days.
        if ParquetRows in (annotated, *getattr(annotated, "__args__", ())):
            return ParquetRows(path)
        with path.open("rb") as file:
            return pd.read_parquet(file)

    def load_input(self, context: dg.InputContext) -> object:
        """Load an input; an input of all days is empty before the first day."""
        loaded = super().load_input(context)
        return (
            {}
            if loaded is None and get_origin(context.dagster_type.typing_type) is dict
            else loaded
        )

    def load_partitions(
        self, context: dg.InputContext
    ) -> pd.DataFrame | ParquetRows | dict[str, pd.DataFrame | ParquetRows] | None:
        """Read the partition of the same day, or all existing days."""
        paths = self._get_paths_for_partitions(context)
        if get_origin(context.dagster_type.typing_type) is not dict:
            (path,) = paths.values()
            may_be_missing = context.definition_metadata.get(MAY_BE_MISSING)
            if may_be_missing and not self.path_exists(path):
                return None
            return self.load_from_path(context, path)
        return {
            day: self.load_from_path(context, path)
            for day, path in paths.items()
            if self.path_exists(path)
        }


def stored_path(storage: UPath, asset: str, day: str) -> UPath:
    """Path of an asset's frame of one day."""
    return storage / asset / f"{day}{ParquetIOManager.extension}"


def stored_frame(storage: UPath, asset: str, day: str) -> pd.DataFrame | None:
    """An asset's frame of one day; None if the day has none."""
    try:
        with stored_path(storage, asset, day).open("rb") as file:
            return pd.read_parquet(file)
    except FileNotFoundError:
        return None
