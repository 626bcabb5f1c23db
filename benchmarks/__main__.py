"""Is it faster and smaller than what I use today, on my machine?

python -m benchmarks --quick           about two minutes on two cores
python -m benchmarks                   everything; says first how long it will take
python -m benchmarks --only jax        one library's part of it, merged into the results;
                                       --sizes 256 1024 some batches' part, likewise
python -m benchmarks --write           tables and figures of README and docs, from the results
python -m benchmarks --check           fail if a page differs from the results

A time that the machine's floor leaves no room for fails each of them: it was measured wrongly.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import cases, claims, figure, marks, measure, pages, peers, report, results
from benchmarks.results import Row

BUSY = """\
Other processes took up to {:.0%} of the cores: times are too long. Run again on an idle machine."""


def main() -> int:
    """Run, or render what a run left."""
    options = parsed()
    path = options.csv or results.FOLDER / ("quick.csv" if options.quick else "full.csv")
    if options.write or options.check:
        return render(results.read(path), write=options.write)
    todo = cases.quick() if options.quick else cases.full()
    if options.only:
        todo = [case for case in todo if case.setting.library == options.only]
    if options.sizes:
        todo = [case for case in todo if case.setting.images in options.sizes]
    rows = run(todo, path, merge=bool(options.only or options.sizes))
    if not options.quick:
        print("\n" + claims.table(rows))
    failed = [row for row in rows if row.failed and peers.FORMS[row.key].ours]
    for row in failed:
        print(f"{row.key} failed at N={row.batch_images}: {row.failed}")
    wrong = report.impossible(rows)
    print("\n".join(wrong))
    return 1 if failed or wrong else 0


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--quick", action="store_true", help="a few sizes and peers")
    choice.add_argument("--write", action="store_true", help="put tables and figures into pages")
    choice.add_argument("--check", action="store_true", help="fail if they aren't there")
    parser.add_argument("--only", choices=("torch", "numpy", "jax", "tensorflow"))
    parser.add_argument("--sizes", type=int, nargs="+", help="batches")
    parser.add_argument("--csv", type=Path, help="the file to write, or to render from")
    return parser.parse_args()


def render(rows: Sequence[Row], *, write: bool) -> int:
    """Write README and the documentation, or say what differs; nothing of rows that can't be."""
    wrong = report.impossible(rows)
    if wrong:
        print("\n".join([*wrong, "Nothing was written."] if write else wrong))
        return 1
    stale = []
    for name, (before, after) in pages.written(rows).items():
        if write:
            (marks.ROOT / name).write_text(after, encoding="utf-8")
        elif before != after:
            stale.append(name)
    if write:
        figure.draw(rows)
    for name in stale:
        print(f"{name} differs from the results: python -m benchmarks --write")
    return 1 if stale else 0


def run(todo: Sequence[cases.Case], path: Path, *, merge: bool) -> list[Row]:
    """All cases, with a line for each form as soon as it is known; the file grows with them."""
    minutes = math.ceil(sum(case.seconds for case in todo) / 60)
    print(f"about {minutes} min on two cores; faster: than the fastest peer of the case")
    print(report.HEADER)
    begun = time.monotonic()
    rows = results.read(path) if merge and path.exists() else []
    busiest = 0.0
    for number, case in enumerate(todo, 1):
        setting = case.setting
        progress(
            f"[{number}/{len(todo)}] {setting.library}, {setting.loss}, N={setting.images} ..."
        )
        clock = results.Clock()
        answers = measure.measured(case)
        busy = clock.others()
        busiest = max(busiest, busy or 0.0)
        found = [results.make_row(key, setting, answer, busy) for key, answer in answers.items()]
        progress("")
        for row in found:
            print(report.line(row, found), flush=True)
        rows = results.merged(rows, found)
        results.write(path, rows)
    print(f"took {(time.monotonic() - begun) / 60:.1f} minutes; written: {path.name}")
    if busiest > 0.1:
        print(BUSY.format(busiest))
    return rows


def progress(text: str) -> None:
    """A line that the next one replaces, on a terminal only."""
    if sys.stdout.isatty():
        print(f"\r{text:<79}\r{text}", end="" if text else "\r", flush=True)


if __name__ == "__main__":
    sys.exit(main())
