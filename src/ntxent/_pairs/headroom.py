"""When exp of a score needs no shift, for every backend.

For rows of length at most 1, |score| <= scale. Unshifted, a tile needs one exp for rows and columns
together, forward and backward; a running maximum costs one for each and passes over the tile
besides.
"""

from __future__ import annotations

import math
from typing import Any

# scale + log n up to which nothing leaves the dtype's range: exp(1.5 * 46) = 9e29 in float32,
# exp(1.5 * 460) = 5e299 in float64; 1.5 is explained at `lift`. What is left in float32 is for the
# upstream, which a loss scaler may have made 1e8.
ROOM = {4: 46.0, 8: 460.0}


def needs_shift(itemsize: int, scale: float, keys: int, unit: bool) -> bool:
    """Whether the exponential of a score, or a sum of n of them, may leave the dtype's range."""
    return not (unit and scale + math.log(keys) <= ROOM[itemsize])


def lift(scale: Any) -> Any:
    """The exponent of what the unshifted gradient's factor is multiplied by: r = g exp(lift) / sum.

    Where views are close g is small and 1 / sum too, down to exp(-scale) / n for both together:
    subnormal under a small upstream. Where positives are far r is up to exp(scale). scale / 2
    leaves room on both sides, up to exp(1.5 scale); `weight_scale` takes it back.
    """
    return scale / 2


def weight_scale(scale: float, shifted: bool) -> float:
    """The factor between the products with the weights and the gradient."""
    return scale if shifted else scale * math.exp(-lift(scale))
