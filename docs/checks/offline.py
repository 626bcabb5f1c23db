"""The built pages load nothing from another host: no script, style, font or picture.

python docs/checks/offline.py     after the pages were built
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

BUILT = Path(__file__).parents[1] / "_build/html"
ELSEWHERE = re.compile(r"(?:https?:)?//")
IN_STYLES = re.compile(r"(?:url\(\s*|@import\s+)[\"']?((?:https?:)?//[^\"')\s]+)")
LINKS = ("a", "area")  # which a reader follows, or not


class Page(HTMLParser):
    """Collects the addresses that a browser asks for by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Whatever has an address and is no link to follow; and styles within the page."""
        for name, value in attrs:
            if name in ("src", "srcset", "href", "data", "poster") and tag not in LINKS:
                self.loaded.append(value or "")
            if name == "style":
                self.loaded += IN_STYLES.findall(value or "")

    def handle_data(self, data: str) -> None:
        """The text of a <style>."""
        if self.cdata_elem == "style":
            self.loaded += IN_STYLES.findall(data)


def faults(path: Path) -> Iterator[str]:
    """The addresses on other hosts."""
    if path.suffix == ".css":
        yield from IN_STYLES.findall(path.read_text())
        return
    page = Page()
    page.feed(path.read_text())
    yield from filter(ELSEWHERE.match, page.loaded)


def main() -> int:
    """Print what pages would ask for; how much."""
    files = sorted([*BUILT.rglob("*.html"), *BUILT.rglob("*.css")])
    found = [f"{path.relative_to(BUILT)} loads {url}" for path in files for url in faults(path)]
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{len(files)} pages and style sheets, {len(found)} load from elsewhere")
    return len(found) + (not files)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
