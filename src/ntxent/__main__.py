"""What `ntxent` finds on this machine: backends, versions, devices, and what it would choose.

`chosen` is what `implementation=None` means for a float32 batch on that device, called eagerly.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import ntxent

COLUMNS = ("backend", "version", "device", "chosen", "implementations")


def main() -> None:
    """Print the machine, then a line for each backend's devices; or all of it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m ntxent", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    as_json = parser.parse_args().json
    machine = {
        "ntxent": ntxent.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }
    entries = list(found())
    if as_json:
        print(json.dumps({**machine, "backends": entries}, indent=2))
    else:
        print("ntxent {ntxent}, Python {python}, {system}\n".format(**machine))
        print(table(entries))


def found() -> Iterator[dict[str, Any]]:
    """An entry for each device of each backend, or one that tells what it lacks."""
    for name in ntxent._BACKENDS:
        if name not in ntxent.available_backends():
            yield {"backend": name, "version": None, "install": f'pip install "ntxent[{name}]"'}
            continue
        try:
            yield from devices_of(name)
        except Exception as error:  # noqa: BLE001 a broken one may raise any
            yield {"backend": name, "version": None, "error": f"{type(error).__name__}: {error}"}


def devices_of(name: str) -> list[dict[str, Any]]:
    """An entry for each device of a backend that is installed."""
    ops = import_module(f"ntxent.{name}._operations.backend").OPS
    version = import_module(name).__version__
    entries = []
    for device in ops.devices():
        values = (name, version, device, ops.choose(device), list(ops.IMPLEMENTATIONS))
        entries.append(dict(zip(COLUMNS, values, strict=True)))
    return entries


def table(entries: list[dict[str, Any]]) -> str:
    """The entries below their columns' names."""
    lines = [COLUMNS]
    for entry in entries:
        if "install" in entry:
            lines.append((entry["backend"], "-", "not installed", "-", entry["install"]))
        elif "error" in entry:
            first_line = entry["error"].partition("\n")[0]
            lines.append((entry["backend"], "-", "broken", "-", first_line))
        else:
            *cells, implementations = entry.values()
            lines.append((*cells, ", ".join(implementations)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(map(str.ljust, line, widths)) for line in lines]
    return "\n".join(line.rstrip() for line in padded)


if __name__ == "__main__":
    main()
