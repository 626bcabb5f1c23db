"""Which backends a run tests, on which device, and the guard against a run that tests none."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", ".hypothesis")
# Virtual devices, of which there is one until JAX starts; its own variable, which TensorFlow's XLA
# does not read. Every test but those of meshes runs on the first.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")

import numpy as np
import pytest
from hypothesis import settings

from _adapters import ADAPTERS, XLA_IN_HASTE, cut_into
from _covering import COMPILERS, covering

settings.register_profile("ntxent", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("compiled", settings.get_profile("ntxent"), max_examples=5)

PASSED: Counter[str] = Counter()
WORST: dict[tuple[str, str], tuple[int, float]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", choices=sorted(ADAPTERS), help="test this backend alone")
    parser.addoption("--device", choices=["cpu", "gpu"], default="cpu")
    parser.addoption(
        "--require",
        action="store_true",
        help="a missing backend or device fails the run, and so does a run without its tests",
    )
    parser.addoption(
        "--extras",
        action="store_true",
        help="the tests that need peers or scikit-learn, and no others",
    )
    parser.addoption(
        "--all",
        action="store_true",
        help="every case of the tests of which some cases would do (see _covering.py): at night",
    )
    parser.addoption(
        "--kernels",
        action="store_true",
        help="the tests of Triton's kernels, and no others: on a GPU, or with TRITON_INTERPRET=1",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "only(backend): a test of one backend's own features")
    config.addinivalue_line("markers", "extras: a test that needs more than the backend")
    config.addinivalue_line("markers", "kernels: a test of Triton's kernels")
    config.addinivalue_line("markers", "covering(names, ...): some cases do; see _covering.py")
    name, device = config.getoption("--backend"), config.getoption("--device")
    if (name, device) == ("jax", "cpu") and not config.getoption("--all"):
        os.environ.setdefault("XLA_FLAGS", XLA_IN_HASTE)  # read when JAX compiles first
    compiled = name in COMPILERS and not config.getoption("--all")  # each example anew
    settings.load_profile("compiled" if compiled else "ntxent")
    if config.getoption("--require") and name:
        if not ADAPTERS[name].installed():
            msg = f"--require: {name} is not installed"
            raise pytest.UsageError(msg)
        if not ADAPTERS[name].has_device(device):
            msg = f"--require: {name} sees no {device}"
            raise pytest.UsageError(msg)


def chosen(config: pytest.Config) -> list[str]:
    """The backends under test: the named one, or all that are installed and have the device."""
    name, device = config.getoption("--backend"), config.getoption("--device")
    names = [name] if name else sorted(ADAPTERS)
    return [n for n in names if ADAPTERS[n].installed() and ADAPTERS[n].has_device(device)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", chosen(metafunc.config), indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    names = chosen(config)
    kept, dropped = [], []
    for item in items:
        mark = item.get_closest_marker("only")
        meant = all(
            (item.get_closest_marker(name) is not None) == config.getoption(f"--{name}")
            for name in ("extras", "kernels")
        )
        (kept if meant and (mark is None or mark.args[0] in names) else dropped).append(item)
    if not config.getoption("--all"):
        kept, more = covering(kept)
        dropped += more
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Any:
    """The adapter of the backend under test."""
    return ADAPTERS[request.param](request.config.getoption("--device"))


@pytest.fixture
def every(request: pytest.FixtureRequest) -> bool:
    """Whether all is asked for, at night, where less would do."""
    return bool(request.config.getoption("--all"))


@pytest.fixture(params=["dense", "tiled", "tiles of 8"])
def implementation(request: pytest.FixtureRequest, backend: Any, monkeypatch: Any) -> str:
    """Each implementation; tiled also with tiles so small that every batch has ragged ones."""
    if request.param == "tiles of 8":
        cut_into(monkeypatch, backend.tiled, 8)
        return "tiled"
    return str(request.param)


@pytest.fixture(autouse=True)
def interpreter(request: pytest.FixtureRequest) -> Iterator[None]:
    """Triton's computes with NumPy, which would warn of log2(0), of a row without any pair."""
    kernels = request.node.get_closest_marker("kernels") is not None
    with np.errstate(divide="ignore") if kernels else contextlib.nullcontext():
        yield


@pytest.fixture
def note_worst(request: pytest.FixtureRequest) -> Any:
    """Record an error as a fraction of its tolerance, for the summary."""

    def note(what: str, backend: str, fraction: float) -> None:
        # On the report, which reaches the process that prints the summary, if there are several.
        request.node.user_properties.append(("worst", [what, backend, float(fraction)]))

    return note


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        PASSED.update(name for name in ADAPTERS if name in re.split(r"[\[\]-]", report.nodeid))
        for key, (what, name, fraction) in report.user_properties:
            assert key == "worst"
            count, worst = WORST.get((what, name), (0, 0.0))
            WORST[what, name] = (count + 1, max(worst, fraction))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for (what, name), (count, worst) in sorted(WORST.items()):
        terminalreporter.write_line(
            f"{what}, {name}: {count} cases, worst error {worst:.2f} of the tolerance"
        )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run that was told to require a backend and ran nothing of it has shown nothing."""
    name = session.config.getoption("--backend")
    # These are of one backend all of them; pytest itself fails a run without any test.
    options = ("keyword", "file_or_dir", "extras", "kernels")
    partial = any(session.config.getoption(option) for option in options)
    if session.config.getoption("--require") and name and not partial and not PASSED[name]:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
