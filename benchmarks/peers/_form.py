"""What is known of a form before it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Loss = Callable[[Any, Any, float], Any]

CLASSES = 100
# Images beyond these are copies of them: the float64 reference then takes a second at every size.
# No form looks at the values, so none gains by it. (That no tile is mistaken for another is tested
# in tests/, on rows that all differ.)
DISTINCT = 2048


def labels_of(images: int) -> np.ndarray:
    """A class for each image, the same for each of its copies."""
    return np.arange(images) % DISTINCT % CLASSES


@dataclass(frozen=True)
class Form:
    """A form, with what it costs: enough to plan a run that fits the machine and the patience.

    The cost is a step of forward and backward on two cores at d = 128: `call_us`, and `pair_ns`
    and `pair_bytes` for each of the (2N)^2 pairs; above `most_images` the memory is out of reach.
    """

    library: str
    name: str
    label: str
    make: Callable[[], Loss]
    call_us: float
    pair_ns: float
    pair_bytes: float = 0.0
    compiles: bool = False
    loss: str = "nt_xent"
    ours: bool = False
    needs: str = ""  # a package beside the library
    most_images: int = 2**20

    @property
    def key(self) -> str:
        """The name in FORMS, and in results."""
        return f"{self.library}.{self.name}"

    @property
    def distribution(self) -> str:
        """The package that it is from, by its name on PyPI."""
        package = "ntxent" if self.ours else (self.needs or self.library).replace("_", "-")
        return {"info-nce": "info-nce-pytorch"}.get(package, package)

    def seconds(self, images: int) -> float:
        """How long a step will take, roughly."""
        return self.call_us * 1e-6 + self.pair_ns * 1e-9 * (2 * images) ** 2

    def bytes(self, images: int) -> float:
        """How much memory a step will take, roughly; the tiled forms count as nothing."""
        return self.pair_bytes * (2 * images) ** 2
