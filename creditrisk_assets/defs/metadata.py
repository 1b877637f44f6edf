"""How figures, pictures and rows are shown in the Dagster UI."""

import base64
import math
from collections.abc import Mapping

import dagster as dg
import pandas as pd

from creditrisk_assets.shown import beside

OWNERS = ["team:credit-risk"]


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """A PNG shown in place."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def table(frame: pd.DataFrame, rows: int = 20, compared: tuple[str, str] | None = None) -> dg.MarkdownMetadataValue:
    """The first rows of a frame as a table.

    Args:
        frame: the rows.
        rows: how many of them.
        compared: the columns of a figure and of its limit, which are shown with the digits that tell them apart.
    """
    if compared is not None:
        frame = frame.astype(dict.fromkeys(compared, object))
        for row in range(min(rows, len(frame))):
            places = [frame.columns.get_loc(name) for name in compared]
            values = [frame.iat[row, place] for place in places]
            if all(isinstance(value, int | float) and not math.isnan(value) for value in values):
                for place, text in zip(places, beside(*values, ".4f"), strict=True):
                    frame.iat[row, place] = text
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in frame.head(rows).itertuples(index=False)]
    if len(frame) > rows:
        lines.append(f"\n{len(frame) - rows:,} more rows")
    return dg.MetadataValue.md("\n".join(lines))


def figures(values: Mapping[str, float], prefix: str = "") -> dict[str, float | int]:
    """Numbers as metadata; counts as whole numbers, undefined ones left out."""
    return {
        f"{prefix}{name}": int(value) if name in ("rows", "bads") else value
        for name, value in values.items()
        if not math.isnan(value)
    }


def _cell(value: object) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
