"""What is measured: losses, sizes, dtypes, forms, how long, and how long that will take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import peers

LONG_STEP_S = 10.0  # from here a form runs once, for time, memory and error together
PATIENCE_S = 100.0  # a form that needs longer for a step is left out, with a row that says so
SMALLEST_MEMORY = 256  # images; below, a matrix is smaller than the kernel's counting of pages
START_S = {"torch": 3.0, "jax": 2.0, "tensorflow": 7.0, "numpy": 0.5}
COMPILE_S = 6.0


@dataclass(frozen=True)
class Setting:
    """One problem, the same for all forms that are compared on it."""

    library: str
    loss: str
    images: int
    columns: int = 128
    dtype: str = "float32"
    temperature: float = 0.5
    backward: bool = True
    threads: int = 2


@dataclass(frozen=True)
class Case:
    """Forms on one problem, which take turns."""

    setting: Setting
    forms: tuple[str, ...]  # keys of peers.FORMS
    budget_s: float = 3.0
    memory: bool = False  # whether the peaks are measured too

    def step_s(self, key: str) -> float:
        """How long a step of a form will take, roughly: half of it grows with d."""
        form, setting = peers.FORMS[key], self.setting
        return form.seconds(setting.images) * (0.5 + setting.columns / 256) * 2 / setting.threads

    def once(self, key: str) -> bool:
        """Whether a step is so long that one run must serve for everything."""
        return self.step_s(key) > LONG_STEP_S

    @property
    def seconds(self) -> float:
        """How long the case will take on two cores, roughly."""
        total, rounds = START_S[self.setting.library], 0.0  # the ceilings have a process too
        for key in self.forms:
            if missing(self, key):
                continue
            step, compiling = self.step_s(key), COMPILE_S * peers.FORMS[key].compiles
            runs = 2 if self.memory and not self.once(key) else 1
            first = START_S[self.setting.library] + compiling + (2 if compiling else 1) * step
            total += runs * first
            rounds += 0.0 if self.once(key) else max(step, 0.03)
        return total + (max(self.budget_s, 3 * rounds) if rounds else 0.0)


def case(library: str, loss: str, images: int, *forms: str, **rest: Any) -> Case:
    """All forms of a loss, or those named, on so many images."""
    budget_s, memory = rest.pop("budget_s", 3.0), rest.pop("memory", False)
    keys = tuple(f"{library}.{form}" for form in forms) or peers.of(library, loss)
    setting = Setting(library, loss, images, **rest)
    return Case(setting, keys, float(budget_s), bool(memory) and images >= SMALLEST_MEMORY)


SIZES = tuple(2**power for power in range(4, 15))  # 16 ... 16384
FEWER_SIZES = SIZES[::2]  # 16, 64, 256 ... for forms that are nowhere near the fastest
OTHER_SIZES = (64, 256, 1024, 4096)  # of the other losses
FEWER = (
    *("torch.mask", "torch.row_maximum", "torch.lightly", "torch.pml", "torch.recomputed"),
    *("jax.optax", "jax.dense", "numpy.dense"),
)
# These compile for every size, for seconds each.
SLOW_COMPILED = ("torch.mask_compiled", "torch.row_maximum_compiled", "torch.lightly_compiled")
MAIN = ("eager", "eager_compiled", "ntxent", "ntxent_compiled")


def full() -> list[Case]:
    """Every power of two from 16 to 16384, and 65536 as far as each form gets; then the rest."""
    cases = [
        case(library, "nt_xent", images, memory=images in FEWER_SIZES)
        for library in ("torch", "numpy", "jax", "tensorflow")
        for images in SIZES
    ]
    cases = [without(case, FEWER, FEWER_SIZES) for case in cases]
    cases = [without(case, SLOW_COMPILED, (256, 4096)) for case in cases]
    cases += [case("torch", "nt_xent", 65536, "eager", "ntxent", memory=True)]
    for loss in ("sup_con", "clip", "info_nce"):
        cases += [case("torch", loss, n, memory=n == 4096) for n in OTHER_SIZES]
    cases += [case("torch", "clip", 8192, "clip", "clip_compiled", "our_clip", memory=True)]
    return cases + varied()


def varied() -> list[Case]:
    """One thing at a time changed: widths, dtypes, temperatures, threads, forward alone."""
    changes: list[dict[str, Any]] = [
        *({"columns": columns} for columns in (64, 512, 2048)),
        *({"dtype": dtype} for dtype in ("bfloat16", "float16", "float64")),
        *({"temperature": temperature} for temperature in (0.05, 0.01)),
        {"threads": 1},
        {"backward": False},
    ]
    return [case("torch", "nt_xent", n, *MAIN, **change) for change in changes for n in (256, 1024)]


def quick() -> list[Case]:
    """What takes two minutes on two cores."""
    short = ("eager", "lightly", "pml", "ntxent")
    cases = [case("torch", "nt_xent", n, *short, budget_s=1.5) for n in (64, 256)]
    cases += [case("torch", "nt_xent", 1024, *MAIN[:3], budget_s=1.5)]
    cases += [case("torch", "nt_xent", 4096, "eager", "ntxent", budget_s=3, memory=True)]
    cases += [case("torch", "sup_con", 1024, "pml_sup_con", "sup_con", budget_s=1.5)]
    cases += [case("torch", "clip", 1024, "clip", "our_clip", budget_s=1.5)]
    cases += [case("numpy", "nt_xent", 1024, budget_s=1.5)]
    cases += [case("jax", "nt_xent", 1024, "jitted", "ntxent", budget_s=1.5)]
    cases += [case("tensorflow", "nt_xent", 1024, "simclr_xla", "ntxent_xla", budget_s=1.5)]
    return cases


def without(case: Case, keys: Iterable[str], but_at: Iterable[int]) -> Case:
    """The case without some forms, unless it is of one of those sizes."""
    if case.setting.images in but_at:
        return case
    return replace(case, forms=tuple(key for key in case.forms if key not in keys))


def missing(case: Case, key: str) -> str:
    """Why a form can't run a case here; empty if it can.

    It must leave a tenth of the free memory free: a machine that swaps measures its disk.
    """
    form, images = peers.FORMS[key], case.setting.images
    for package in (form.library, form.needs):
        if package and not peers.installed(package):
            return f"{package} is not installed"
    needed, there = form.bytes(images), available_bytes()
    if images > form.most_images:
        return "needs more memory than there is"
    if needed > 0.9 * there:
        return f"needs {needed / 2**30:.0f} GiB of memory, {there / 2**30:.0f} are free"
    if case.step_s(key) > PATIENCE_S:
        return f"a step would take {case.step_s(key) / 60:.0f} minutes"
    return ""


def available_bytes() -> float:
    """Memory that can be had without swapping; no limit where the system doesn't say."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return float("inf")
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024.0
