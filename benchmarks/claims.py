"""The claims about speed and size, each with its target and what this machine gives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks import peers, report
from benchmarks.cases import Case
from benchmarks.report import Row

EAGER, COMPILED, OURS = "torch.eager", "torch.compiled", "torch.ntxent"
RECOMPUTED = "torch.recomputed"
DENSE, TILED = "numpy.dense", "numpy.tiled"
JAX_DENSE, JAX_SOFTPLUS, OPTAX = "jax.dense", "jax.softplus", "jax.optax"
JAX = "jax.ntxent"
SIMCLR, SIMCLR_XLA = "tensorflow.simclr", "tensorflow.simclr_xla"
PML, SUP_CON, CLIP, INFO_NCE = (
    f"torch.{name}" for name in ("pml_sup_con", "sup_con", "clip", "info_nce")
)
TENSORFLOW, TENSORFLOW_XLA = "tensorflow.ntxent", "tensorflow.ntxent_xla"

# What the claims need and no more. Calls of less than a millisecond want thousands of repeats.
CASES = [
    *(Case("torch", images, (EAGER, OURS), 3000) for images in (16, 32, 64, 128)),
    Case("torch", 256, (EAGER, OURS), 600),
    Case("torch", 4096, (EAGER, COMPILED, OURS), 5, (EAGER, OURS, RECOMPUTED)),
    Case("torch", 16384, (EAGER, COMPILED, OURS), 1),
    Case("torch", 4096, (PML, SUP_CON), 3, (PML, SUP_CON)),  # 8192 rows
    Case("torch", 8192, (CLIP, INFO_NCE), 3, (CLIP, INFO_NCE)),
    Case("numpy", 4096, (DENSE, TILED), 3, (DENSE, TILED)),
    Case("torch", 65536, (OURS,), 1, (OURS,)),
    # on its own: what follows the release of its 8 GiB waits for it
    Case("jax", 1024, (OPTAX,), 2, (OPTAX,)),
    Case("jax", 1024, (JAX_DENSE, JAX), 30, (JAX,)),
    Case("jax", 4096, (JAX_DENSE, JAX_SOFTPLUS, JAX), 7, (JAX_DENSE, JAX)),
    Case("jax", 16384, (JAX_DENSE, JAX_SOFTPLUS, JAX), 2),
    Case(
        "tensorflow",
        4096,
        (SIMCLR, TENSORFLOW, SIMCLR_XLA, TENSORFLOW_XLA),
        5,
        (SIMCLR, TENSORFLOW, SIMCLR_XLA, TENSORFLOW_XLA),
    ),
]


@dataclass(frozen=True)
class Claim:
    """`ours` against the best of `theirs`, or against nothing, at so many images."""

    images: int
    quantity: str  # a field of Row
    ours: str
    theirs: tuple[str, ...]
    sense: str  # "faster" and "smaller": theirs / ours at least; "at most": ours (/ theirs)
    target: float

    @property
    def text(self) -> str:
        """The claim in words."""
        ours = peers.FORMS[self.ours].label
        theirs = " and ".join(peers.FORMS[key].label for key in self.theirs)
        what = {"runtime_ms": "time", "peak_mib": "peak"}[self.quantity]
        unit = "×" if self.theirs else " MiB"
        sense = self.sense if self.sense == "at most" else f"{self.sense} by at least"
        against = f" that of {theirs}" if self.theirs else ""
        return f"N={self.images}: {what} of {ours} {sense} {self.target:g}{unit}{against}"

    def measured(self, rows: dict[tuple[str, int], Row]) -> float | None:
        """The number to hold against the target; None if a form is missing."""
        found = []
        for key in (self.ours, *self.theirs):
            row = rows.get((key, self.images))
            value: float | None = getattr(row, self.quantity, None)
            if value is None:
                return None
            found.append(value)
        ours, *theirs = found
        if not theirs:
            return ours
        return ours / min(theirs) if self.sense == "at most" else min(theirs) / ours

    def holds(self, value: float | None) -> bool:
        """Whether the number meets the target."""
        if value is None:
            return False
        return value <= self.target if self.sense == "at most" else value >= self.target


CLAIMS = [
    *(Claim(n, "runtime_ms", OURS, (EAGER,), "at most", 1.25) for n in (16, 32)),
    *(Claim(n, "runtime_ms", OURS, (EAGER,), "at most", 1.0) for n in (64, 128)),
    Claim(256, "runtime_ms", OURS, (EAGER,), "faster", 1.4),
    Claim(4096, "runtime_ms", OURS, (EAGER, COMPILED), "faster", 2.3),
    Claim(4096, "peak_mib", RECOMPUTED, (EAGER,), "smaller", 10),
    Claim(16384, "runtime_ms", OURS, (EAGER, COMPILED), "faster", 5),
    Claim(4096, "runtime_ms", TILED, (DENSE,), "faster", 4),
    Claim(4096, "peak_mib", TILED, (DENSE,), "smaller", 10),
    Claim(65536, "peak_mib", OURS, (), "at most", 512),
    Claim(4096, "runtime_ms", SUP_CON, (PML,), "faster", 3),
    Claim(4096, "peak_mib", SUP_CON, (PML,), "smaller", 10),
    Claim(8192, "runtime_ms", INFO_NCE, (CLIP,), "faster", 2),
    Claim(8192, "peak_mib", INFO_NCE, (CLIP,), "smaller", 10),
    Claim(1024, "runtime_ms", JAX, (OPTAX,), "faster", 100),
    Claim(1024, "peak_mib", JAX, (OPTAX,), "smaller", 50),
    Claim(4096, "runtime_ms", JAX, (JAX_DENSE, JAX_SOFTPLUS), "faster", 1.8),
    Claim(16384, "runtime_ms", JAX, (JAX_DENSE, JAX_SOFTPLUS), "faster", 2.2),
    Claim(4096, "runtime_ms", TENSORFLOW, (SIMCLR,), "faster", 1.6),
    Claim(4096, "runtime_ms", TENSORFLOW_XLA, (SIMCLR_XLA,), "faster", 2),
    Claim(4096, "peak_mib", TENSORFLOW, (SIMCLR,), "smaller", 5),
    Claim(4096, "peak_mib", TENSORFLOW_XLA, (SIMCLR_XLA,), "smaller", 5),
]


def verdicts(rows: Iterable[Row]) -> tuple[list[str], bool]:
    """A line for each claim, and whether all hold."""
    found = {(report.key_of(row), row.batch_images): row for row in rows}
    lines, held = [], True
    for claim in CLAIMS:
        value = claim.measured(found)
        holds = claim.holds(value)
        held &= holds
        number = "not measured" if value is None else f"{value:.3g}"
        lines.append(f"{'holds ' if holds else 'MISSED'}  measured {number:>12}   {claim.text}")
    return lines, held
