"""Run every ```python block of the README and of the documentation.

python docs/checks/blocks.py [PAGE ...]

The blocks of a page run from top to bottom in one namespace, each page in a process and an empty
folder of its own. A ```text block right after a ```python block is what that block prints, to the
letter. No block is left out: what needs more than one process is an example that the tests run.

Pages may use two batches that nobody would want to read the making of: x1 and x2, arrays of NumPy,
and z1 and z2, the same as tensors of PyTorch that want gradients.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import textwrap
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"(?m)^(?P<margin> *)```(?P<language>.*)\n(?P<code>(?s:.*?))^(?P=margin)```$")
OTHER_PYTHON = re.compile(r"\bi?py|code-cell", re.IGNORECASE)  # which nothing would run


class Block(NamedTuple):
    """A block of Python and, if the page says so, what it prints."""

    line: int  # of its first line of code
    code: str
    prints: str | None


def pages() -> list[Path]:
    """All that may have blocks."""
    written = [page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts]
    return [ROOT / "README.md", *sorted(written)]


def blocks_of(text: str) -> list[Block]:
    """The blocks of Python in a page, in its order."""
    if tilde := re.search(r"^ *~~~", text, re.MULTILINE):
        line = text.count("\n", 0, tilde.start()) + 1
        msg = f"line {line}: a fence is of backticks, or its block is not seen"
        raise ValueError(msg)
    fences, blocks = list(FENCE.finditer(text)), []
    for fence, following in zip_longest(fences, fences[1:]):
        line = text.count("\n", 0, fence.start("code")) + 1
        language = fence["language"].strip()
        if language != "python" and OTHER_PYTHON.search(language):
            msg = f"line {line - 1}: a block of Python begins with ```python, or nothing runs it"
            raise ValueError(msg)
        if language != "python":
            continue
        prints = None
        if following and following["language"].strip() == "text":
            between = text[fence.end() : following.start()]
            prints = None if between.strip() else textwrap.dedent(following["code"])
        blocks.append(Block(line, textwrap.dedent(fence["code"]), prints))
    return blocks


def batches() -> dict[str, Any]:
    """The names that pages may use without having made them."""
    import numpy as np
    import torch

    x1, x2 = np.random.default_rng(0).standard_normal((2, 8, 4)).astype(np.float32)
    z1, z2 = (torch.tensor(x, requires_grad=True) for x in (x1, x2))
    return {"x1": x1, "x2": x2, "z1": z1, "z2": z2}


def run(page: Path, blocks: list[Block]) -> None:
    """All blocks of a page, one after the other; the first that is wrong raises."""
    namespace = {"__name__": "__main__", **batches()}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for block in blocks:
            source = "\n" * (block.line - 1) + block.code  # so that tracebacks name the page's line
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(source, page, "exec"), namespace)  # noqa: S102 the pages are ours
            if block.prints is not None and printed.getvalue() != block.prints:
                msg = (
                    f"{page}:{block.line} printed\n{printed.getvalue()}"
                    f"but the page says\n{block.prints}"
                )
                raise AssertionError(msg)


def raised(page: Path, blocks: list[Block]) -> BaseException | None:
    """What running a page raises, in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh_process:
        return fresh_process.submit(run, page, blocks).exception()


def main(chosen: list[Path]) -> int:
    """Run the pages and print how many blocks each has; how many failed."""
    count = compared = failed = 0
    found = {page: blocks for page in chosen if (blocks := blocks_of(page.read_text()))}
    # As many pages at once as there are cores: each imports its frameworks for most of its time.
    with ThreadPoolExecutor(os.cpu_count()) as side_by_side:
        ends = side_by_side.map(raised, found, found.values())
        for (page, blocks), wrong in zip(found.items(), ends, strict=True):
            prints = sum(block.prints is not None for block in blocks)
            verdict = "failed" if wrong else f"{len(blocks)} blocks ran, {prints} outputs compared"
            print(f"{page.relative_to(ROOT)}: {verdict}", flush=True)
            if wrong:
                print(wrong.__cause__ or wrong)
            failed += wrong is not None
            count, compared = count + len(blocks), compared + prints
    print(f"{count} blocks, {compared} outputs compared, {failed} pages failed")
    return failed


if __name__ == "__main__":
    sys.exit(min(main([Path(name).resolve() for name in sys.argv[1:]] or pages()), 1))
