"""The short lists of blocks among which a first launch chooses (`blocks.choose`).

By generation, then by product, then by the longest row that they serve. `(9, 0)`, Hopper, has the
fastest cuts of `python -m benchmarks.gpu_blocks` on an H100 and some for smaller batches. `(8, 0)`,
all others, was chosen by registers and shared memory, which `python tests/kernels.py` tells: the
first of a list fits the smallest of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton


class Blocks(NamedTuple):
    """What one program does at a time."""

    rows: int
    columns: int  # of a tile of scores
    dim: int  # elements of a row, for scores
    out: int  # elements of the gradient
    warps: int
    stages: int  # of the pipeline that loads ahead

    def constants(self, dim: int) -> dict[str, Any]:
        """Of both kernels, for rows of so many elements."""
        part = min(self.dim, whole(dim))
        return {"ROWS": self.rows, "COLUMNS": self.columns, "DIM": part, "WHOLE": dim <= part}


def whole(dim: int) -> int:
    """A power of two that holds a row; matrix instructions take 16 elements at least."""
    return max(16, int(triton.next_power_of_2(dim)))


def generation(capability: tuple[int, int]) -> tuple[int, int]:
    """Whose lists serve a device."""
    return (9, 0) if capability[0] == 9 else (8, 0)


Table = dict[str, dict[int, list[Blocks]]]

FORWARD: dict[tuple[int, int], Table] = {
    (8, 0): {
        "half": {
            128: [Blocks(128, 64, 128, 0, 8, 2), Blocks(64, 64, 128, 0, 4, 2)],
            256: [Blocks(128, 64, 64, 0, 8, 3), Blocks(128, 64, 256, 0, 8, 2)],
            1024: [Blocks(128, 64, 64, 0, 8, 3), Blocks(64, 64, 64, 0, 4, 2)],
        },
        "tf32": {
            128: [Blocks(64, 64, 128, 0, 4, 2), Blocks(128, 64, 128, 0, 8, 2)],
            1024: [Blocks(128, 64, 32, 0, 8, 3)],
        },
        "float32": {1024: [Blocks(64, 32, 16, 0, 4, 1), Blocks(64, 64, 16, 0, 4, 1)]},
    },
    (9, 0): {
        "half": {
            128: [Blocks(64, 128, 128, 0, 4, 3), Blocks(64, 64, 128, 0, 4, 3)],
            256: [Blocks(128, 64, 256, 0, 8, 2), Blocks(64, 64, 256, 0, 4, 2)],
            1024: [Blocks(128, 128, 64, 0, 8, 3), Blocks(64, 128, 64, 0, 4, 3)],
        },
        "tf32": {
            128: [Blocks(128, 128, 128, 0, 8, 2), Blocks(128, 64, 128, 0, 8, 3)],
            1024: [Blocks(128, 128, 64, 0, 8, 2), Blocks(128, 64, 64, 0, 8, 3)],
        },
        "float32": {
            1024: [
                Blocks(128, 64, 32, 0, 8, 2),
                Blocks(128, 128, 32, 0, 8, 2),
                Blocks(64, 64, 32, 0, 4, 2),
            ]
        },
    },
}
BACKWARD: dict[tuple[int, int], Table] = {
    (8, 0): {
        "half": {
            16: [Blocks(64, 64, 16, 16, 8, 2), Blocks(64, 32, 16, 16, 4, 2)],
            128: [Blocks(64, 64, 128, 128, 4, 2), Blocks(128, 64, 128, 128, 8, 2)],
            256: [Blocks(64, 64, 256, 256, 8, 2), Blocks(64, 32, 256, 256, 8, 2)],
            1024: [Blocks(64, 64, 64, 256, 8, 2), Blocks(64, 32, 64, 256, 8, 2)],
        },
        "tf32": {
            128: [Blocks(64, 32, 128, 128, 8, 1)],
            1024: [Blocks(64, 64, 32, 256, 8, 2), Blocks(64, 32, 32, 256, 8, 2)],
        },
        "float32": {
            32: [Blocks(32, 32, 16, 32, 4, 2), Blocks(64, 32, 16, 32, 8, 2)],
            1024: [Blocks(32, 32, 16, 64, 8, 1)],
        },
    },
    (9, 0): {
        "half": {
            128: [Blocks(64, 128, 128, 128, 4, 1), Blocks(64, 64, 128, 128, 4, 2)],
            256: [Blocks(64, 64, 256, 256, 8, 2), Blocks(64, 32, 256, 256, 8, 2)],
            1024: [Blocks(128, 64, 64, 256, 8, 3), Blocks(64, 128, 64, 256, 8, 3)],
        },
        "tf32": {
            128: [Blocks(128, 64, 128, 128, 8, 1), Blocks(128, 32, 128, 128, 8, 1)],
            1024: [Blocks(128, 64, 64, 256, 8, 2), Blocks(128, 32, 32, 256, 8, 2)],
        },
        "float32": {
            128: [
                Blocks(128, 64, 32, 128, 8, 1),
                Blocks(128, 32, 32, 128, 8, 1),
                Blocks(64, 64, 32, 128, 8, 1),
            ],
            1024: [
                Blocks(128, 64, 32, 256, 8, 1),
                Blocks(128, 32, 32, 256, 8, 1),
                Blocks(64, 64, 32, 256, 8, 1),
            ],
        },
    },
}
