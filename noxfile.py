"""Every check and every job, each in an environment of its own.

python3 noxfile.py                        lint, types, every CPU test and the documentation
python3 noxfile.py -s demo                the main job: train on real images with the loss
python3 noxfile.py -s "demo(jax)"         the same with another backend
python3 noxfile.py -l                     all the sessions
python3 noxfile.py -t gpu                 by tag: a device or a backend
nox --no-venv -s "tests(torch-gpu)"       in the Python at hand, nothing installed

Python and pip are all it needs; `nox ...` is the same as `python3 noxfile.py ...`.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent

try:
    import nox
except ModuleNotFoundError:  # then get it into .venv, and run this file again there
    home = ROOT / ".venv"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ask = [python, "-c", "import sys, nox; sys.exit(not hasattr(nox.options, 'parallel'))"]
    if not python.exists() or subprocess.call(ask):
        venv.create(home, with_pip=True)
        subprocess.check_call([python, "-m", "pip", "install", "--quiet", "nox>=2026.8.10"])
    sys.exit(subprocess.call([python, __file__, *sys.argv[1:]]))

# A new backend is a line here and an extra of its name in pyproject.toml.
DEVICES = {
    "numpy": ["cpu"],
    "torch": ["cpu", "gpu"],
    "jax": ["cpu", "gpu"],
    "tensorflow": ["cpu", "gpu"],
}
# Most tests keep one core busy. An idle process takes tests from the other, whatever file they are
# of: by files one of two is idle for minutes at the end.
SIDE_BY_SIDE = ["--numprocesses=auto", "--dist=worksteal", "--durations=25"]
INTERPRETED = {"TRITON_INTERPRET": "1"}
COMBINATIONS = [(backend, device) for backend in DEVICES for device in DEVICES[backend]]

nox.needs_version = ">=2026.8.10"  # the first that runs sessions side by side
nox.options.default_venv_backend = "virtualenv"  # pip, not uv: nothing more to install
nox.options.reuse_venv = "yes"  # pip brings a kept environment up to date in seconds
nox.options.sessions = [  # of the tests those that take longest first
    "lint",
    "types",
    *(f"tests({name}-cpu)" for name in ("tensorflow", "jax", "torch")),
    *("docs", "kernels(cpu)", "extras(cpu)", "parity(cpu)", "tests(numpy-cpu)"),
]
# All of them two at a time: one installs or compiles while the other's tests run. What is named
# runs alone, as a GPU's memory is for one process, and what it prints is seen as it comes.
nox.options.allow_parallel = True
nox.options.parallel = 2 if len(sys.argv) == 1 else 1

PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")


def install(session: nox.Session, *packages: str, group: str) -> None:
    """Put packages and a dependency group into the session's own environment.

    With `--no-compile`, as pip would compile all there is: 66 s in place of 142 for all backends.
    Python compiles what it imports, and must be let keep it, or each process would do it anew.
    """
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    if session.venv_backend != "none":
        tools = nox.project.dependency_groups(PYPROJECT, group)
        session.install("--no-compile", "-c", "constraints.txt", *packages, *tools)
    else:  # --no-venv: what is at hand must do, and the package is run from its sources
        paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH")]
        session.env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def alone(session: nox.Session, group: str) -> None:
    """Packages without theirs: their losses need a framework alone, they torchvision and more."""
    if session.venv_backend != "none":
        packages = nox.project.dependency_groups(PYPROJECT, group)
        session.install("--no-compile", "--no-deps", "-c", "constraints.txt", *packages)


def package(backend: str) -> str:
    """This package with what a backend needs, as pip wants it."""
    return "-e." if backend == "numpy" else f"-e.[{backend}]"


@nox.session(allow_parallel=False)  # it may mend what others read
def lint(session: nox.Session) -> None:
    """Style, formatting, spelling and pyproject.toml: the hooks, which mend what they can."""
    install(session, group="lint")
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure")


@nox.session
def types(session: nox.Session) -> None:
    """Types of the package, checked against the frameworks' own; and what a user sees of them."""
    install(session, "-e.[torch,jax,plot]", group="types")  # TensorFlow publishes no types
    session.run("mypy", *session.posargs)
    session.run("pyright", "tests/user_program.py")  # what users' editors are told


@nox.session
@nox.parametrize(
    ["backend", "device"],
    [nox.param(*pair, id="-".join(pair), tags=list(pair)) for pair in COMBINATIONS],
)
def tests(session: nox.Session, backend: str, device: str) -> None:
    """Tests of one backend on one device; a device that is missing fails."""
    install(session, package(backend), group="test")
    chosen = ["--backend", backend, "--device", device, "--require"]
    # A GPU's memory is for one process, and every case takes it little time.
    chosen += SIDE_BY_SIDE if device == "cpu" else ["--all"]
    session.run("python", "-m", "pytest", *chosen, *session.posargs)
    if (backend, device) == ("torch", "gpu"):
        session.run("python", "-m", "pytest", *chosen, "--kernels", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Which lines and branches the tests of NumPy and PyTorch reach; prints what they don't."""
    install(session, package("torch"), group="coverage")
    for backend in ("numpy", "torch"):
        chosen = ["--backend", backend, "--device", "cpu", "--require", *SIDE_BY_SIDE]
        measured = ["--cov", "--cov-report=", *(["--cov-append"] if backend == "torch" else [])]
        session.run("python", "-m", "pytest", *chosen, *measured, *session.posargs)
    session.run("python", "-m", "coverage", "report")


@nox.session
@nox.parametrize("device", ["cpu"], ids=["cpu"])
def kernels(session: nox.Session, device: str) -> None:
    """Triton's kernels without a GPU: in its interpreter, and compiled for two of them."""
    install(session, "-e.[triton]", group="test")
    chosen = ["--backend", "torch", "--device", device, "--require", "--kernels"]
    chosen += SIDE_BY_SIDE
    session.run("python", "-m", "pytest", *chosen, *session.posargs, env=INTERPRETED)
    session.run("python", "tests/kernels.py", "--dims", "64", "256")
    tried = ["--device", "cpu", "--sizes", "64", "--dims", "16", "--repeats", "1"]
    session.run("python", "-m", "benchmarks.gpu", *tried)  # it runs, until a GPU runs it


@nox.session
@nox.parametrize("device", ["cpu"], ids=["cpu"])
def parity(session: nox.Session, device: str) -> None:
    """All backends in one environment: every two of them on the same numbers."""
    install(session, "-e.[all]", group="test")
    session.run("python", "tests/parity.py", "--device", device, *session.posargs)


@nox.session
@nox.parametrize("device", ["cpu"], ids=["cpu"])
def extras(session: nox.Session, device: str) -> None:
    """Other packages: the lines of docs/which-loss.md, their tests on our losses; the recipes."""
    install(session, "-e.[torch,jax]", group="extras")
    alone(session, group="alone")
    chosen = ["--backend", "torch", "--device", device, "--require", "--extras"]
    chosen += SIDE_BY_SIDE
    session.run("python", "-m", "pytest", *chosen, *session.posargs)
    session.run("python", "tests/their_tests.py")


@nox.session
def nightly(session: nox.Session) -> None:
    """Every case of the tests, of which the sessions above run some: see tests/_covering.py."""
    install(session, "-e.[all,triton]", group="test")
    every = ["--require", "--all", *SIDE_BY_SIDE, *session.posargs]
    for backend in DEVICES:
        session.run("python", "-m", "pytest", "--backend", backend, *every)
    kernels = ["--backend", "torch", "--kernels", *every]
    session.run("python", "-m", "pytest", *kernels, env=INTERPRETED)
    session.run("python", "tests/parity.py", "--all")


@nox.session
def planted(session: nox.Session) -> None:
    """Faults, planted one by one in a copy of the package: the tests must find each."""
    install(session, "-e.[all]", group="test")
    session.run("python", "tests/planted.py", *session.posargs)


@nox.session
def demo(session: nox.Session, backend: str = "torch") -> None:
    """Train an encoder on real images; print accuracies, save a figure."""
    install(session, package(backend), group="demo")
    session.run("python", "examples/simclr_digits.py", "--backend", backend, *session.posargs)


for name in DEVICES:  # named, not parametrized: `-s demo` shall be one demo, not four

    @nox.session(name=f"demo({name})")
    def demo_of(session: nox.Session, backend: str = name) -> None:
        """The demo with this backend."""
        demo.func(session, backend)


@nox.session
def docs(session: nox.Session) -> None:
    """The site, with warnings as errors, and its checks; all code in it is run."""
    install(session, "-e.[all]", group="docs")
    session.env["TF_CPP_MIN_LOG_LEVEL"] = "2"  # TensorFlow tells its build at every start
    pages(session, "html", "-W")
    session.run("python", "docs/checks/offline.py")
    session.run("python", "docs/checks/formulas.py")
    session.run("python", "docs/checks/docstrings.py")
    session.run("python", "docs/checks/commands.py")
    session.run("python", "docs/checks/blocks.py")
    session.run("codespell", "docs", "README.md", "CHANGELOG.md")


def pages(session: nox.Session, builder: str, *options: str) -> None:
    """What Sphinx makes of the documentation."""
    made = f"docs/_build/{builder}"
    session.run("python", "-m", "sphinx", "-Enq", *options, "-b", builder, "docs", made)


@nox.session
def links(session: nox.Session) -> None:
    """The links of the site to other places, which need a network."""
    install(session, "-e.[all]", group="docs")
    pages(session, "linkcheck")


@nox.session
def screenshots(session: nox.Session) -> None:
    """Every page in Chromium, a desktop's and a phone's width, light and dark, to look at."""
    install(session, "-e.[all]", group="docs")
    pages(session, "html", "-W")
    session.run("python", "docs/checks/screenshots.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Time and memory against the usual ways to write the loss."""
    install(session, "-e.[all]", group="bench")
    alone(session, group="bench-alone")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(name="bench(gpu)", tags=["gpu"])
def bench_gpu(session: nox.Session) -> None:
    """Time and memory of the kernels against the dense form, on a CUDA GPU."""
    install(session, "-e.[triton]", group="test")
    session.run("python", "-m", "benchmarks.gpu", *session.posargs)


@nox.session(reuse_venv=False)  # so that nothing but the wheel can serve the last line
def build(session: nox.Session) -> None:
    """Source archive and wheel, and the wheel tried out."""
    install(session, group="build")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    made = [str(path) for path in Path("dist").iterdir()]
    session.run("python", "-m", "twine", "check", "--strict", *made)
    if session.venv_backend != "none":
        session.install(*(path for path in made if path.endswith(".whl")))
    session.run("python", "-m", "ntxent")


if __name__ == "__main__":
    os.chdir(ROOT)  # where nox looks for this file
    nox.main()
