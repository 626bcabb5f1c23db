"""`python -m ntxent`: which backends are installed, their devices, and what they would choose."""

from __future__ import annotations

import platform
from importlib import import_module
from importlib.metadata import version

import ntxent


def main() -> None:
    """Print one line for the machine and one for each backend."""
    print(f"ntxent {ntxent.__version__}, Python {platform.python_version()}, {platform.system()}")
    for name in ntxent.available_backends():
        ops = import_module(f"ntxent.{name}._ops").OPS
        for device in ops.devices():
            print(
                f"  ntxent.{name} ({name} {version(name)}) on {device}: implementation=None means "
                f'"{ops.choose(device)}" of {", ".join(ops.IMPLEMENTATIONS)}'
            )


if __name__ == "__main__":
    main()
