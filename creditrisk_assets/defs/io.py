"""How frames pass from asset to asset: Parquet files that appear whole or not at all."""

from pathlib import Path

import dagster as dg
import pandas as pd
from upath import UPath

from creditrisk_assets.portfolio.landing import replacing


class ParquetIOManager(dg.UPathIOManager):
    """One Parquet file for each asset, or for each of its partitions.

    An asset that reads all partitions of another gets a dict of the days that exist; a day that never landed is not in it.
    """

    extension = ".parquet"

    def dump_to_path(self, context: dg.OutputContext, obj: pd.DataFrame, path: UPath) -> None:  # noqa: ARG002
        """Write a frame."""
        with replacing(Path(str(path))) as file:
            obj.to_parquet(file, index=False)

    def load_from_path(self, context: dg.InputContext, path: UPath) -> pd.DataFrame:  # noqa: ARG002
        """Read a frame."""
        return pd.read_parquet(Path(str(path)))

    def load_partitions(self, context: dg.InputContext) -> pd.DataFrame | dict[str, pd.DataFrame]:
        """Read the partition of the same day, or every day that there is."""
        paths = self._get_paths_for_partitions(context)
        if len(paths) == 1:
            return self.load_from_path(context, next(iter(paths.values())))
        return {day: self.load_from_path(context, path) for day, path in paths.items() if self.path_exists(path)}
