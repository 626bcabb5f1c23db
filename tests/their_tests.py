"""The tests of other packages, from their own source distributions, run on our losses.

python tests/their_tests.py

Each package's loss is replaced by the one of `_as_peers.py` that has its arguments, and its tests
are run as they are; nothing of them is kept. What doesn't apply is listed by name, and must fail:
a test that passes comes off the list. It needs a network, for pip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # for `benchmarks`, if this runs as a script

import pytest

import _as_peers
import _peers
from benchmarks.peers._alone import alone


@dataclass(frozen=True)
class Suite:
    """Files of a package's tests, the module that they import the loss from, and what is in it."""

    package: str
    files: tuple[str, ...]
    module: str
    losses: Any
    not_applicable: Mapping[str, str] = field(default_factory=dict)  # and why


TRIPLETS = "tests the triplet loss"
SUITES = [
    Suite(
        "optax",
        ("optax/losses/_self_supervised_test.py",),
        "optax.losses._self_supervised",
        _as_peers.Optax,
        {
            "TripletMarginLossTest::test_batched0": TRIPLETS,
            "TripletMarginLossTest::test_batched1": TRIPLETS,
            "TripletMarginLossTest::test_vmap0": TRIPLETS,
        },
    ),
    Suite(
        "solo-learn",
        tuple(f"tests/losses/test_{name}.py" for name in ("simclr", "moco", "nnclr")),
        "solo.losses",
        _as_peers.SoloLearn,
    ),
]
# Those that bring no test of their loss.
WITHOUT_TESTS = "no test of it in its distribution; ours are in test_as_peers.py"
WITHOUT = {
    "lightly": ("NTXentLoss", "DCLLoss"),
    "pytorch-metric-learning": ("NTXentLoss", "SupConLoss"),
    "info-nce-pytorch": ("info_nce", "InfoNCE"),
}
UNPUBLISHED = {"google-research's supcon": "no package; ours are in test_as_peers.py"}


class Outcomes:
    """A plugin of pytest that notes how each test ended."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """By the test's name, without its file; the worst of its stages."""
        name = report.nodeid.partition("::")[2]
        if report.when == "call" or report.outcome != "passed":
            self.found[name] = report.outcome


def fetched(packages: Iterable[str], folder: Path) -> dict[str, Path]:
    """The unpacked source distribution of each, of the release in constraints.txt."""
    names, pinned = list(packages), _peers.pinned()
    wanted = [f"{name}=={pinned[name]}" for name in names]
    sources = ["--no-deps", "--no-binary", ",".join(names), "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *sources, *wanted]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        msg = (
            f"The tests of {', '.join(names)} are in their source distributions, which pip could "
            f"not fetch (pip's words are below). This check needs a package index: run it again "
            f"with a network.\n{found.stderr.strip()}"
        )
        raise SystemExit(msg)
    homes = {}
    for archive in folder.glob("*.tar.gz"):
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
        name = archive.name.rpartition("-")[0].replace("_", "-")
        homes[name] = folder / archive.name.removesuffix(".tar.gz")
    return homes


def run(suite: Suite, home: Path, folder: Path) -> dict[str, str]:
    """How each test of the suite ends on our losses; none if the files can't be imported."""
    names = {name: getattr(suite.losses, name) for name in dir(suite.losses) if name[0] != "_"}
    alone(suite.module, {suite.module: names})
    (folder / "pytest.ini").write_text("[pytest]\n")  # ours is not for them
    copies = [str(shutil.copy(home / file, folder)) for file in suite.files]
    outcomes = Outcomes()
    options = ["-q", "--no-header", "--tb=line", "-rN", "-p", "no:cacheprovider"]
    options += ["--import-mode=importlib", f"--rootdir={folder}", "-c", str(folder / "pytest.ini")]
    pytest.main([*options, *copies], plugins=[outcomes])
    return outcomes.found


def faults(outcomes: Mapping[str, str], not_applicable: Mapping[str, str]) -> list[str]:
    """What isn't as it should be, a line each."""
    found = [] if outcomes else ["ran no test"]
    for name, outcome in outcomes.items():
        if name not in not_applicable and outcome != "passed":
            found.append(f"{name} {outcome}")
        if name in not_applicable and outcome == "passed":
            found.append(f"{name} passes: take it off the list of what doesn't apply")
    gone = [name for name in not_applicable if name not in outcomes]
    return found + [f"{name} is on the list, and there is no such test" for name in gone]


def tests_of(home: Path, losses: Iterable[str]) -> list[str]:
    """The files of tests in a distribution that name one of the losses."""
    return [
        str(path.relative_to(home))
        for path in sorted(home.rglob("*.py"))
        if path.name.startswith("test_") or path.name.endswith("_test.py")
        if any(loss in path.read_text(errors="replace") for loss in losses)
    ]


def main() -> int:
    """Fetch, run, print a table; how many things are wrong."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    pinned, table, wrong = _peers.pinned(), [], []
    with tempfile.TemporaryDirectory() as name:
        homes = fetched([*(suite.package for suite in SUITES), *WITHOUT], Path(name))
        for suite in SUITES:
            folder = Path(name, f"tests-of-{suite.package}")
            folder.mkdir()
            outcomes = run(suite, homes[suite.package], folder)
            passed = [name for name, outcome in outcomes.items() if outcome == "passed"]
            counts = len(outcomes), len(passed), len(suite.not_applicable)
            table.append([suite.package, pinned[suite.package], *map(str, counts)])
            wrong += [f"{suite.package}: {x}" for x in faults(outcomes, suite.not_applicable)]
        for package, losses in WITHOUT.items():
            table.append([package, pinned[package], WITHOUT_TESTS, "", ""])
            files = tests_of(homes[package], losses)
            wrong += [f"{package} now brings {file}: run it" for file in files]
    table += [[package, "", reason, "", ""] for package, reason in UNPUBLISHED.items()]
    print()
    for package, release, tests, passed, other in table:
        counts = f"{tests:>3} tests, {passed} passed, {other} not applicable" if passed else tests
        print(f"{package:<26}{release:<8}{counts}")
    for suite in SUITES:
        for name, reason in suite.not_applicable.items():
            print(f"not applicable: {suite.package}, {name}: {reason}")
    print("\n".join(wrong))
    return len(wrong)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
