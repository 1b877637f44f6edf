"""What a challenger would have answered: segments of their own beside the decision log, in the same
frames.

Nobody waits for them and nothing is decided by them, so they are not brought to the disk group by
group: what a process has written outlives it, what a machine has written in its last seconds may be
lost. The decisions themselves never are.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json


class ShadowHeader(BaseModel):
    """What a segment says of itself.

    Attributes:
        name: 16 hexadecimal digits.
        day: of the decisions, UTC.
        portfolio: whose records they are about.
        champion_version: who decided.
        challenger_version: who was asked too.
        bundle_sha256: of the challenger.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = 1
    name: str
    day: str
    portfolio: str
    champion_version: str
    challenger_version: str
    bundle_sha256: str


class ShadowScores(BaseModel):
    """Some decisions: their ids, the PDs that were told, and the challenger's; None where it gave
    no number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ids: list[str]
    champion: list[float]
    challenger: list[float | None]


def line_of(
    ids: Sequence[str], champion: NDArray[np.float64], challenger: NDArray[np.float64]
) -> bytes:
    """Scores as a line of the segment; JSON has every bit of a float, and no NaN."""
    given: list[float | None] = challenger.tolist()
    if not np.isfinite(challenger).all():
        given = [value if np.isfinite(value) else None for value in challenger.tolist()]
    return to_json({"ids": list(ids), "champion": champion.tolist(), "challenger": given})


def scores_in(payload: bytes) -> Iterator[ShadowScores]:
    """The scores of a frame."""
    return (ShadowScores.model_validate_json(line) for line in payload.split(b"\n") if line)
