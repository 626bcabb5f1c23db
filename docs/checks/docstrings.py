"""Every public name has a docstring with its sections, is in the reference, and its examples run.

python docs/checks/docstrings.py     after the pages were built: their inventory says what they have

What is public stands in `__all__`, and of a class what a subclass of ours adds without underscore.
"""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

PARTS = ("torch", "jax", "tensorflow", "numpy", "reference", "plot")
MODULES = ("ntxent", *(f"ntxent.{part}" for part in PARTS))
INVENTORY = Path(__file__).parents[1] / "_build/html/objects.inv"
VARIADIC = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
# These take what they are given, and raise nothing.
UNCHECKED = ("ntxent.reference", "ntxent.available_backends", "ntxent.Diagnostics")


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The public names of a module and of its classes, with what they name."""
    for name in module.__all__:
        if name.startswith("__"):
            continue
        thing = getattr(module, name)
        yield name, thing
        for base in inspect.getmro(thing) if inspect.isclass(thing) else ():
            if base.__module__.startswith(f"{module.__name__}."):
                members = vars(base).items()
                yield from ((f"{name}.{x}", y) for x, y in members if is_method(x, y))


def is_method(name: str, member: Any) -> bool:
    """Public, and a function or a property that can be read."""
    read = type(member) is property and member.fget is not None
    return not name.startswith("_") and (inspect.isfunction(member) or read)


def sections(doc: str) -> dict[str, str]:
    """The sections of a docstring as numpydoc writes them, by their headings."""
    parts = re.split(r"^(\w+)\n-+$", doc, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def parameters(thing: Any) -> list[str]:
    """What its docstring must explain, as it is written there."""
    if type(thing) is property:
        return []
    taken = inspect.signature(thing).parameters.values()
    return [VARIADIC.get(p.kind, "") + p.name for p in taken if p.name != "self"]


def faults_of(name: str, thing: Any, checks: bool) -> Iterator[str]:
    """What the docstring lacks."""
    doc = vars(thing).get("__doc__") if inspect.isclass(thing) else inspect.getdoc(thing)
    if not doc:
        yield "has no docstring"
        return
    found = sections(inspect.cleandoc(doc))
    taken, method = parameters(thing), "." in name
    fields = dataclasses.is_dataclass(thing)  # which are its parameters, too
    heading = "Attributes" if fields else "Parameters"
    needed = [heading] if taken else []
    needed += [] if inspect.isclass(thing) or type(thing) is property else ["Returns"]
    needed += [] if method or fields else ["Examples"]
    needed += ["Raises", "Notes"] if checks and not method else []
    yield from (f"lacks the section {section}" for section in needed if section not in found)
    lines = re.findall(r"^\S.*", found.get(heading, ""), re.MULTILINE)
    explained = [x for line in lines for x in line.split(" : ")[0].split(", ")]
    if explained != taken:
        yield f"explains the {heading.lower()} {explained}, takes {taken}"


def faults(module: ModuleType, built: set[str] | None = None) -> list[str]:
    """What is undocumented in a module; with the names that the pages have, missing ones too."""
    found = []
    for name, thing in public(module):
        whole = f"{module.__name__}.{name}"
        checks = not {module.__name__, whole} & set(UNCHECKED)
        found += [f"{whole} {fault}" for fault in faults_of(name, thing, checks)]
        if built is not None and whole not in built:
            found.append(f"{whole} is not in the reference")
    return found


def run_examples(module: ModuleType) -> tuple[int, int]:
    """How many lines of examples failed, of how many; failures are printed."""
    failed = attempted = 0
    for name, thing in public(module):
        for test in doctest.DocTestFinder(recurse=False).find(thing, name, globs={}):
            result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
            failed, attempted = failed + result.failed, attempted + result.attempted
    return failed, attempted


def names_built(inventory: Path) -> set[str]:
    """The Python names that the built pages describe."""
    *_, packed = inventory.read_bytes().split(b"\n", 4)  # after four lines of heading
    lines = zlib.decompress(packed).decode().splitlines()
    return {line.split(" ")[0] for line in lines if line.split(" ")[1].startswith("py:")}


def main() -> int:
    """Print what is wrong, and the counts; how much is wrong."""
    built, wrong = names_built(INVENTORY), 0
    for name in MODULES:
        module = importlib.import_module(name)
        found = faults(module, built)
        print(*found, sep="\n", end="\n" if found else "")
        failed, attempted = run_examples(module)
        count = len(list(public(module)))
        print(f"{name}: {count} names documented, {attempted} lines of examples", flush=True)
        wrong += len(found) + failed + (attempted == 0)
    print(f"{wrong} faults")
    return wrong


if __name__ == "__main__":
    sys.exit(min(main(), 1))
