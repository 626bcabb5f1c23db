"""The script that runs other packages' tests tells what is wrong, and says when it can't run."""

from __future__ import annotations

from pathlib import Path

import pytest

import their_tests

pytestmark = [pytest.mark.only("torch"), pytest.mark.extras]


@pytest.mark.parametrize(
    ("outcomes", "listed", "words"),
    [
        ({"test_a": "passed", "test_b": "failed"}, {"test_b": "why"}, []),
        ({}, {}, ["ran no test"]),
        ({"test_a": "failed"}, {}, ["test_a failed"]),
        ({"test_a": "skipped"}, {}, ["test_a skipped"]),
        ({"test_a": "passed"}, {"test_a": "why"}, ["test_a passes: take it off the list"]),
        ({"test_a": "passed"}, {"test_b": "why"}, ["test_b is on the list, and there is no"]),
    ],
)
def test_what_is_wrong_is_said(
    outcomes: dict[str, str], listed: dict[str, str], words: list[str]
) -> None:
    found = their_tests.faults(outcomes, listed)
    assert len(found) == len(words)
    for line, start in zip(found, words, strict=True):
        assert line.startswith(start)


def test_tests_that_a_release_brings_are_seen(tmp_path: Path) -> None:
    """Those that name the loss, and no others."""
    folder = tmp_path / "tests" / "losses"
    folder.mkdir(parents=True)
    (folder / "test_a.py").write_text("from package import NTXentLoss\n")
    (folder / "b_test.py").write_text("from package import Other\n")
    (folder / "tester.py").write_text("from package import NTXentLoss\n")
    assert their_tests.tests_of(tmp_path, ["NTXentLoss"]) == ["tests/losses/test_a.py"]


def test_without_a_network_it_fails_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not skip."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SystemExit, match="needs a package index: run it again with a network"):
        their_tests.fetched(["optax"], tmp_path)
