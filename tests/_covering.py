"""Which cases of a test run: as many of a product as let every two values meet, or fewer.

    @pytest.mark.covering                                        every two
    @pytest.mark.covering(("geometry", "temperature", "dtype"))  and these three too
    @pytest.mark.covering(("name",), ("size", "form"), pairs=False)  each name, and these two, alone

Values are a test's parameters; one that is a named tuple counts as its fields. `--all` runs all.

JAX and TensorFlow compile for seconds what the others run in milliseconds, and the formula is the
same. There every value meets every implementation, if that is a parameter, and is there if not; of
what is named the first two meet, or all with `compiled=True`.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

Parts = Iterable[Any]
COMPILERS = ("jax", "tensorflow")


def chosen(cases: Iterable[Parts]) -> list[int]:
    """Of some cases, each made of parts, the places of so many that no part is missing.

    Each is the one that has most parts which those before it lack; of several the one whose parts
    were met least often, or first values would be everywhere and the last ones once.
    """
    parts = [set(case) for case in cases]
    missing, found = set().union(*parts), []
    met: Counter[Any] = Counter()

    def gain(place: int) -> tuple[int, int]:
        return len(parts[place] & missing), -sum(met[part] for part in parts[place])

    while missing:
        best = max(range(len(parts)), key=gain)
        missing -= parts[best]
        met.update(parts[best])
        found.append(best)
    return sorted(found)


def each_once(cases: Iterable[Any]) -> list[Any]:
    """Cases of a grid, tuples, of whose parts each is still there."""
    grid = list(cases)
    return [grid[place] for place in chosen(map(enumerate, grid))]


def every_two(cases: Iterable[Any]) -> list[Any]:
    """Cases of a grid, tuples, of whose parts every two still meet."""
    grid = list(cases)
    return [grid[i] for i in chosen(itertools.combinations(enumerate(case), 2) for case in grid)]


def values(item: Any) -> dict[str, Any]:
    """What a case is made of, by name."""
    found = {}
    for name, value in item.callspec.params.items():
        if hasattr(value, "_fields"):
            found.update(value._asdict())
        else:
            found[name] = value if value.__hash__ else repr(value)
    return found


def backend_of(item: Any) -> str:
    """The backend that it tests."""
    mark = item.get_closest_marker("only")
    return str(mark.args[0] if mark else item.callspec.params.get("backend", ""))


def parts(
    case: dict[str, Any],
    together: Sequence[Sequence[str]],
    backend: str,
    pairs: bool = True,
    compiled: bool = False,
) -> Parts:
    """What of a case shall be in one that is chosen."""
    if backend in COMPILERS and not compiled:
        together = [names[:2] for names in together]
    if pairs and backend in COMPILERS:
        yield from ((part, case.get("implementation")) for part in case.items())
    elif pairs:
        yield from itertools.combinations(case.items(), 2)
    for names in together:
        yield tuple((name, case[name]) for name in names)


def covering(items: list[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Of the tests that are marked so the chosen cases, of the others all; and what is left out."""
    families: dict[Any, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("covering"):
            families[item.nodeid.split("[")[0], backend_of(item)].append(item)
    left_out: set[str] = set()
    for (_, backend), family in families.items():
        mark = family[0].get_closest_marker("covering")
        kept = chosen(parts(values(item), mark.args, backend, **mark.kwargs) for item in family)
        left_out |= {item.nodeid for item in family} - {family[place].nodeid for place in kept}
    return [x for x in items if x.nodeid not in left_out], [
        x for x in items if x.nodeid in left_out
    ]
