"""Which cases of a test run: as many of a full product as let every two of its values meet.

    @pytest.mark.covering                                        every two
    @pytest.mark.covering(("geometry", "temperature", "dtype"))  and these three too
    @pytest.mark.covering(("name",), ("size", "form"), pairs=False)  each name, and these two, alone

Values are a test's parameters; one that is a named tuple counts as its fields. `--all` runs all.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import pytest

Parts = Iterable[Any]


def chosen(count: int, parts_of: Callable[[int], Parts]) -> list[int]:
    """Of so many cases some, in order, which have each part that any has.

    Each is the one that has most parts which those before it lack.
    """
    parts = [set(parts_of(place)) for place in range(count)]
    missing, found = set().union(*parts), []
    while missing:
        best = max(range(count), key=lambda place: len(parts[place] & missing))
        missing -= parts[best]
        found.append(best)
    return sorted(found)


def every_two(cases: Iterable[Any]) -> list[Any]:
    """Cases of a grid, tuples, of whose parts every two still meet."""
    grid = list(cases)
    pairs = lambda place: itertools.combinations(enumerate(grid[place]), 2)  # noqa: E731
    return [grid[place] for place in chosen(len(grid), pairs)]


def values(item: Any) -> dict[str, Any]:
    """What a case is made of, by name."""
    found = {}
    for name, value in item.callspec.params.items():
        if hasattr(value, "_fields"):
            found.update(value._asdict())
        else:
            found[name] = value if value.__hash__ else repr(value)
    return found


def covering(items: list[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Of the tests that are marked so the chosen cases, of the others all; and what is left out."""
    families: dict[Any, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("covering"):
            backend = item.callspec.params.get("backend")
            families[item.nodeid.split("[")[0], backend].append(item)
    left_out: set[str] = set()
    for family in families.values():
        mark = family[0].get_closest_marker("covering")
        together, pairs = mark.args, mark.kwargs.get("pairs", True)
        cases = [values(item) for item in family]

        def parts(
            place: int, cases: Any = cases, together: Any = together, pairs: bool = pairs
        ) -> Parts:
            if pairs:
                yield from itertools.combinations(cases[place].items(), 2)
            for names in together:
                yield tuple((name, cases[place][name]) for name in names)

        kept = chosen(len(family), parts)
        left_out |= {item.nodeid for item in family} - {family[place].nodeid for place in kept}
    return [x for x in items if x.nodeid not in left_out], [
        x for x in items if x.nodeid in left_out
    ]
