"""The claims about speed and size, each with its target and what the last full run gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import report
from benchmarks.cases import SIZES, Setting
from benchmarks.results import Row


@dataclass(frozen=True)
class Claim:
    """One of our forms, at so many images, against the fastest peer or against the floor."""

    ours: str
    images: int
    kind: str  # "faster" and "smaller": peer / ours at least; "floor": ours / floor at most
    target: float
    loss: str = "nt_xent"
    peers: tuple[str, ...] = ()  # those that count; all if empty

    @property
    def text(self) -> str:
        """The claim in words."""
        if self.kind == "floor":
            return f"{self.ours}, N={self.images}: at most {self.target:g} × the floor"
        than = " or ".join(self.peers) or "the fastest peer"
        if self.target < 1:
            return f"{self.ours}, N={self.images}: at most {1 / self.target:g} × {than}'s time"
        return f"{self.ours}, N={self.images}: {self.kind} than {than}, {self.target:g} ×"

    def measured(self, rows: Sequence[Row]) -> float | None:
        """The number to hold against the target; None if a form is missing."""
        setting = Setting(self.ours.split(".")[0], self.loss, self.images)
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

    def holds(self, value: float | None) -> bool:
        """Whether the number meets the target."""
        if value is None:
            return False
        return value <= self.target if self.kind == "floor" else value >= self.target


def never_slower(ours: str, *theirs: str) -> list[Claim]:
    """From 64 images on; below, by a quarter at most."""
    return [
        Claim(ours, images, "faster", 1.0 if images >= 64 else 0.8, peers=theirs)
        for images in SIZES
    ]


TORCH, JAX, NUMPY = "torch.ntxent", "jax.ntxent", "numpy.ntxent"
PLAIN, XLA = "tensorflow.ntxent", "tensorflow.ntxent_xla"
CLAIMS = [
    Claim(TORCH, 256, "faster", 1.3),
    Claim(TORCH, 1024, "faster", 1.5),
    Claim(TORCH, 4096, "faster", 2.5),
    Claim(TORCH, 16384, "faster", 6),
    *(Claim(TORCH, images, "floor", 1.25) for images in (4096, 8192, 16384, 65536)),
    Claim(JAX, 4096, "faster", 2),
    Claim(XLA, 4096, "faster", 2.2),
    Claim(NUMPY, 4096, "faster", 5),
    *never_slower(TORCH),
    *never_slower(NUMPY),
    *never_slower(JAX),
    *never_slower(PLAIN, "tensorflow.simclr"),
    *never_slower(XLA, "tensorflow.simclr_xla"),
    Claim("torch.recomputed", 4096, "smaller", 10, peers=("torch.eager",)),
    Claim(NUMPY, 4096, "smaller", 10, peers=("numpy.matrix",)),
    Claim(PLAIN, 4096, "smaller", 5, peers=("tensorflow.simclr",)),
    Claim("torch.sup_con", 4096, "faster", 3, "sup_con", ("torch.pml_sup_con",)),
    Claim("torch.our_clip", 8192, "faster", 2, "clip", ("torch.clip",)),
]


def verdicts(rows: Sequence[Row]) -> list[tuple[Claim, float | None]]:
    """Each claim with its number."""
    return [(claim, claim.measured(rows)) for claim in CLAIMS]


def table(rows: Sequence[Row]) -> str:
    """In Markdown: what was aimed at, what was measured, and whether it holds."""
    lines = [
        [claim.text, "–" if value is None else f"{value:.2f}", said(claim, value)]
        for claim, value in verdicts(rows)
    ]
    return report.markdown(["aim", "measured", ""], lines)


def said(claim: Claim, value: float | None) -> str:
    """The verdict."""
    return "not measured" if value is None else "holds" if claim.holds(value) else "missed"
