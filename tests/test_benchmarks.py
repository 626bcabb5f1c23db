"""What the benchmark says of a form is so: oracle, checks, turns, fits, tables."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _tolerances import assert_within, relative_error
from benchmarks import __main__ as main
from benchmarks import (
    cases,
    claims,
    growth,
    measure,
    oracle,
    pages,
    peers,
    report,
    results,
    tune,
)
from benchmarks.cases import Case, Setting
from benchmarks.peers import Form
from ntxent import reference

torch_alone = pytest.mark.only("torch")  # each session has one framework; this one has most forms


def loops(loss: str, z1: np.ndarray, z2: np.ndarray, tau: float) -> float:
    """The reference's value of one of the benchmark's losses."""
    if loss == "sup_con":
        labels = np.tile(peers.labels_of(len(z1)), 2)
        return reference.sup_con(np.concatenate([z1, z2]), labels, temperature=tau)
    if loss == "nt_xent":
        return reference.nt_xent(z1, z2, temperature=tau)
    return reference.info_nce(z1, z2, temperature=tau, symmetric=loss == "clip")


@torch_alone
@pytest.mark.parametrize("loss", ["nt_xent", "sup_con", "clip", "info_nce"])
@pytest.mark.parametrize("tau", [0.3, 0.01])
def test_the_oracle_is_the_formula(loss: str, tau: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradient, of copies too: 8 distinct images, and each of them twice."""
    monkeypatch.setattr(peers, "DISTINCT", 8)
    monkeypatch.setattr(peers, "labels_of", lambda images: np.arange(images) % 8 % 3)
    for images in (8, 16):
        setting = Setting("torch", loss, images, columns=4, dtype="float64", temperature=tau)
        z1, z2 = oracle.views(setting)
        value, gradient = oracle.reference(setting)
        assert_within(relative_error(value, loops(loss, z1, z2, tau)), 1e-12, loss)
        step = np.zeros_like(z1)
        step[1, 2] = 1e-6
        ahead, behind = (loops(loss, z1 + sign * step, z2, tau) for sign in (1, -1))
        slope = (ahead - behind) / 2e-6
        assert_within(abs(slope - gradient[1, 2]) / np.abs(gradient).max(), 1e-7, loss)


@torch_alone
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_inputs_are_what_the_dtype_holds(dtype: str) -> None:
    import torch

    for view in oracle.views(Setting("torch", "nt_xent", 4, dtype=dtype)):
        exact = torch.from_numpy(view).to(getattr(torch, dtype)).double().numpy()
        assert np.array_equal(exact, view)


def test_forms_take_turns_and_are_right(backend: Any) -> None:
    """Whole, in processes of their own: ours, a pasted form, the machine's floor."""
    pasted = {"torch": "eager", "jax": "jitted", "tensorflow": "simclr", "numpy": "matrix"}
    forms = pasted[backend.name], "ntxent"
    case = cases.case(backend.name, "nt_xent", 16, *forms, budget_s=0.1)
    answers = measure.measured(case)
    for key, answer in answers.items():
        row = results.make_row(key, case.setting, answer, None)
        assert not row.failed
        assert row.runtime_ms > 0
        assert row.floor_ms > 0
        assert row.gradient_error_ratio < 1e-5


@torch_alone
def test_a_wrong_form_gets_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the loss; and a NaN."""
    from benchmarks import worker

    def twice() -> Any:
        from ntxent.torch import nt_xent

        return lambda z1, z2, temperature: 2 * nt_xent(z1, z2, temperature=temperature)

    def nothing() -> Any:
        return lambda z1, z2, _: (z1 + z2).sum() * float("nan")

    for make in (twice, nothing):
        monkeypatch.setitem(peers.FORMS, "torch.planted", Form("torch", "planted", "", make, 0, 0))
        setting = Setting("torch", "nt_xent", 16)
        answer = worker.Worker("torch.planted", setting).checked(False)
        assert answer["failed"].startswith("wrong")
        assert results.make_row("torch.planted", setting, answer, None).runtime_ms is None


@torch_alone
def test_a_form_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "available_bytes", lambda: 2.0**30)
    case = Case(Setting("torch", "nt_xent", 16384), ("torch.eager",))
    assert measure.measured(case)["torch.eager"]["failed"].startswith("needs 13 GiB")
    monkeypatch.setattr(peers, "installed", lambda package: False)
    assert cases.missing(case, "torch.eager") == "torch is not installed"


@torch_alone
def test_a_process_that_ends_is_a_row_that_failed() -> None:
    with measure.process("torch.no_such_form", Setting("torch", "nt_xent", 16)) as worker:
        assert "KeyError" in worker.first["failed"]


def made_up(key: str, images: int, runtime_ms: float, peak_mib: float) -> results.Row:
    answer = {"times_ms": [runtime_ms], "peak_mib": peak_mib, "floor_ms": runtime_ms / 2}
    library, _ = key.split(".")
    return results.make_row(key, Setting(library, "nt_xent", images), answer, 0.0)


@torch_alone
def test_exponents_of_powers_are_found() -> None:
    rows = [made_up("torch.eager", n, 1e-6 * n**2, 3.0 * n) for n in (512, 1024, 2048, 4096)]
    rows[0] = replace(rows[0], runtime_ms=1e9)  # below the sizes that count
    (found,) = growth.exponents(rows, Setting("torch", "nt_xent", 0))
    assert found.time == pytest.approx(2)
    assert found.memory == pytest.approx(1)


@torch_alone
def test_claims_are_held_against_the_rows() -> None:
    rows = [made_up("torch.eager", 4096, 250, 100), made_up("torch.ntxent", 4096, 100, 10)]
    faster = claims.Claim("torch.ntxent", (4096,), "faster", 2.5)
    assert claims.line(faster, rows)[1:] == ["2.50", "holds"]
    assert claims.line(replace(faster, target=2.51), rows)[1:] == ["2.50", "missed"]
    floor = claims.Claim("torch.ntxent", (4096,), "floor", 1.9)
    assert claims.line(floor, rows)[1:] == ["2.00", "missed"]
    rows += [made_up("torch.eager", 8192, 800, 400), made_up("torch.ntxent", 8192, 400, 20)]
    both = replace(faster, sizes=(4096, 8192))
    assert claims.line(both, rows)[1:] == ["2.00 (N = 8192)", "missed"]
    assert claims.line(replace(both, sizes=(4096, 16384)), rows)[2] == "not measured"
    grown = claims.Claim("torch.ntxent", (8192,), "memory", 1)
    assert claims.line(grown, rows)[1:] == ["1.00", "holds"]


@torch_alone
def test_a_time_below_what_the_floor_leaves_possible_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run, `--check` and `--write`, which then writes nothing; forward alone has less room."""
    row = made_up("numpy.ntxent", 16384, 4200, 85)
    right, wrong = replace(row, floor_ms=6000.0), replace(row, floor_ms=93000.0)
    assert report.impossible([right, replace(row, floor_ms=None)]) == []
    forward = replace(right, direction="forward")
    assert len(report.impossible([right, wrong, forward])) == 2
    path = tmp_path / "rows.csv"
    results.write(path, [right, wrong])

    def written(rows: Any) -> Any:
        return {"page.md": ("before", "after")}

    monkeypatch.setattr(pages, "written", written)
    for option in ("--check", "--write"):
        monkeypatch.setattr("sys.argv", ["benchmarks", option, "--csv", str(path)])
        assert main.main() == 1
        said = capsys.readouterr().out
        assert "numpy.ntxent, nt_xent, N = 16384: 4.20 s is 0.05 of the floor, 93.0 s" in said
        assert "python -m benchmarks --only numpy" in said
    monkeypatch.setattr(main, "run", lambda *_, **__: [wrong])
    monkeypatch.setattr("sys.argv", ["benchmarks", "--csv", str(path)])
    assert main.main() == 1
    assert "below 0.67 one of them was measured wrongly" in capsys.readouterr().out
    monkeypatch.setattr(main, "run", lambda *_, **__: [right])
    assert main.main() == 0


@pytest.mark.only("numpy")
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux binds threads")
def test_threads_of_blas_have_a_core_each() -> None:
    """Two of them on one core wait for the scheduler at every product."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    code = (
        "import os, numpy; from pathlib import Path; from benchmarks.worker import bind;"
        f"bind({cores}, apart=True); tasks = Path('/proc/self/task').iterdir();"
        "print(sorted(sorted(os.sched_getaffinity(int(task.name))) for task in tasks))"
    )
    paths = os.pathsep.join([str(measure.ROOT), str(measure.ROOT / "src")])
    threads = {"OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": paths}
    command = [sys.executable, "-c", code]
    said = subprocess.check_output(command, env=os.environ | threads, text=True)
    assert ast.literal_eval(said) == sorted([cores[number % len(cores)]] for number in range(2))


@torch_alone
def test_a_caption_names_every_machine() -> None:
    """Libraries may have been measured on different ones."""
    rows = [made_up("torch.eager", 64, 1.5, 2.5), made_up("torch.ntxent", 64, 1.25, 0.5)]
    rows = [
        replace(row, device=f"a {name}", cpu_count=2) for row, name in zip(rows, "xy", strict=True)
    ]
    assert report.caption(rows).startswith("2 cores of a x and 2 cores of a y, Python")


@torch_alone
def test_no_stored_time_is_impossible() -> None:
    stored = results.read(results.FOLDER / "full.csv")
    assert not report.impossible(stored)


@torch_alone
def test_a_full_run_measures_what_is_claimed() -> None:
    """Each of our forms at each batch, and a peer beside it; peaks where sizes are compared."""
    planned = {(key, case.setting): case.memory for case in cases.full() for key in case.forms}
    for claim in claims.CLAIMS:
        for images in claim.sizes:
            setting = Setting(claim.ours.split(".")[0], claim.loss, images)
            assert (claim.ours, setting) in planned
            assert planned[claim.ours, setting] or claim.kind != "smaller"
            beside = [key for key, other in planned if other == setting]
            assert claim.kind == "floor" or any(not peers.FORMS[key].ours for key in beside)


@torch_alone
@pytest.mark.parametrize("library", tune.CHOICES)
def test_the_constants_that_ship_are_among_the_choices(library: str) -> None:
    pytest.importorskip(library)
    assert len(tune.choices(library)) > 1
    assert sum(shipped for _, shipped in tune.choices(library)) == 1


@torch_alone
def test_rows_survive_their_file(tmp_path: Path) -> None:
    rows = [made_up("torch.eager", 64, 1.5, 2.5), made_up("torch.ntxent", 64, 1.25, 0.5)]
    results.write(tmp_path / "rows.csv", rows)
    assert results.read(tmp_path / "rows.csv") == rows
    newer = replace(rows[0], runtime_ms=3.0)
    assert results.merged(rows, [newer]) == [newer, rows[1]]
