"""The scale of points as a picture: where the cut-off is, and where a customer is. Geometry only;
the template draws it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from creditrisk_assets.scoring.bundle import Scaling

WIDTH = 400.0
MARGIN = 14.0
STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
TICKS = 6
NEAR_THE_EDGE = 60.0
"""A label whose mark is nearer to an edge than this begins, or ends, at its mark."""


@dataclass(frozen=True)
class Mark:
    """A place on the scale: its points, and where it is drawn."""

    points: float
    x: float

    @property
    def anchor(self) -> str:
        """Which part of its label stands at the mark."""
        if self.x < NEAR_THE_EDGE:
            return "start"
        return "end" if self.x > WIDTH - NEAR_THE_EDGE else "middle"


@dataclass(frozen=True)
class Scale:
    """Ticks from left (riskier) to right (safer), the customer, and the cut-off; None where every
    PD is on one side of it.
    """

    ticks: tuple[Mark, ...]
    cut_off: Mark | None
    customer: Mark

    @property
    def start(self) -> float:
        """Where the scale begins."""
        return self.ticks[0].x

    @property
    def end(self) -> float:
        """Where it ends."""
        return self.ticks[-1].x


def points_at(probability: float, scaling: Scaling) -> float | None:
    """The score of a PD; None for 0 and 1, which have none."""
    if not 0 < probability < 1:
        return None
    return scaling.offset + scaling.factor * (math.log1p(-probability) - math.log(probability))


def scale_of(score: float, cut_off: float, scaling: Scaling, others: Iterable[float]) -> Scale:
    """The scale for one customer.

    Args:
        score: of the customer.
        cut_off: PD from which a customer is refused.
        scaling: of the model.
        others: scores that the scale must have room for, such as the best and the worst known.
    """
    limit = points_at(cut_off, scaling)
    known = [score, *others, *([] if limit is None else [limit])]
    step = next((one for one in STEPS if (max(known) - min(known)) / one <= TICKS - 1), STEPS[-1])
    low, high = math.floor(min(known) / step) * step, math.ceil(max(known) / step) * step
    high = max(high, low + step)

    def mark(points: float) -> Mark:
        return Mark(points, round(MARGIN + (WIDTH - 2 * MARGIN) * (points - low) / (high - low), 1))

    ticks = tuple(mark(low + number * step) for number in range((high - low) // step + 1))
    return Scale(ticks, None if limit is None else mark(limit), mark(score))
