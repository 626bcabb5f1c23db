"""The aims about speed and size, each with its target and what the last full run gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import growth, report
from benchmarks.cases import OTHER_SIZES, SIZES, Setting
from benchmarks.results import Row

GROWTH_ROOM = 0.1  # an exponent fitted to four sizes is no better


@dataclass(frozen=True)
class Claim:
    """One of our forms against the fastest peer, the floor or a power of N, at given batches."""

    ours: str
    sizes: tuple[int, ...]
    kind: str  # "faster", "smaller": peer / ours at least; "floor", "time", "memory": at most
    target: float
    loss: str = "nt_xent"
    peers: tuple[str, ...] = ()  # those that count; all of the library if empty

    @property
    def text(self) -> str:
        """The claim in words."""
        least, most = min(self.sizes), max(self.sizes)
        where = f"{self.ours}, N = {least}" + (f" to {most}" if most > least else "")
        than = " or ".join(self.peers) or "the fastest peer"
        return where + {
            "floor": f": time at most {self.target:g} × the floor",
            "time": f": time grows as N to the {self.target:g}",
            "memory": f": memory grows as N to the {self.target:g}, or less",
            "smaller": f": {self.target:g} × smaller than {than}",
            "faster": f": {self.target:g} × as fast as {than}",
        }[self.kind].replace(": 1 × as fast as", ": not slower than")

    def measured(self, rows: Sequence[Row]) -> tuple[float, int] | None:
        """The worst number of all its batches, and at which; None if a form is missing."""
        if self.kind in ("time", "memory"):
            base = Setting(self.ours.split(".")[0], self.loss, 0)
            found = [x for x in growth.exponents(rows, base) if x.key == self.ours]
            exponent = getattr(found[0], self.kind) if found else None
            return None if exponent is None else (exponent, max(found[0].sizes))
        numbers = [(self.number(rows, images), images) for images in self.sizes]
        known = [(number, images) for number, images in numbers if number is not None]
        if len(known) < len(self.sizes):
            return None
        return max(known) if self.kind == "floor" else min(known)

    def number(self, rows: Sequence[Row], images: int) -> float | None:
        """At one batch."""
        setting = Setting(self.ours.split(".")[0], self.loss, images)
        row = report.of(rows, setting, self.ours)
        if row is None:
            return None
        if self.kind == "floor":
            return report.over(row.runtime_ms, row.floor_ms)
        theirs = [row for row in rows if not self.peers or row.key in self.peers]
        if self.kind == "smaller":
            found = [row.peak_mib for row in theirs if row.setting == setting and row.peak_mib]
            return report.over(min(found, default=None), row.peak_mib)
        best = report.fastest_peer(setting, theirs)
        return report.over(best.runtime_ms if best else None, row.runtime_ms)

    def holds(self, value: float) -> bool:
        """Whether the number meets the target."""
        if self.kind in ("time", "memory"):
            return value <= self.target + GROWTH_ROOM
        return value <= self.target if self.kind == "floor" else value >= self.target


def never_slower(ours: str, *theirs: str) -> list[Claim]:
    """From 64 images on; below, by a quarter at most."""
    small, others = tuple(n for n in SIZES if n < 64), tuple(n for n in SIZES if n >= 64)
    return [
        Claim(ours, small, "faster", 0.8, peers=theirs),
        Claim(ours, others, "faster", 1.0, peers=theirs),
    ]


def other_loss(ours: str, loss: str) -> list[Claim]:
    """At 64 images a fifth slower at most, from there on never."""
    return [
        Claim(ours, OTHER_SIZES[:1], "faster", 0.8, loss),
        Claim(ours, OTHER_SIZES[1:], "faster", 1, loss),
    ]


TORCH, COMPILED, JAX, NUMPY = "torch.ntxent", "torch.ntxent_compiled", "jax.ntxent", "numpy.ntxent"
PLAIN, XLA = "tensorflow.ntxent", "tensorflow.ntxent_xla"
EAGER = tuple(f"torch.{name}" for name in ("eager", "mask", "row_maximum", "lightly", "pml"))
CLAIMS = [
    Claim(TORCH, (16,), "faster", 0.85),
    Claim(TORCH, (32,), "faster", 0.9),
    Claim(TORCH, (64,), "faster", 1),
    Claim(TORCH, (128,), "faster", 1.2),
    Claim(TORCH, (256,), "faster", 1.3),
    Claim(TORCH, (1024,), "faster", 1.5),
    Claim(TORCH, (4096,), "faster", 3.2),
    Claim(TORCH, (16384,), "faster", 2.7),
    Claim(TORCH, (16384,), "faster", 6),
    Claim(TORCH, (2048, 4096, 8192, 16384, 65536), "floor", 1.15),
    Claim(JAX, (4096,), "faster", 2),
    Claim(XLA, (4096,), "faster", 2.2, peers=("tensorflow.simclr_xla",)),
    Claim(NUMPY, (4096,), "faster", 5),
    *never_slower(TORCH),
    *never_slower(TORCH, *EAGER),
    *never_slower(COMPILED),
    *never_slower(NUMPY),
    *never_slower(JAX),
    *never_slower(PLAIN, "tensorflow.simclr"),
    *never_slower(XLA, "tensorflow.simclr_xla"),
    *(Claim(ours, (16384,), "time", 2) for ours in (TORCH, JAX, PLAIN, NUMPY)),
    *(Claim(ours, (16384,), "memory", 1) for ours in (TORCH, JAX, PLAIN, NUMPY)),
    Claim("torch.recomputed", (4096,), "smaller", 10, peers=("torch.eager",)),
    Claim(NUMPY, (4096,), "smaller", 10, peers=("numpy.matrix",)),
    Claim(PLAIN, (4096,), "smaller", 5, peers=("tensorflow.simclr",)),
    *other_loss("torch.sup_con", "sup_con"),
    *other_loss("torch.our_clip", "clip"),
    *other_loss("torch.info_nce", "info_nce"),
    Claim("torch.sup_con", (4096,), "faster", 3, "sup_con", ("torch.pml_sup_con",)),
    Claim("torch.our_clip", (8192,), "faster", 2, "clip", ("torch.clip",)),
]


def table(rows: Sequence[Row]) -> str:
    """In Markdown: what was aimed at, the worst that was measured, and whether it holds."""
    return report.markdown(["aim", "measured", ""], [line(claim, rows) for claim in CLAIMS])


def line(claim: Claim, rows: Sequence[Row]) -> list[str]:
    """A claim, its number, the verdict."""
    found = claim.measured(rows)
    if found is None:
        return [claim.text, "–", "not measured"]
    value, images = found
    where = f" (N = {images})" if len(claim.sizes) > 1 else ""
    return [claim.text, f"{value:.2f}{where}", "holds" if claim.holds(value) else "missed"]
