"""Ratios that a benchmark writes for programs: the product's speed to that of a peer or of the bare
limit in the same run. A larger one is better.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option `--ratios FILE`."""
    parser.add_argument("--ratios", type=Path, help="also write the ratios as JSON")


def write(path: Path | None, ratios: Mapping[str, float]) -> None:
    """Write ratios by name, if the option names a file."""
    if path is not None:
        path.write_text(json.dumps(ratios, indent=2) + "\n", encoding="utf-8")
