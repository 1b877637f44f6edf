"""The shape of the stores that `Loop.of` makes: embedded or, with `CREDITRISK_TEST_SHAPE=served`, on servers.

`tests.support.served_stores` has the servers.
"""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.served_stores import ServedStores

SERVED = os.environ.get("CREDITRISK_TEST_SHAPE") == "served"


@dataclasses.dataclass
class Now:
    """The served stores of this process of tests, once they are there."""

    stores: "ServedStores | None" = None


now = Now()


def stores() -> "ServedStores | None":
    """The served stores of this process of tests; None if stores are embedded."""
    return now.stores


def copy(made: Path, home: Path) -> None:
    """Copy a closed loop's folder with its store."""
    shutil.copytree(made, home)
    if now.stores is not None:
        now.stores.copy(made, home)
