"""Thresholds in float32: scikit-learn splits in float64, and the graph compares in float32."""

import numpy as np
from numpy.typing import NDArray


def float32_floor(exact: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round down to float32.

    For a float32 value x, x <= t holds exactly when x <= the largest float32 not above t, so
    rounding thresholds down changes no answer. Rounding to nearest may land on the larger of two
    neighbouring values and send it the other way (observed: a PD off by 0.0058).
    """
    nearest = exact.astype(np.float32)
    return np.asarray(
        np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    )
