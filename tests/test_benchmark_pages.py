"""Tables and figures of the pages are those of the results, and are put between their marks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import figure, marks, pages, results

torch_alone = pytest.mark.only("torch")  # one session is enough


@pytest.mark.parametrize("text", ["", "| old |", "| a |\n\n| b |"])
def test_a_part_of_a_page_is_replaced_and_no_more(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    before, after = "before\n<!-- tune:start -->\n", "\n<!-- tune:end -->\n\nafter\n"
    page.write_text(before + text + after)
    assert marks.read(page, "tune") == text
    marks.write(page, tune="| new |")
    assert page.read_text() == before + "| new |" + after
    changed = before + "| new |" + after, before + text + after
    assert marks.filled(page, tune=text) == changed


@pytest.mark.parametrize(
    "edges", ["", "start", "end", "end start", "start start end", "start end end"]
)
def test_a_page_without_both_marks_once_is_refused(edges: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "\n".join(["before", *(f"<!-- tune:{edge} -->" for edge in edges.split()), "after"])
    page.write_text(text)
    with pytest.raises(SystemExit, match=r"page\.md must have the lines"):
        marks.write(page, tune="| new |")
    assert page.read_text() == text


@torch_alone
def test_pages_are_those_of_the_results() -> None:
    """README's table, and every table of docs/performance.md, made by a script, never by hand."""
    stored = results.read(results.FOLDER / "full.csv")
    for name, (before, after) in pages.written(stored).items():
        assert before == after, f"{name}: python -m benchmarks --write"
    changed = [replace(row, runtime_ms=(row.runtime_ms or 0) * 2) for row in stored]
    for before, after in pages.written(changed).values():
        assert before != after


@torch_alone
def test_figures_are_of_the_results() -> None:
    """By a digest of what they show, which a changed row changes."""
    stored = results.read(results.FOLDER / "full.csv")
    for library in figure.ALL:
        drawn = (figure.FOLDER / f"speed-{library}.svg").read_text()
        assert figure.digest(stored, library) in drawn, "python -m benchmarks --write"
    changed = [replace(row, runtime_ms=(row.runtime_ms or 0) * 2) for row in stored]
    assert figure.digest(changed, "torch") != figure.digest(stored, "torch")


@torch_alone
def test_the_page_of_gpus_is_that_of_its_results() -> None:
    from benchmarks import gpu_forms, gpu_results

    before, after = marks.filled(gpu_results.PAGE, gpu=gpu_results.part())
    assert before == after, "python -m benchmarks.gpu --write"
    stored = results.read(gpu_results.PATH, gpu_results.Row)
    for row in stored:
        assert bool(row.failed) == (row.runtime_ms is None)
        if row.form == "ntxent":
            bounds = gpu_forms.BOUNDS[row.product]
            assert row.loss_error_ratio <= bounds[0]
            assert row.gradient_error_ratio <= bounds[1]
