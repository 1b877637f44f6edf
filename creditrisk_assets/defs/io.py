"""Storage of assets: Parquet files that are written atomically."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_origin

import dagster as dg
import pandas as pd
import pyarrow.parquet as pq
from upath import UPath

from creditrisk_assets.storage import put_file, replacing

MAY_BE_MISSING = {"creditrisk/may_be_missing": True}
"""Metadata of an input that is None if the other asset does not have the day."""


@dataclass(frozen=True)
class ParquetRows:
    """Reference to a Parquet file, for rows that are written and read in batches.

    An output is a finished local file, which is moved to the asset's path; an input is the asset's
    file.
    """

    path: UPath | Path

    @contextmanager
    def opened(self) -> Iterator[pq.ParquetFile]:
        """Open the file and read one row group at a time; read-ahead would hold the whole file in
        memory.
        """
        with self.path.open("rb") as file:
            yield pq.ParquetFile(file, pre_buffer=False)


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
        if ParquetRows in _annotated_types(context):
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
            if context.definition_metadata.get(
                "creditrisk/may_be_missing"
            ) and not self.path_exists(path):
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


def _annotated_types(context: dg.InputContext) -> tuple[object, ...]:
    """The annotated type of an input, with the members of a union."""
    annotated = context.dagster_type.typing_type
    return (annotated, *getattr(annotated, "__args__", ()))
