"""Parts of pages that scripts write, each between lines that the page doesn't show:

<!-- NAME:start -->
<!-- NAME:end -->

A page is named from the repository's root, as `docs/numerics.md`, or by its whole path.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def read(page: str | Path, part: str) -> str:
    """What stands between the marks of a part."""
    text, _ = filled(page)
    _, inside, _ = around(page, text, part)
    return inside.strip("\n")


def filled(page: str | Path, /, **parts: str) -> tuple[str, str]:
    """The page as it is, and as it should be, with these parts."""
    before = after = (ROOT / page).read_text(encoding="utf-8")
    for part, text in parts.items():
        head, _, tail = around(page, after, part)
        after = f"{head}\n{text}\n{tail}"
    return before, after


def write(page: str | Path, /, **parts: str) -> None:
    """Put these parts into the page."""
    (ROOT / page).write_text(filled(page, **parts)[1], encoding="utf-8")


def around(page: str | Path, text: str, part: str) -> tuple[str, str, str]:
    """The text up to a part, with its mark; the part; and the rest, from the other mark on."""
    start, end = (f"<!-- {part}:{edge} -->" for edge in ("start", "end"))
    if re.findall(f"{start}|{end}", text) != [start, end]:
        msg = f"{page} must have the lines {start} and {end}, once each: add them."
        raise SystemExit(msg)
    before, inside, after = re.split(f"{start}|{end}", text)
    return before + start, inside, end + after
