"""How frames pass from asset to asset: Parquet files that appear whole or not at all."""

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
"""Metadata of an input that is None where the other asset has no such day."""


@dataclass(frozen=True)
class ParquetRows:
    """A Parquet file instead of a frame, for rows that are written and read batch by batch.

    As an output it is a finished local file, which is moved to the asset's place; as an input it is
    the asset's file.
    """

    path: UPath | Path

    @contextmanager
    def opened(self) -> Iterator[pq.ParquetFile]:
        """Read it, a row group at a time: read ahead, a file would be in memory whole."""
        with self.path.open("rb") as file:
            yield pq.ParquetFile(file, pre_buffer=False)


class ParquetIOManager(dg.UPathIOManager):
    """One Parquet file for each asset, or for each of its partitions.

    An input is loaded as a frame, or, where it is annotated so, given as `ParquetRows`. An asset
    that reads all partitions of another gets a dict of the days that exist; a day that never landed
    is not in it.
    """

    extension = ".parquet"

    def dump_to_path(
        self,
        context: dg.OutputContext,  # noqa: ARG002
        obj: pd.DataFrame | ParquetRows,
        path: UPath,
    ) -> None:
        """Write a frame, or put a finished file in its place."""
        if isinstance(obj, ParquetRows):
            put_file(Path(str(obj.path)), path)
            return
        with replacing(path) as file:
            obj.to_parquet(file, index=False)

    def load_from_path(self, context: dg.InputContext, path: UPath) -> pd.DataFrame | ParquetRows:
        """Read a frame, or name its file."""
        if ParquetRows in _wanted_types(context):
            return ParquetRows(path)
        with path.open("rb") as file:
            return pd.read_parquet(file)

    def load_input(self, context: dg.InputContext) -> object:
        """Read what an input wants; of an asset of which no day has landed yet, all days are
        none.
        """
        loaded = super().load_input(context)
        return (
            {}
            if loaded is None and get_origin(context.dagster_type.typing_type) is dict
            else loaded
        )

    def load_partitions(
        self, context: dg.InputContext
    ) -> pd.DataFrame | ParquetRows | dict[str, pd.DataFrame | ParquetRows] | None:
        """Read the partition of the same day, or every day that there is."""
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
    """Where the frame of one day of an asset is kept."""
    return storage / asset / f"{day}{ParquetIOManager.extension}"


def _wanted_types(context: dg.InputContext) -> tuple[object, ...]:
    """The type that an input is annotated with, or the parts of its union."""
    wanted = context.dagster_type.typing_type
    return (wanted, *getattr(wanted, "__args__", ()))
