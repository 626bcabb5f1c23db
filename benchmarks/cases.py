"""What is measured: sizes, forms, how often, and how long that will take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import peers

COLUMNS = 128
TEMPERATURE = 0.5
THREADS = 2
DTYPE = "float32"
LONG_STEP_S = 30.0  # from here a form runs once, for time, memory and error together
SMALLEST_MEMORY = 256  # images; below, a matrix is smaller than the kernel's counting of pages


@dataclass(frozen=True)
class Case:
    """Forms of one library on one batch, which take turns."""

    library: str
    images: int
    forms: tuple[str, ...]  # keys of peers.FORMS
    repeats: int
    memory: tuple[str, ...] = ()  # the forms whose peak is measured too

    @property
    def once(self) -> bool:
        """Whether a step is so long that one run must serve for everything."""
        return max(peers.FORMS[key].seconds(self.images) for key in self.forms) > LONG_STEP_S

    @property
    def seconds(self) -> float:
        """How long the case will take on two cores, roughly."""
        forms = [peers.FORMS[key] for key in self.forms]
        start = {"torch": 3.0, "jax": 2.0, "tensorflow": 8.0}.get(self.library, 0.5)
        compiling = 10.0 * any(form.compiles for form in forms)
        steps = sum(form.seconds(self.images) for form in forms)
        if self.once:
            return start * len(forms) + steps
        timing = start + compiling + steps * (self.repeats + warmups(self.repeats))
        return timing + sum(
            start + form.seconds(self.images) + form.compiles * (5 + form.seconds(self.images))
            for form in (peers.FORMS[key] for key in self.memory)
        )

    def lasting(self, budget_s: float) -> Case:
        """The case with as many repeats as the time allows, at most those that it has."""
        step = sum(peers.FORMS[key].seconds(self.images) for key in self.forms)
        repeats = min(self.repeats, int(budget_s / step))
        return replace(self, repeats=max(repeats, 3 if step < LONG_STEP_S else 1))


def warmups(repeats: int) -> int:
    """Rounds that aren't counted; the first is the check of the results."""
    return 1 + repeats // 20


def plan(sizes: dict[tuple[str, str], Iterable[int]], budget_s: float, most: int) -> list[Case]:
    """A case for each library, loss and size, repeated for about so many seconds."""
    cases = []
    for (library, loss), batches in sizes.items():
        keys = tuple(
            key for key, form in peers.FORMS.items() if (form.library, form.loss) == (library, loss)
        )
        for images in batches:
            memory = keys if images >= SMALLEST_MEMORY else ()
            cases.append(Case(library, images, keys, most, memory))
    return [case.lasting(budget_s) for case in possible(cases)]


def possible(cases: Iterable[Case]) -> list[Case]:
    """The cases whose library is installed, without the forms that don't fit into memory."""
    cases, found = list(cases), []
    for library in dict.fromkeys(case.library for case in cases):
        if not peers.installed(library):
            print(f"{library} is not installed: left out")
    for case in cases:
        if peers.installed(case.library):
            forms, memory = (fitting(keys, case.images) for keys in (case.forms, case.memory))
            found.append(replace(case, forms=forms, memory=memory))
    return [case for case in found if case.forms]


def fitting(keys: tuple[str, ...], images: int) -> tuple[str, ...]:
    """Those that leave a tenth of the free memory free; a machine that swaps measures its disk."""
    room = 0.9 * available_bytes()
    return tuple(key for key in keys if peers.FORMS[key].bytes(images) <= room)


def available_bytes() -> float:
    """Memory that can be had without swapping; no limit where the system doesn't say."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return float("inf")
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024.0


def full() -> list[Case]:
    """Every power of two from 16 to 65536, as far as each form gets."""
    sizes = [2**power for power in range(4, 17)]
    return plan(dict.fromkeys(peers.BASELINES, sizes), budget_s=8, most=3000)


def quick() -> list[Case]:
    """Four sizes, about two minutes on two cores."""
    sizes = {
        ("torch", "nt_xent"): [64, 256, 1024, 4096],
        ("torch", "sup_con"): [256, 1024],
        ("torch", "info_nce"): [256, 1024],
        ("numpy", "nt_xent"): [256, 1024],
        ("jax", "nt_xent"): [256],
        ("tensorflow", "nt_xent"): [256, 1024],
    }
    return plan(sizes, budget_s=3, most=500)


def views(images: int) -> list[np.ndarray]:
    """Two views of so many images, the same for every form and run."""
    random = np.random.default_rng(0)
    shape = min(images, peers.DISTINCT), COLUMNS
    distinct = [random.standard_normal(shape).astype(DTYPE) for _ in range(2)]
    return [np.tile(view, (copies(images), 1)) for view in distinct]


def copies(images: int) -> int:
    """How often each distinct image is there."""
    if images > peers.DISTINCT and images % peers.DISTINCT:
        msg = f"more than {peers.DISTINCT} images must be a multiple of it; got {images}"
        raise ValueError(msg)
    return max(1, images // peers.DISTINCT)
