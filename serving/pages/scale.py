"""The geometry of the scale of points with the cut-off and a customer. Drawing belongs in the
template.
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
"""The label of a mark that is nearer to an edge than this starts, or ends, at the mark."""


@dataclass(frozen=True)
class Mark:
    """A place on the scale: points and coordinate."""

    points: float
    x: float

    @property
    def anchor(self) -> str:
        """The part of its label at the mark, as SVG's `text-anchor`."""
        if self.x < NEAR_THE_EDGE:
            return "start"
        return "end" if self.x > WIDTH - NEAR_THE_EDGE else "middle"


@dataclass(frozen=True)
class Scale:
    """Ticks from left (riskier) to right (safer), the customer, and the cut-off; None if every PD
    is on one side of it.
    """

    ticks: tuple[Mark, ...]
    cut_off: Mark | None
    customer: Mark

    @property
    def start(self) -> float:
        """The left end."""
        return self.ticks[0].x

    @property
    def end(self) -> float:
        """The right end."""
        return self.ticks[-1].x


def points_at(probability: float, scaling: Scaling) -> float | None:
    """The score of a PD; None for 0 and 1, which have no score."""
    if not 0 < probability < 1:
        return None
    return scaling.offset + scaling.factor * (math.log1p(-probability) - math.log(probability))


def scale_of(score: float, cut_off: float, scaling: Scaling, others: Iterable[float]) -> Scale:
    """The scale for one customer.

    Args:
        score: of the customer.
        cut_off: PD from which a customer is refused.
        scaling: of the model.
        others: more scores that the scale must include, such as the best and the worst known.
    """
    limit = points_at(cut_off, scaling)
    scores = [score, *others, *([] if limit is None else [limit])]
    lowest, highest = min(scores), max(scores)
    step = next((step for step in STEPS if (highest - lowest) / step <= TICKS - 1), STEPS[-1])
    low, high = math.floor(lowest / step) * step, math.ceil(highest / step) * step
    high = max(high, low + step)

    def mark(points: float) -> Mark:
        return Mark(points, round(MARGIN + (WIDTH - 2 * MARGIN) * (points - low) / (high - low), 1))

    ticks = tuple(mark(low + number * step) for number in range((high - low) // step + 1))
    return Scale(ticks, None if limit is None else mark(limit), mark(score))
